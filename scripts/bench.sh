#!/usr/bin/env bash
# make bench: nanoseconds a packet on XDP against floors measured in the same run, then ten
# million live connections, then a large table that is restored and reloaded, health checks, and instructions counted in
# the oracle's guest, of its IPVS too. Takes some minutes; `--only WORDS` measures some cases only, and
# `--live N` only N live connections.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make bench" "make bench"
scripts/setup.sh
page=${DIRIGENT_PERFORMANCE:-../shared/reference/performance.md}
if [ -f "$page" ]; then
    set -- --page "$page" "$@"
else
    echo "SKIPPED: whether each case of $page is measured: it is not beside this clone"
fi
bench() {
    cargo run --quiet --release -p dirigent-testkit --bin bench -- "$@"
}
case " $* " in
*" --live "*) bench --json target/bench/live.json "$@" ;;
*" --only "*) bench --json target/bench/latest.json "$@" ;;
*)
    failed=0
    bench --json target/bench/latest.json "$@" || failed=$?
    bench --json target/bench/live.json --live 10000000
    scripts/bench-restore.sh
    scripts/bench-health.sh
    scripts/bench-instructions.sh
    scripts/bench-ipvs.sh
    exit "$failed"
    ;;
esac
