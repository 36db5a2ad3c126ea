#!/usr/bin/env bash
# make bench: nanoseconds a packet on XDP against floors measured in the same run. Takes
# some minutes; `--only WORDS` measures some cases only.
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
exec cargo run --quiet --release -p dirigent-testkit --bin bench -- --json target/bench/latest.json "$@"
