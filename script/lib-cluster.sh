# shellcheck shell=bash
# shellcheck disable=SC2154 # dir comes from who sources this
# The cluster part of script/run --once, on three nodes under $dir: one of them is killed and comes back, leaves the
# cluster and joins it again. Each step is checked, and fails the script when it does not come in time.

step_s=20

# wait_until WHAT COMMAND...: until the command succeeds.
wait_until() {
    local what=$1 end=$((SECONDS + step_s))
    shift
    until "$@"; do
        if ((SECONDS > end)); then
            node_ctl n1 --timeout 2s events >&2 || true
            node_ctl n1 --timeout 2s nodes >&2 || true
            fail "not within $step_s s: $what"
        fi
        sleep 0.1
    done
}

# answer_is ID COMMAND EXPRESSION: whether the expression is true of what that node answers, as the JSON document d.
answer_is() {
    [[ $({ node_ctl "$1" --timeout 2s --format json "$2" | json "$3"; } 2>/dev/null) == True ]]
}

is_healthy() { answer_is "$1" status 'd["health"] == "healthy" and [n["status"] for n in d["nodes"]] == ["up"] * 3'; }

wait_healthy() {
    local id
    for id in n1 n2 n3; do
        wait_until "a healthy cluster of three, as $id sees it" is_healthy "$id"
    done
}

# holds ID ORIGIN TEXT: whether what that node has of the log of ORIGIN is just these words.
holds() { [[ $(node_ctl "$1" --timeout 2s --format raw read --node "$2" --from 1 2>/dev/null | tr '\n' ' ') == "$3 " ]]; }

# The event of n3 of this kind, from that number on, as n1 has seen it; or nothing.
event_line() {
    { node_ctl n1 --timeout 2s events --from "$1" |
        awk -v kind="$2" '$4 == "n3" && $5 == kind && !n++ { sub(/^ +/, ""); print }'; } 2>/dev/null
}

event_came() { [[ -n $(event_line "$@") ]]; }

show_event() {
    wait_until "n3 $2, as n1 sees it" event_came "$@"
    say "n1 sees: $(event_line "$@")"
}

next_event() { node_ctl n1 --format json nodes | json 'd["next_event"]'; }

all_ended() {
    local pid
    for pid in "$@"; do
        ! process_runs "$pid" || return 1
    done
}

# All of n3 at once, as a loss of power would.
kill_node() {
    local shanghaid services
    shanghaid=$(node_pid n3)
    services=$(node_ctl n3 --format json svc tree | json '" ".join(str(s["pid"]) for s in d if s["kind"] == "service")')
    # shellcheck disable=SC2086 # several numbers
    set -- "$shanghaid" $services
    (($# > 1)) || fail "n3 has no services"
    say "SIGKILL to n3: shanghaid, process $shanghaid, and its services, processes ${services// /, }"
    disown "$shanghaid" # bash would tell of it
    kill -KILL "$@" 2>/dev/null || true # the services end with shanghaid, perhaps before their turn
    wait_until "the end of n3's processes" all_ended "$@"
}

demo_kill() {
    local from
    from=$(next_event)
    kill_node
    show_event "$from" suspect
    show_event "$from" down
    wait_until "that n1 calls the cluster degraded for it" answer_is n1 status \
        '(d["health"], d["reasons"]) == ("degraded", ["n3 is down"])'
    node_ctl n1 append --ack quorum "while n3 is down" | sed 's/^/  n1: /' || fail "two of three nodes are no quorum"
    say "starting n3 again"
    start_node n3
    wait_ready n3 "$(cat "$(pid_file n3)")" || exit 1
    show_event "$from" up
    wait_healthy
    wait_until "that n3 has what n1 took meanwhile" holds n3 n1 "while n3 is down"
    say "n3 has what n1 took meanwhile"
}

demo_leave() {
    local refusal
    node_ctl n3 append --ack all one two three | sed 's/^/  n3: /' || fail "the append to n3 failed"
    holds n1 n3 "one two three" || fail "n1 does not have the entries of n3"
    say "n1 has them too; node leave n3, asked of n1:"
    node_ctl n1 node leave n3 | sed 's/^/  /' || fail "node leave failed"
    wait_until "that n3 is read-only, with nothing that only it has" answer_is n3 nodes \
        '(d["state"], d.get("only_first", 0)) == ("left", 0)'
    wait_until "that n3 takes no writes" answer_is n3 status 'd["writes"] == "read_only"'
    say "n3 is read-only:"
    node_ctl n3 nodes | sed -n '2,3s/^/  /p'
    ! refusal=$(node_ctl n3 append four 2>&1) || fail "n3 took an append after it left"
    [[ $refusal == *": read_only: "* ]] || fail "an append to n3 ended with: $refusal"
    answer_is n3 status 'd["durable_lsn"] == 3' || fail "the log of n3 does not end at LSN 3"
    say "an append to n3 is refused:"
    say "  $refusal"
}

demo_join() {
    say "node join n3, asked of n2:"
    node_ctl n2 node join n3 --host 127.0.0.1 --port "$(node_port n3)" | sed 's/^/  /' || fail "node join failed"
    wait_until "that n3 takes writes" answer_is n3 status 'd["writes"] == "taken"'
    node_ctl n3 append --ack all four | sed 's/^/  n3: /' || fail "the append to n3 failed"
    holds n2 n3 "one two three four" || fail "n2 does not have the entries of n3"
    wait_healthy
    say "n3 takes writes again, and the others have them; n1, n2 and n3 are up"
}

run_cluster_demo() {
    say "member: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}" >"$dir/settings.yaml"
    say "a cluster of three nodes, suspect after 2 s and down after 3 s of silence"
    begin_start
    start_nodes
    wait_healthy
    say "n1, n2 and n3 are up, and each says that the cluster is healthy"
    demo_kill
    demo_leave
    demo_join
}
