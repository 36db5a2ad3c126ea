# shellcheck shell=bash
# Sourced by the other scripts: words to the user, and the time each part took.

part_name=
part_began=0

part() { # part NAME COMMAND...: run it, and say how long it took
    part_name=$1 part_began=$SECONDS
    shift
    echo "== $part_name"
    # Not in an `if` or before `||`: that would switch off set -e inside the command.
    "$@"
    echo "== $part_name: $((SECONDS - part_began)) s"
    part_name=
}

part_ended() {
    local status=$?
    [ -z "$part_name" ] || echo "== $part_name: FAILED ($status) after $((SECONDS - part_began)) s"
}
trap part_ended EXIT

skip_or_fail() { # a part that cannot run here: a clear word; in CI a failure if $1 is "ci"
    local strict=$1
    shift
    if [ "$strict" = ci ] && [ "${CI:-}" = true ]; then
        echo "FAILED: $*" >&2
        return 1
    fi
    echo "SKIPPED: $*"
}

# The oracle asks apt which packages its guest is made of, and apt leaves out those that it
# has in its cache, as on a system just installed: so it is given an empty one.
empty_apt_cache() { # empty_apt_cache DIRECTORY
    mkdir -p "$1/archives/partial"
    printf 'Dir::Cache::archives "%s";\n' "$1/archives" >"$1/apt.conf"
    export APT_CONFIG=$1/apt.conf
}

has_nightly() { command -v rustup >/dev/null && rustup toolchain list 2>/dev/null | grep -q '^nightly'; }

need_root() { # need_root WHAT COMMAND
    if [ "$(id -u)" != 0 ]; then
        echo "error: $1 needs root (it makes network namespaces and loads BPF programs)" >&2
        echo "  remedy: sudo -E env PATH=\"\$PATH\" $2" >&2
        exit 1
    fi
}

# A release build of the program, a scratch directory, and a lab's name for one bench: $dirigent, $work, $lab. The daemon ends
# with its lab; what it was told at runtime is nobody's any more.
bench_lab() { # bench_lab NAME
    cargo build --quiet --release -p dirigent
    dirigent=$PWD/target/release/dirigent
    lab=$1-$$
    work=$(mktemp -d)
    trap 'part_ended; bench_lab_ended' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    export STATE_DIRECTORY=$work DIRIGENT_INSTANCE=$lab
}

bench_lab_ended() {
    "$dirigent" --instance "$lab" stop --detach >/dev/null 2>&1 || true
    "$dirigent" lab down --name "$lab" >/dev/null 2>&1 || true
    rm -rf "$work"
}

# Waits until the lab's daemon answers; its process is $pid then.
bench_daemon() {
    for _ in $(seq 100); do
        "$dirigent" status >/dev/null 2>&1 && break
        sleep 0.1
    done
    pid=$("$dirigent" status --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
}
