# shellcheck shell=bash
# shellcheck disable=SC2154 # top, bin, dir, nodes come from who sources this
# Nodes under one directory: topology, start, readiness, stop. Sourced by script/run.
#
# $dir is the absolute directory, $nodes how many; node n1 has $dir/n1/{data,run,log} and $dir/n1/shanghaid.pid.
# Only processes that a pid file names, and that run with our topology file, are ever signalled.

ready_s=30
stop_s=30

topology() { printf '%s/topology.yaml' "$dir"; }
pid_file() { printf '%s/%s/shanghaid.pid' "$dir" "$1"; }
log_file() { printf '%s/%s/log/shanghaid.log' "$dir" "$1"; }
endpoint() { printf 'ipc://%s/%s/run/query' "$dir" "$1"; }
node_ids() { seq -f 'n%.0f' 1 "$nodes"; }

# node_ctl ID ARGUMENTS...: shanghaictl with that node.
node_ctl() {
    local id=$1
    shift
    "$bin/shanghaictl" --endpoint "$(endpoint "$id")" "$@" </dev/null
}

# Whether a process runs; one that has ended and that nobody has waited for has no command line any more.
process_runs() {
    [[ -n $({ tr -d '\0' <"/proc/$1/cmdline"; } 2>/dev/null) ]]
}

# The pid of a node's shanghaid when it runs; nothing otherwise.
node_pid() {
    local pid
    pid=$(cat "$(pid_file "$1")" 2>/dev/null) || return 0
    [[ $pid =~ ^[0-9]+$ ]] || return 0
    if { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -Fxq -- "$(topology)"; then
        echo "$pid"
    fi
}

# Prints "PORT ADMIN_PORT" for each node: those that the topology has, when they are free; else from 4000 in steps of 10
# and from 9090 in steps of 1, where a pair of which anything is taken is stepped over.
pick_ports() {
    local ids
    mapfile -t ids < <(node_ids)
    python3 - "$(topology)" "${ids[@]}" <<'EOF'
import re
import socket
import sys

PORTS = 5  # clients (2), membership, replication (2)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
            return True
        except OSError:
            return False


def is_free_pair(pair):
    return all(map(is_free, [*range(pair[0], pair[0] + PORTS), pair[1]]))


def overlaps(pair, others):
    return any(abs(pair[0] - port) < PORTS or pair[1] == admin for port, admin in others)


try:
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        text = file.read()
except FileNotFoundError:
    text = ""
pattern = r"- \{id: (\w+), host: 127\.0\.0\.1, port: (\d+), admin_port: (\d+)\}"
before = {name: (int(port), int(admin)) for name, port, admin in re.findall(pattern, text)}
chosen = {name: before[name] for name in sys.argv[2:] if name in before and is_free_pair(before[name])}
pairs = ((4000 + 10 * i, 9090 + i) for i in range(500))
free = (pair for pair in pairs if not overlaps(pair, chosen.values()) and is_free_pair(pair))
for name in sys.argv[2:]:
    if name not in chosen:
        chosen[name] = next(free, None) or sys.exit("all ports from 4000 to 8994 are taken")
    print(*chosen[name])
EOF
}

# A text as a YAML string.
yaml_string() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# Written anew at each start, for ports may be taken that were free, and settings may have changed: $dir/settings.yaml is
# taken into it.
write_topology() {
    local ports port admin id
    ports=$(pick_ports) || fail "no free ports"
    {
        say "# Written by script/run at each start; settings to keep go into settings.yaml beside it."
        say "cluster:"
        say "  name: local"
        say "  nodes:"
        for id in $(node_ids); do
            read -r port admin
            say "    - {id: $id, host: 127.0.0.1, port: $port, admin_port: $admin}"
        done <<<"$ports"
        say "data_dir: $(yaml_string "$dir/%n/data")"
        say "run_dir: $(yaml_string "$dir/%n/run")"
        if [[ -f $dir/settings.yaml ]]; then
            cat "$dir/settings.yaml"
        fi
    } >"$(topology)"
    "$bin/shanghaictl" config check "$(topology)" >"$dir/.check" 2>&1 || {
        cat "$dir/.check" >&2
        rm -f "$dir/.check"
        fail "the topology of $dir has errors"
    }
    rm -f "$dir/.check"
}

# The first port of a node in the topology.
node_port() { sed -n "s/.*{id: $1, .*, port: \([0-9]*\),.*/\1/p" "$(topology)"; }

# The line of a node in the topology: its ports, as people read them.
node_ports() {
    sed -n "s/.*{id: $1, .*port: \([0-9]*\), admin_port: \([0-9]*\)}/\1 \2/p" "$(topology)" | {
        read -r port admin
        say "ports $port to $((port + 4)), admin port $admin"
    }
}

# In a session of its own, so that Ctrl-C reaches this script only, which then stops it in order.
starting= # the node that has no pid file yet, for a signal may come just then
start_node() {
    local id=$1
    mkdir -p "$dir/$id/data" "$dir/$id/log" "$dir/$id/run"
    chmod 700 "$dir/$id/run"
    starting=$id
    setsid "$bin/shanghaid" --config "$(topology)" --node "$id" </dev/null >>"$(log_file "$id")" 2>&1 8>&- 9>&- &
    echo $! >"$(pid_file "$id")"
    starting=
}

# Whether all of a node answers; on a full disk it takes no writes, and is ready all the same.
node_is_ready() {
    node_ctl "$1" --timeout 1s --format json status 2>/dev/null |
        python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["writes"] == "walsvc_away")' 2>/dev/null
}

wait_ready() {
    local id=$1 pid=$2 end=$((SECONDS + ready_s))
    until node_is_ready "$id"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 20 "$(log_file "$id")" >&2
            say "node $id ended while it started; its log is $(log_file "$id")" >&2
            return 1
        fi
        if ((SECONDS > end)); then
            tail -n 20 "$(log_file "$id")" >&2
            say "node $id was not ready within $ready_s s; its log is $(log_file "$id")" >&2
            return 1
        fi
        sleep 0.05
    done
}

# SIGTERM, and SIGKILL when that takes too long; 1 when it had to be killed.
stop_node() {
    local id=$1 pid end=$((SECONDS + stop_s)) killed=0
    pid=$(node_pid "$id")
    if [[ -z $pid ]]; then
        rm -f "$(pid_file "$id")"
        return 0
    fi
    kill -TERM "$pid" 2>/dev/null || true
    while [[ -n $(node_pid "$id") ]]; do
        if ((SECONDS > end)); then
            say "node $id did not stop within $stop_s s; killing it" >&2
            kill -KILL "$pid" 2>/dev/null || true
            end=$((SECONDS + stop_s))
            killed=1
        fi
        sleep 0.05
    done
    rm -f "$(pid_file "$id")"
    return "$killed"
}

# Every node that has a folder here, whatever --nodes says.
stop_nodes() {
    local folder id status=0
    [[ -z $starting || -z ${!:-} ]] || echo $! >"$(pid_file "$starting")"
    starting=
    for folder in "$dir"/n*/; do
        id=$(basename "$folder")
        [[ -e $(pid_file "$id") ]] || continue
        stop_node "$id" || status=1
    done
    return "$status"
}

# Their ids, in one line.
running_nodes() {
    local folder id ids=()
    for folder in "$dir"/n*/; do
        id=$(basename "$folder")
        [[ -z $(node_pid "$id") ]] || ids+=("$id")
    done
    echo "${ids[*]}"
}

# Before start_nodes, and before any trap that stops nodes: those that run already are not ours. One start at a time, so
# that two of them don't pick the same ports.
begin_start() {
    local running
    exec 9>"$top/build/.run.lock"
    flock 9
    running=$(running_nodes)
    [[ -z $running ]] || fail "$running runs already under $dir; stop it with script/run --stop --dir $(quoted "$dir")"
}

# Starts all and waits for all; stops all when one fails.
start_nodes() {
    local id
    write_topology
    for id in $(node_ids); do
        start_node "$id"
    done
    for id in $(node_ids); do
        say "waiting for node $id"
        if ! wait_ready "$id" "$(cat "$(pid_file "$id")")"; then
            stop_nodes || true
            exit 1
        fi
    done
    exec 9>&-
}
