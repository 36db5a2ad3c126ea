#!/usr/bin/env bash
# Instructions a packet, counted: cases of `make bench` in the oracle's guest, whose clock counts instructions. What tracing
# costs while it is off stands beside each (", untraced": as if it could not be turned on), with its goal of 2 %.
#
#   scripts/bench-instructions.sh [WORDS]      cases whose name holds these words; default: ", 1"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
oracle=${DIRIGENT_ORACLE:-../shared/oracle}
if [ ! -x "$oracle/run" ]; then
    skip_or_fail ci "instructions: no ../shared/oracle beside this clone (or set DIRIGENT_ORACLE)"
    exit
fi
cargo build --quiet --release -p dirigent-testkit --bin bench
job=$(mktemp -d)
trap 'part_ended; rm -rf "$job"' EXIT
strip -o "$job/bench" target/release/bench
cat >"$job/instructions.sh" <<'GUEST'
cp /oracle/extra/bench /tmp/ && chmod +x /tmp/bench
mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true
/tmp/bench --instructions --cpu 0 --rounds 3 --packets 200 --connections 2 --only "$1"
GUEST
empty_apt_cache "$job"
"$oracle/run" -b
"$oracle/run" -i -o "$job/out" -t 3600 -m 1536 -a "$job/bench" "$job/instructions.sh" "${1-, 1}"
