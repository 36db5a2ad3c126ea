#!/usr/bin/env bash
# A saved table of 10,000 services with 10 servers each: how long a daemon takes to restore it and to reload it without a
# change, as multiples of what only reading the same file takes, and how much memory it has then.
#
#   scripts/bench-restore.sh [SERVICES] [JSON]      default: 10000, target/bench/restore.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make bench" "scripts/bench-restore.sh"
services=${1:-10000}
json=${2:-target/bench/restore.json}
bench_lab restore

awk -v services="$services" 'BEGIN {
    for (i = 0; i < services; i++) {
        vip = sprintf("198.18.%d.%d:80", i / 250, i % 250 + 1)
        print "-A -t " vip " -s wlc"
        for (k = 1; k <= 10; k++) print "-a -t " vip " -r 10.1." int(i / 250) "." k + 1 ":8080 -m -w " k
    }
}' >"$work/saved"
"$dirigent" lab up --name "$lab" --servers 1 --no-daemon >/dev/null 2>&1
printf 'version = 1\n' >"$work/empty.toml"
"$dirigent" lab exec --name "$lab" director -- "$dirigent" run --config "$work/empty.toml" >"$work/log" 2>&1 &
bench_daemon

seconds() { # seconds COMMAND...: how long it takes
    local begun=$EPOCHREALTIME
    "$@" >/dev/null || { echo "error: $*" >&2; return 1; }
    awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f", b - a }'
}
restore() { "$dirigent" ipvsadm -R <"$work/saved"; }
restored=$(seconds restore)
resident=$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")
shared=$(awk '/^RssShmem|^RssFile/ {sum += $2} END {print sum}' "/proc/$pid/status")
"$dirigent" config show >"$work/all.toml"
read_only=$(seconds "$dirigent" check --config "$work/all.toml")
# What is in force becomes what the file says; then a reload changes nothing.
cp "$work/all.toml" "$work/empty.toml"
"$dirigent" reload >/dev/null
reloaded=$(seconds "$dirigent" reload)
listed=$(seconds "$dirigent" ipvsadm -L -n)
there=$("$dirigent" ipvsadm -S -n | wc -l)
[ "$there" = "$((services * 11))" ] || { echo "error: $there of $((services * 11)) rules are there" >&2; exit 1; }

mkdir -p "$(dirname "$json")"
awk -v services="$services" -v restored="$restored" -v reloaded="$reloaded" -v listed="$listed" -v floor="$read_only" \
    -v resident="$resident" -v shared="$shared" -v json="$json" 'BEGIN {
    printf "%d services with 10 servers each\n", services
    printf "  %-34s %8.3f s\n", "floor: reading the file (check)", floor
    printf "  %-34s %8.3f s  %5.1f x floor   goal: under 5 s with 10,000\n", "restore (ipvsadm -R)", restored, restored / floor
    printf "  %-34s %8.3f s  %5.1f x floor   goal: under 1 s with 10,000\n", "reload without a change", reloaded, reloaded / floor
    printf "  %-34s %8.3f s  %5.1f x floor\n", "list (ipvsadm -L -n)", listed, listed / floor
    printf "  %-34s %8.0f MB, of which the kernel shares %.0f MB (maps)\n", "memory of the daemon", resident / 1024, shared / 1024
    printf "{\"services\": %d, \"floor_s\": %s, \"restore_s\": %s, \"reload_s\": %s, \"list_s\": %s, \"resident_kb\": %d, \"shared_kb\": %d}\n", \
        services, floor, restored, reloaded, listed, resident, shared >json
}'
