# shellcheck shell=bash
# What the scripts share; sourced, not run.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by those that source this
bin=$top/build/bin

say() { printf '%s\n' "$*"; }

# As a shell takes it back.
quoted() { printf '%q' "$1"; }

fail() {
    printf 'script/%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

usage_error() {
    printf 'script/%s: %s (see --help)\n' "${0##*/}" "$*" >&2
    exit 2
}

# The value of an option: need_value "$@" with the option in front.
need_value() {
    (($# >= 2)) || usage_error "$1 needs a value"
}
