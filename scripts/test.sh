#!/usr/bin/env bash
# make test: set up, build, test everything. The runner's summary comes last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make test" "make test"

# The recordings of the real kernel stand beside the clone. Not everyone has them.
recordings() {
    if [ -n "${DIRIGENT_GOLDEN:-}" ]; then
        [ -d "$DIRIGENT_GOLDEN" ] || { echo "error: DIRIGENT_GOLDEN=$DIRIGENT_GOLDEN is no directory" >&2; return 1; }
    elif [ -d ../shared/oracle/golden ]; then
        DIRIGENT_GOLDEN=$(cd ../shared/oracle/golden && pwd)
        export DIRIGENT_GOLDEN
    else
        skip_or_fail ci "tests on recordings: no ../shared/oracle/golden beside this clone (or set DIRIGENT_GOLDEN)"
        return
    fi
    echo "recordings: $DIRIGENT_GOLDEN"
}

# Bytes and summary of both runners are what CI reads, so each runs last and unfiltered.
run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        # nextest runs no documentation tests.
        cargo test --quiet --workspace --doc
        # Most of the time most of them wait: for clocks, for timeouts, for others.
        cargo nextest run --workspace --no-fail-fast --test-threads "$((2 * $(nproc)))" "$@"
    else
        cargo test --workspace --no-fail-fast "$@"
    fi
}

# Of the build that is there: what make deb ships is the same in release.
package() { scripts/deb-test.sh "$(scripts/deb.sh target/debug/dirigent)"; }

part "set-up" scripts/setup.sh test
part "recordings" recordings
part "build" cargo build --workspace --all-targets
part "miri" scripts/miri.sh
part "fuzz, a short run" scripts/fuzz.sh 8
part "kernel 6.1" scripts/old-kernel.sh
part "the Debian package" package
# Always the same scenarios: others are for `make live`, whose findings nobody's commit is to blame for.
part "the real kernel beside ours" scripts/live.sh 1 8
part "tests" run_tests "$@"
echo "== make test: $SECONDS s in all"
