#!/usr/bin/env bash
# make demo: real clients reach real servers through one virtual address, and the way of every packet is shown.
# Builds first; what it shows takes under 90 seconds. Leaves nothing behind, however it ends.
#   scripts/demo.sh [DIRIGENT [LAB]]   with a program that is built already, in a lab of that name: for its test
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make demo" "make demo"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

lab=${2:-demo}
seconds=3
vip4=192.0.2.10
vip6='[2001:db8::10]'

say() { printf '\n=== %s\n\n' "$*"; }
on_client() { "$dirigent" lab exec --name "$lab" client -- "$@"; }

# One request to each of the services: the servers take turns.
ask_all() {
    for url in "http://$vip4/" "http://$vip6/"; do
        for _ in 1 2 3 4; do
            printf '  curl %-26s → ' "$url"
            on_client curl -sS -g --max-time 5 "$url"
        done
    done
}

load() {
    if command -v wrk >/dev/null; then
        on_client wrk -t1 -c20 -d"${seconds}s" --header "Connection: close" "http://$vip4/" | sed 's/^/  /'
    elif command -v ab >/dev/null; then
        on_client ab -q -t "$seconds" -c 20 "http://$vip4/" | grep -E '^(Complete|Failed|Requests|Time per)' | sed 's/^/  /'
    else
        echo "error: neither wrk nor ab is here; scripts/setup.sh test installs wrk" >&2
        return 1
    fi
}

if [ $# = 0 ]; then
    scripts/setup.sh test
    echo "demo: building (the first time takes minutes)"
    cargo build --quiet --release -p dirigent
fi
dirigent=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/dirigent}")

# shellcheck disable=SC2329 # called by the trap
clean() {
    local status=$?
    "$dirigent" lab down --name "$lab" >/dev/null || status=1
    for mode in dr tun; do "$dirigent" lab down --name "$lab-$mode" >/dev/null || status=1; done
    [ "$status" = 0 ] || echo "demo: FAILED" >&2
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

began=$SECONDS
# Of a demo that was killed.
for name in "$lab" "$lab-dr" "$lab-tun"; do "$dirigent" lab down --name "$name" >/dev/null; done

say "a lab of network namespaces: client, router, director with daemon, three servers with nginx"
echo "  its configuration: examples/dirigent.toml"
"$dirigent" lab up --name "$lab" --servers 3 --config examples/dirigent.toml
"$dirigent" --instance "$lab" status
say "real HTTP requests to the virtual addresses, answered by nginx on the servers in turn"
ask_all
say "load: $seconds seconds, a new connection for every request"
load
say "the way of one request and its reply"
"$dirigent" lab walk --name "$lab" --around
say "the same in IPv6"
"$dirigent" lab walk --name "$lab" --family 6
say "who answered how much, and the bytes on each side of the director"
"$dirigent" lab traffic --name "$lab"
echo
"$dirigent" --instance "$lab" stats --drops

say "the three forwarding methods next to each other: two more labs, one request to each"
for mode in dr tun; do
    "$dirigent" lab up --name "$lab-$mode" --mode $mode --servers 2 >/dev/null
done
"$dirigent" lab compare "$lab" "$lab-dr" "$lab-tun"
say "the same in IPv6: the three methods next to each other"
"$dirigent" lab compare "$lab" "$lab-dr" "$lab-tun" --family 6
printf '\ndemo: done in %s s. A lab of your own: make lab ARGS="up --servers 3"\n' "$((SECONDS - began))"
