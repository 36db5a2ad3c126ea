#!/usr/bin/env bash
# make bench-ipvs: instructions a packet of this director, on XDP and on tc, beside those of the kernel's IPVS, counted in the
# oracle's guest, whose clock counts instructions (docs/performance.md). It takes some minutes, one of them the emulated
# verifier's. Writes target/bench/ipvs.json. Fails if a goal is missed that docs/performance.md does not explain.
#
#   --write    writes the table of docs/performance.md
#   --profile  instead: which functions the director's instructions are of; into target/bench/ipvs-profile.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
oracle=${DIRIGENT_ORACLE:-../shared/oracle}
if [ ! -x "$oracle/run" ]; then
    skip_or_fail ci "beside IPVS: no ../shared/oracle beside this clone (or set DIRIGENT_ORACLE)"
    exit
fi
if ! command -v qemu-system-x86_64 >/dev/null; then
    skip_or_fail ci "beside IPVS: no qemu-system-x86_64 (apt-get install qemu-system-x86)"
    exit
fi
profile='' words=()
for word; do
    case $word in
    --profile) profile=profile ;;
    --write) words+=("$word") ;;
    *)
        echo "error: $word?" >&2
        echo "  remedy: make bench-ipvs ARGS=--write, ARGS=--profile or ARGS=\"--profile --write\"" >&2
        exit 2
        ;;
    esac
done
cargo build --quiet --release -p dirigent-testkit --bin bench
bench=${CARGO_TARGET_DIR:-target}/release/bench
job=$(mktemp -d)
helpers=()
ended() {
    part_ended
    [ ${#helpers[@]} = 0 ] || kill "${helpers[@]}" 2>/dev/null || true
    rm -rf "$job"
}
trap ended EXIT
# Debug information would double the guest's boot.
strip -o "$job/bench" "$bench"
cat >"$job/ipvs.sh" <<'GUEST'
cp /oracle/extra/bench /tmp/ && chmod +x /tmp/bench
exec python3 /oracle/extra/bench-ipvs.py "$@"
GUEST
empty_apt_cache "$job"
"$oracle/run" -b

# Single steps are traced by the emulator, whose monitor is two pipes then.
mkdir "$job/bin" "$job/out"
if [ -n "$profile" ]; then
    mkfifo "$job/monitor.in" "$job/monitor.out"
    printf '#!/bin/sh\nexec %s -monitor pipe:%s "$@"\n' "$(command -v qemu-system-x86_64)" "$job/monitor" >"$job/bin/qemu-system-x86_64"
    chmod +x "$job/bin/qemu-system-x86_64"
    cat "$job/monitor.out" >/dev/null &
    helpers+=("$!")
fi
traced() { # traced CASE: a second of what the CPU does, of which a step takes some microseconds
    printf '%s\n' "logfile $job/out/trace-${1// /_}" 'singlestep on' 'log exec,nochain' >"$job/monitor.in"
    sleep 1
    printf '%s\n' 'log none' 'singlestep off' >"$job/monitor.in"
}
watch() { # what the guest says: its console is a file of the run's scratch directory, which is made in $job
    local console line
    until console=$(compgen -G "$job/oracle-job.*/console"); do sleep 1; done
    tail --pid=$$ -n +1 -f "$console" | sed -un 's/\r$//; s/^bench: //p' | while read -r line; do
        echo "$line"
        case $line in trace\ *) traced "${line#trace }" ;; esac
    done
}
watch &
helpers+=("$!")
PATH=$job/bin:$PATH TMPDIR=$job "$oracle/run" -i -o "$job/out" -t 3600 -m 1536 -a "$job/bench" -a scripts/bench-ipvs.py "$job/ipvs.sh" \
    ${profile:+"$profile"} >"$job/log" 2>&1 || {
    cat "$job/log" >&2
    exit 1
}
if [ -n "$profile" ]; then
    "$bench" --ipvs-profile "$job/out" --docs docs/performance.md --json target/bench/ipvs-profile.json "${words[@]}"
else
    "$bench" --ipvs "$job/out/ipvs.json" --docs docs/performance.md --json target/bench/ipvs.json "${words[@]}"
fi
