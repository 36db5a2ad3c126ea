#!/usr/bin/env bash
# 10,000 TCP checks a second, of 1,000 addresses: which part of a core they cost the daemon, and how soon what they say is
# in force when one server fails, and when all do at once, and come back.
#
#   scripts/bench-health.sh [SECONDS] [JSON]      default: 10, target/bench/health.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make bench" "scripts/bench-health.sh"
seconds=${1:-10}
json=${2:-target/bench/health.json}
servers=1000 interval_ms=100
bench_lab health

"$dirigent" lab up --name "$lab" --servers 1 --no-daemon >/dev/null 2>&1
on() { "$dirigent" lab exec --name "$lab" "$@"; }
on server1 -- ip route add local 10.77.0.0/16 dev lo
on server1 -- sysctl -qw net.ipv4.tcp_max_syn_backlog=8192 net.core.somaxconn=8192
on director -- ip route add 10.77.0.0/16 via 10.0.0.2
awk -v servers="$servers" -v interval="$interval_ms" 'BEGIN {
    print "version = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.77:80\"\nvip = \"manage\""
    for (i = 0; i < servers; i++) {
        printf "[[service.server]]\naddress = \"10.77.%d.%d:8080\"\n", int(i / 250), i % 250 + 1
        printf "check = [{ type = \"tcp\", interval = \"%dms\", timeout = \"1s\", retry_interval = \"0ms\" }]\n", interval
    }
}' >"$work/checks.toml"
RUST_LOG=info,dirigent::daemon::director=debug on director -- "$dirigent" run --config "$work/checks.toml" >"$work/log" 2>&1 &
bench_daemon
tick=$(getconf CLK_TCK)
# user and system time of the daemon's threads, in seconds
cpu() { cat /proc/"$pid"/task/*/stat | sed 's/.*) //' | awk -v tick="$tick" '{sum += $12 + $13} END {printf "%.2f", sum / tick}'; }
threads() { find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l; }
# SYNs that the director's namespace has sent
opened() { on director -- awk '/^Tcp: [0-9]/ {print $6}' /proc/net/snmp; }

echo "measuring for $seconds s"
sleep 3
up=$("$dirigent" server list --json | grep -c '"state": "up"' || true)
a=$(opened) c=$(cpu) begun=$EPOCHREALTIME
sleep "$seconds"
b=$(opened) d=$(cpu) ended=$EPOCHREALTIME
count=$(threads)
# How soon it was in force, by the log from this line on: median and worst, in us.
late() {
    tail -n +"$1" "$work/log" | sed -n 's/.*is in force \([0-9]*\) us after.*/\1/p' | sort -n |
        awk '{all[NR] = $1} END {if (NR) print all[int((NR + 1) / 2)], all[NR]; else print "0 0"}'
}
# One after the other fails.
from=$(($(wc -l <"$work/log") + 1))
on server1 -- nft 'add table inet one; add chain inet one input { type filter hook input priority 0; }'
for k in $(seq 1 20); do
    on server1 -- nft "add rule inet one input ip daddr 10.77.0.$k tcp dport 8080 reject with tcp reset"
    sleep 0.3
done
one=$(late "$from")
on server1 -- nft delete table inet one
sleep 3
# All fail at once, and come back.
from=$(($(wc -l <"$work/log") + 1))
on server1 -- nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; add rule inet gone input tcp dport 8080 reject with tcp reset'
sleep 3
on server1 -- nft delete table inet gone
sleep 3
worst=$(late "$from")
mkdir -p "$(dirname "$json")"
awk -v a="$a" -v b="$b" -v c="$c" -v d="$d" -v t0="$begun" -v t1="$ended" -v up="$up" -v threads="$count" -v worst="$worst" -v one="$one" -v json="$json" 'BEGIN {
    time = t1 - t0; rate = (b - a) / time; cores = (d - c) / time
    split(worst, late, " ")
    split(one, single, " ")
    printf "%d servers up; %.0f TCP checks a second take %.2f of a core (%.1f us each), with %d threads in all\n", up, rate, cores, cores / rate * 1e6, threads
    printf "what they say of one server is in force after %.1f ms (median of 20), %.1f ms at most\n", single[1] / 1000, single[2] / 1000
    printf "what they say is in force after %.1f ms (median of batches), %.1f ms at most (1,000 servers at once)\n", late[1] / 1000, late[2] / 1000
    printf "{\"up\": %d, \"checks_per_second\": %.0f, \"cores\": %.3f, \"threads\": %d, \"in_force_median_us\": %d, \"in_force_worst_us\": %d, \"one_median_us\": %d, \"one_worst_us\": %d}\n", up, rate, cores, threads, late[1], late[2], single[1], single[2] >json
}'
