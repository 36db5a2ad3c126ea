#!/usr/bin/env bash
# The datapath tests (verifier, attaching, taking over, running on frames) in the oldest
# kernel that Dirigent supports: Debian's 6.1, booted under emulation by the oracle that
# stands beside this clone. It has no tcx, and its verifier knows less than today's.
#
#   scripts/old-kernel.sh [ARGUMENT OF THE TEST PROGRAM]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

oracle=${DIRIGENT_ORACLE:-../shared/oracle}
if [ ! -x "$oracle/run" ]; then
    skip_or_fail ci "kernel 6.1: no ../shared/oracle beside this clone (or set DIRIGENT_ORACLE)"
    exit
fi
program=$(cargo test --quiet -p dirigent-datapath --test kernel --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
# Emulated, each load of the programs takes the verifier some seconds. What does not
# depend on the kernel's version is left to the machine's own.
if [ $# = 0 ]; then
    set -- --skip a_program_without_pins --skip a_start_that_fails --skip foreign_programs --skip maps_of_another_layout \
        --skip tables_hold_records --skip an_interface_that_goes --skip a_device_tells
fi
job=$(mktemp -d)
trap 'part_ended; rm -rf "$job"' EXIT
# The guest's disk is a tar file on a raw device: debug information would double its boot.
strip -o "$job/datapath-tests" "$program"
# Recordings of each method, in memory, on XDP and on tc of that kernel.
cargo build --quiet -p dirigent-testkit --bin golden
strip -o "$job/golden" target/debug/golden
mkdir "$job/xmit"
cp "$oracle"/golden/xmit/{xmit-nat-4,xmit-nat-6,nat-conntrack-4,ops-nat-4,schedule-icmp-4,toobig-nat-4,toobig-nat-6}.json \
    "$oracle"/golden/xmit/{xmit-dr-4,xmit-tun-6,tun-icmp-4,tunnel-gre-csum-6in4,tunnel-gue-csum-4in6}.json "$job/xmit"
cat >"$job/old-kernel.sh" <<GUEST
uname -r
cp "\$(find /oracle/extra -name datapath-tests)" /tmp/ && chmod +x /tmp/datapath-tests
RUST_BACKTRACE=0 DIRIGENT_TAKEOVERS=2 /tmp/datapath-tests --test-threads=1 ${*@Q} >\$OUT/tests.log 2>&1 </dev/null
status=\$?
cat \$OUT/tests.log
[ \$status = 0 ] || exit \$status
cp "\$(find /oracle/extra -name golden -type f)" /tmp/golden && chmod +x /tmp/golden
/tmp/golden "\$(dirname "\$(find /oracle/extra -name xmit-nat-4.json)")"
GUEST
empty_apt_cache "$job"
"$oracle/run" -o "$job/out" -t 1800 -m 1536 -a "$job/datapath-tests" -a "$job/golden" -a "$job/xmit" "$job/old-kernel.sh"
