# shellcheck shell=bash
# Sourced by the other scripts: words to the user, and the time each part took.

part() { # part NAME COMMAND...: run it, and say how long it took
    local name=$1 began=$SECONDS status=0
    shift
    echo "== $name"
    # `|| status=` keeps set -e from ending the script before the time is printed.
    "$@" || status=$?
    echo "== $name: $((SECONDS - began)) s$([ $status = 0 ] || echo ", FAILED ($status)")"
    return $status
}

skip_or_fail() { # a part that cannot run here: a clear word; in CI a failure if $1 is "ci"
    local strict=$1
    shift
    if [ "$strict" = ci ] && [ "${CI:-}" = true ]; then
        echo "FAILED: $*" >&2
        return 1
    fi
    echo "SKIPPED: $*"
}

has_nightly() { command -v rustup >/dev/null && rustup toolchain list 2>/dev/null | grep -q '^nightly'; }

need_root() { # need_root WHAT COMMAND
    if [ "$(id -u)" != 0 ]; then
        echo "error: $1 needs root (it makes network namespaces and loads BPF programs)" >&2
        echo "  remedy: sudo -E env PATH=\"\$PATH\" $2" >&2
        exit 1
    fi
}
