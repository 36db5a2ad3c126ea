#!/usr/bin/env bash
# make shots: the pictures below docs/, drawn from programs at work in a lab with traffic.
#   docs/top.svg    dirigent top on a terminal of 100 columns and 30 rows
#   docs/page-light.png, page-dark.png, page-phone.png    the web page in Chromium
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
page=127.0.0.1:8090 driver=127.0.0.1:9515 session=

# shellcheck disable=SC2329 # called by the trap
clean() {
    local status=$?
    kill "${traffic[@]}" 2>/dev/null || true
    [ -z "$session" ] || browser DELETE "" >/dev/null || true
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

[director.page]
listen = "$page"

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

on_director() { "$dirigent" lab exec --name "$lab" director -- "$@"; }

# A command of WebDriver: METHOD PATH BODY. What it answers.
browser() {
    on_director curl -sS --fail-with-body --max-time 60 -X "$1" -H 'content-type: application/json' \
        "http://$driver/session${session:+/$session}$2" ${3:+--data-binary "$3"}
}
devtools() { browser POST /goog/cdp/execute "{\"cmd\": \"$1\", \"params\": $2}" >/dev/null; }
script() { browser POST /execute/sync "{\"script\": \"$1\", \"args\": []}"; }

# shot_page NAME WIDTH HEIGHT light|dark
shot_page() {
    devtools Emulation.setDeviceMetricsOverride "{\"width\": $2, \"height\": $3, \"deviceScaleFactor\": 1, \"mobile\": false}"
    devtools Emulation.setEmulatedMedia "{\"features\": [{\"name\": \"prefers-color-scheme\", \"value\": \"$4\"}]}"
    script "window.scrollTo(0, 0)" >/dev/null
    sleep 3 # it has looked again
    browser GET /screenshot | sed -E 's/.*"value": *"([^"]*)".*/\1/' | base64 -d >"docs/page-$1.png"
    echo "shots: docs/page-$1.png"
}

shot_pages() {
    mkdir "$work/profile"
    on_director chromedriver "--port=${driver#*:}" --log-level=SEVERE </dev/null >/dev/null 2>&1 &
    traffic+=($!)
    local arguments capabilities
    arguments='"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"'
    capabilities="{\"capabilities\": {\"alwaysMatch\": {\"goog:chromeOptions\": {\"binary\": \"$(command -v chromium)\",
        \"args\": [$arguments, \"--user-data-dir=$work/profile\"]}}}}"
    for _ in $(seq 100); do
        on_director curl -sS --max-time 2 "http://$driver/status" >/dev/null 2>&1 && break
        sleep 0.1
    done
    session=$(browser POST "" "$capabilities" | sed -E 's/.*"sessionId": *"([^"]*)".*/\1/')
    browser POST /url "{\"url\": \"http://$page/\"}" >/dev/null
    # A minute of traffic is a line that one can see.
    sleep 60
    shot_page light 960 1030 light
    shot_page dark 960 1030 dark
    shot_page phone 360 1300 light
    browser DELETE "" >/dev/null
    session=
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
shot_pages
