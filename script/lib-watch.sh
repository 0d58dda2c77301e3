# shellcheck shell=bash
# shellcheck disable=SC2154 # bin, dir come from who sources this
# How the nodes of script/run are, live, while one of them runs: on a terminal a table that is drawn again each second,
# otherwise the events that n1 sees.

watch_child= # a process of the watch: what prints events, or the pause between two pictures
watch_screen=false

# The terminal's other screen, which leaves what was there before as it was; without a cursor, long lines cut.
open_screen() {
    watch_screen=true
    printf '\e[?1049h\e[?25l\e[?7l'
}

# Ends the watch wherever it is; may be called again.
stop_watching() {
    if [[ -n $watch_child ]]; then
        disown "$watch_child" 2>/dev/null || true # bash tells nothing of it
        kill "$watch_child" 2>/dev/null || true
        watch_child=
    fi
    if $watch_screen; then
        watch_screen=false
        printf '\e[?7h\e[?25h\e[?1049l' || true # the terminal may be gone
    fi
}

# The health with its reasons in one line.
health_line() {
    awk 'NR == 1 { line = $0; next }
         /^  / && !behind { line = line (n++ ? ", " : ": ") substr($0, 3); next }
         { behind = 1 }
         END { print line }'
}

# How all are, as this node sees it; 1 when it doesn't answer.
view_of() {
    local status table
    [[ -n $(node_pid "$1") ]] || return 1
    status=$(CLICOLOR_FORCE=1 node_ctl "$1" --timeout 1s status 2>/dev/null) || return 1
    table=$(CLICOLOR_FORCE=1 node_ctl "$1" --timeout 1s nodes 2>/dev/null) || return 1
    health_line <<<"$status"
    say ""
    say "$table"
}

first_view() {
    local id
    for id in $(node_ids); do
        ! view_of "$id" || return 0
    done
    say "no node answers"
}

picture() {
    local id
    first_view
    say ""
    for id in $(node_ids); do
        [[ -n $(node_pid "$id") ]] || say "node $id ended; its log is $(log_file "$id")"
    done
    say "export SHANGHAI_ENDPOINT=$(quoted "$(endpoint n1)")"
    say "Ctrl-C stops it"
}

# In one write, over the picture before; as many lines as the terminal has.
draw() {
    local lines rows
    { rows=$(stty size <&6 2>/dev/null) || rows=; } 6>&1 # in a substitution 1 is a pipe
    rows=${rows%% *}
    lines=$(picture | sed -n "1,$((rows > 1 ? rows - 1 : 24))s/\$/\\x1b[K/p")
    printf '\e[H%s\n\e[J' "$lines"
}

watch_on_terminal() {
    open_screen
    trap : WINCH # ends the wait: drawn at once for the new size
    while [[ -n $(running_nodes) ]]; do
        draw
        if [[ -z $watch_child ]] || ! process_runs "$watch_child"; then
            sleep 1 &
            watch_child=$!
        fi
        wait "$watch_child" || true
    done
    stop_watching
}

# Until nobody reads them any more.
follow_events() {
    "$bin/shanghaictl" --endpoint "$(endpoint n1)" events -f </dev/null &
    watch_child=$!
    while [[ -n $(running_nodes) ]] && process_runs "$watch_child"; do
        sleep 0.5
    done
    stop_watching
}

watch_nodes() {
    disown -a # bash would tell of a node that was killed, in the middle of the picture
    if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then
        watch_on_terminal
    else
        follow_events
    fi
}
