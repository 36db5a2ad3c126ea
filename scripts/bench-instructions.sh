#!/usr/bin/env bash
# Instructions a packet, counted in the oracle's guest, whose clock counts them: of known connections, and what it costs that
# packets can be traced, while they are not (2 % at most, or it fails). Loading takes the emulated verifier minutes. With --write
# the table of docs/performance.md is written.
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
bench=${CARGO_TARGET_DIR:-target}/release/bench
job=$(mktemp -d)
trap 'part_ended; rm -rf "$job"' EXIT
strip -o "$job/bench" "$bench"
cat >"$job/instructions.sh" <<'GUEST'
cp /oracle/extra/bench /tmp/ && chmod +x /tmp/bench
/tmp/bench --instructions --json "$OUT/instructions.json" >/dev/null
GUEST
empty_apt_cache "$job"
"$oracle/run" -b
"$oracle/run" -i -o "$job/out" -t 3600 -m 1536 -a "$job/bench" "$job/instructions.sh"
mkdir -p target/bench
cp "$job/out/instructions.json" target/bench/instructions.json
"$bench" --counted target/bench/instructions.json --docs docs/performance.md "$@"
