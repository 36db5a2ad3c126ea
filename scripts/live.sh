#!/usr/bin/env bash
# make live: scenarios at random on a real kernel with IPVS, booted under emulation by the
# oracle that stands beside this clone, and then the same packets and commands here, in
# memory, on XDP and on tc. What they do must be the same, step by step.
#
#   scripts/live.sh SEED SCENARIOS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make live" "make live"

oracle=${DIRIGENT_ORACLE:-../shared/oracle}
if [ ! -x "$oracle/run" ]; then
    skip_or_fail ci "live comparison with IPVS: no ../shared/oracle beside this clone (or set DIRIGENT_ORACLE)"
    exit
fi
if ! command -v qemu-system-x86_64 >/dev/null; then
    skip_or_fail ci "live comparison with IPVS: no qemu-system-x86_64 (apt-get install qemu-system-x86)"
    exit
fi
seed=$1 count=$2
recordings=$PWD/target/live/$seed
job=$(mktemp -d)
trap 'part_ended; rm -rf "$job"' EXIT
rm -rf "$recordings"
mkdir -p "$recordings"
echo "seed $seed, $count scenarios: make live SEED=$seed SCENARIOS=$count does the same again"
empty_apt_cache "$job"
"$oracle/run" -i -t 1800 -o "$recordings" scripts/live.py "$seed" "$count"
rm -f "$recordings"/{log,dmesg}.txt
cargo build --quiet -p dirigent-testkit --bin golden
target/debug/golden "$recordings" || {
    echo "the recordings of IPVS are in $recordings; target/debug/golden --only memory FILE shows the difference" >&2
    exit 1
}
rm -rf "$recordings"
