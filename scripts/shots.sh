#!/usr/bin/env bash
# make shots: the pictures below docs/, drawn from programs at work in a lab with traffic.
#   docs/top.svg    dirigent top on a terminal of 100 columns and 30 rows
# Their sizes are always the same; what they show are the numbers of the day. Leaves nothing behind but them.
#   scripts/shots.sh [DIRECTORY]   with programs that are built already, in that directory
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make shots" "make shots"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" LC_ALL=C.UTF-8

lab=shots
work=$(mktemp -d)
traffic=()

# shellcheck disable=SC2329 # called by the trap
clean() {
    local status=$?
    kill "${traffic[@]}" 2>/dev/null || true
    terminal kill-server 2>/dev/null || true
    "$dirigent" lab down --name "$lab" >/dev/null 2>&1 || status=1
    rm -rf "$work"
    [ "$status" = 0 ] || echo "shots: FAILED" >&2
    exit "$status"
}

# A terminal of our own, which nobody has configured.
terminal() { tmux -u -L "$lab" "$@"; }

# In the background, until all is over.
on_client() {
    "$dirigent" lab exec --name "$lab" client -- "$@" </dev/null >/dev/null 2>&1 &
    traffic+=($!)
}

# The lab of the demo, with a server that fails its checks and one that is drained.
build_lab() {
    cat examples/dirigent.toml - >"$work/dirigent.toml" <<EOF

[[service]]
protocol = "tcp"
address = "192.0.2.10:8443"
scheduler = "lc"
vip = "manage"

[[service.server]]
address = "10.0.0.2:8080"
[[service.server.check]]
type = "tcp"
interval = "1s"

[[service.server]]
address = "10.0.0.3:4433"     # nobody listens there
[[service.server.check]]
type = "tcp"
interval = "1s"

[[service]]
protocol = "udp"
address = "192.0.2.10:7"
scheduler = "rr"
vip = "manage"

[[service.server]]
address = "10.0.0.2:7"

[[service.server]]
address = "10.0.0.3:7"
EOF
    "$dirigent" lab up --name "$lab" --servers 3 --config "$work/dirigent.toml" >/dev/null
}

make_traffic() {
    local url
    for url in http://192.0.2.10/ 'http://[2001:db8::10]/' http://192.0.2.10:8443/; do
        on_client sh -c "while :; do curl -s -g -o /dev/null --max-time 2 '$url' || true; sleep 0.0$((RANDOM % 5 + 2)); done"
    done
    on_client sh -c 'while :; do echo hello | socat -t0.1 - UDP4:192.0.2.10:7; sleep 0.1; done'
    # Connections that stay: their clients take what comes slowly.
    dd if=/dev/zero of="/run/dirigent/lab/$lab/www/large" bs=1M count=64 status=none
    for _ in 1 2 3 4 5; do on_client curl -s --limit-rate 200k -o /dev/null http://192.0.2.10/large; done
}

# Waits until the terminal shows a text.
until_shown() {
    for _ in $(seq 100); do
        terminal capture-pane -p | grep -qF -- "$1" && return
        sleep 0.1
    done
    terminal capture-pane -p >&2
    echo "error: the terminal does not show '$1'" >&2
    return 1
}

shot_top() {
    local columns=100 rows=30
    terminal -f /dev/null new-session -d -x $columns -y $rows env TERM=screen-256color "$dirigent" --instance "$lab" top --interval 1s
    until_shown "services  (4)"
    "$dirigent" --instance "$lab" server drain 192.0.2.10:80 10.0.0.4 --no-wait >/dev/null
    until_shown "1/2"
    sleep 4 # rates of a whole second or more
    terminal send-keys s s s s End Up Up
    until_shown "by CONN/S"
    sleep 1
    terminal capture-pane -ep | "$shot" $columns $rows docs/top.svg \
        "dirigent top: four services with their servers, connections and rates"
    terminal kill-server
    echo "shots: docs/top.svg"
}

if [ $# = 0 ]; then
    scripts/setup.sh test
    echo "shots: building (the first time takes minutes)"
    cargo build --quiet --release -p dirigent -p dirigent-testkit --bin dirigent --bin shot
fi
programs=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release}")
dirigent=$programs/dirigent shot=$programs/shot
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Of a run that was killed.
"$dirigent" lab down --name "$lab" >/dev/null
build_lab
make_traffic
shot_top
