# shellcheck shell=bash
# shellcheck disable=SC2154 # bin comes from who sources this
# The demonstration of script/run --once: a real file's lines into the log, a kill half way, the same lines out again.

demo_s=120
demo_append= # process of the append while it runs

find_words() {
    local file
    for file in /usr/share/dict/words /usr/share/dict/american-english; do
        if [[ -r $file ]] && (($(wc -l <"$file") >= 100000)); then
            echo "$file"
            return
        fi
    done
    fail "found no word list of at least 100,000 lines in /usr/share/dict (Debian's package wamerican has one)"
}

ctl() { node_ctl n1 "$@"; }

# json EXPRESSION: of the document d on standard input.
json() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

durable_lsn() { { ctl --format json status | json 'd["durable_lsn"]' || echo 0; } 2>/dev/null; }
service_field() {
    ctl --format json svc tree |
        json "next(s['$2'] for s in (d['services'] if isinstance(d, dict) else d) if s['name'] == '$1')"
}

wait_durable() {
    local end=$((SECONDS + demo_s))
    until (($(durable_lsn) + 0 >= $1)); do # + 0: there is no answer when a signal is ending us
        ((SECONDS <= end)) || fail "entry $1 was not durable within $demo_s s"
        sleep 0.05
    done
}

# run_demo WORK: WORK is a directory for its files.
run_demo() {
    local work=$1 words lines half before walsvc first restarts status=0
    words=$(find_words)
    lines=$(wc -l <"$words")
    half=$((lines / 2 - lines / 2 % 100)) # a whole number of batches: all of it can be acknowledged while the rest is held back
    before=$(durable_lsn)
    mkfifo "$work/lines"

    say "appending the $lines lines of $words, the first $half now"
    timeout "$demo_s" "$bin/shanghaictl" --endpoint "$(endpoint n1)" --format json append --batch 100 - \
        <"$work/lines" >"$work/summary" &
    demo_append=$!
    exec 7>"$work/lines"
    head -n "$half" "$words" >&7
    wait_durable $((before + half))

    walsvc=$(service_field walsvc pid)
    say "$half are acknowledged; SIGKILL to walsvc, process $walsvc"
    kill -KILL "$walsvc"
    say "sending the other $((lines - half))"
    tail -n "+$((half + 1))" "$words" >&7
    exec 7>&-
    wait "$demo_append" || status=$?
    demo_append=
    ((status == 0)) || fail "the append failed with exit code $status"
    say "summary: $(cat "$work/summary")"
    (($(json 'd["entries"]' <"$work/summary") == lines)) || fail "the summary does not count $lines entries"
    restarts=$(service_field walsvc restarts)
    say "walsvc runs again as process $(service_field walsvc pid), restarts: $restarts"
    ((restarts == 1)) || fail "walsvc was restarted $restarts times; its log says why"

    first=$(json 'd["first"]["lsn"]' <"$work/summary")
    say "reading $lines entries back from LSN $first"
    ctl read --from "$first" --count "$lines" --format raw >"$work/back"
    cmp "$work/back" "$words" || fail "what was read differs from what was appended"
    (($(durable_lsn) == before + lines)) || fail "the log holds more than what was appended"
    say "the log holds each line once, in order: byte for byte what was appended"
}
