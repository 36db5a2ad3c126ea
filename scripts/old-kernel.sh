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
# Emulated, each load of the programs takes the verifier a minute, and a test has up to three. What does not depend
# on the kernel's version is left to the machine's own; what packets fare is the recordings' matter.
if [ $# = 0 ]; then
    for test in a_program_without_pins a_start_that_fails foreign_programs maps_of_another_layout tables_hold_records \
        an_interface_that_goes a_device_tells auto_on_a_virtual_device programs_run_on_frames marks_and_prefixes \
        marked_packets clients_are_judged signals_do_not_end without_the_kernels_types taking_over_again lives_of_packets \
        stages_are_loaded; do
        set -- "$@" --skip "$test"
    done
fi
mapfile -t tests < <("$program" --list "$@" | sed -n 's/: test$//p')
[ ${#tests[@]} != 0 ] || { echo "error: no such test" >&2; exit 1; }
job=$(mktemp -d)
trap 'part_ended; rm -rf "$job"' EXIT
# The guest's disk is a tar file on a raw device: debug information would double its boot.
strip -o "$job/datapath-tests" "$program"
# Recordings of each method, in memory, on XDP and on tc of that kernel.
cargo build --quiet -p dirigent-testkit --bin golden
strip -o "$job/golden" target/debug/golden
mkdir "$job/xmit"
cp "$oracle"/golden/xmit/{xmit-nat-4,xmit-nat-6,ops-nat-4,toobig-nat-4,xmit-dr-4,xmit-tun-6,tunnel-gue-csum-4in6}.json "$job/xmit"
cat >"$job/old-kernel.sh" <<'GUEST'
# NAME...: tests, one by one, and "recordings".
uname -r
for name in datapath-tests golden; do
    cp "/oracle/extra/$name" /tmp/ && chmod +x "/tmp/$name"
done
export RUST_BACKTRACE=0
failed=0
for name; do
    begun=$SECONDS said=ok
    case $name in
        recordings) /tmp/golden /oracle/extra/xmit ;;
        *) /tmp/datapath-tests --exact "$name" >"$OUT/tests.log" 2>&1 </dev/null || { cat "$OUT/tests.log" && false; } ;;
    esac || said=FAILED failed=1
    echo "kernel 6.1: $name ... $said ($((SECONDS - begun)) s)"
done
exit $failed
GUEST
empty_apt_cache "$job"
"$oracle/run" -b
guest() { # guest LOG NAME...
    "$oracle/run" -o "$job/$1" -t 1800 -m 1536 -a "$job/datapath-tests" -a "$job/golden" -a "$job/xmit" "$job/old-kernel.sh" "${@:2}" >"$job/$1.log" 2>&1
}
# A guest has one CPU: two of them, with every other test each.
first=() second=()
for n in "${!tests[@]}"; do
    if [ $((n % 2)) = 0 ]; then first+=("${tests[n]}"); else second+=("${tests[n]}"); fi
done
status=0
guest first "${first[@]}" recordings &
[ ${#second[@]} = 0 ] || guest second "${second[@]}" || status=$?
wait $! || status=$?
cat "$job"/*.log
exit "$status"
