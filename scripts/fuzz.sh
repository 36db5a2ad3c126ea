#!/usr/bin/env bash
# Fuzz every target in fuzz/ for the given number of seconds each (default 60),
# starting from its corpus in fuzz/corpus. Takes a nightly Rust and cargo-fuzz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
seconds=${1:-60}

if ! has_nightly; then
    skip_or_fail ci "fuzzing: no nightly Rust here (rustup toolchain install nightly)"
    exit
fi
if [ ! -e fuzz/Cargo.toml ]; then
    skip_or_fail never "fuzzing: there are no fuzz targets yet"
    exit
fi
scripts/setup.sh test
export PATH="$PATH:${XDG_CACHE_HOME:-$HOME/.cache}/dirigent/tools/bin"
for target in $(cargo +nightly fuzz list); do
    echo "-- fuzz target $target, $seconds s"
    work=$(mktemp -d)
    # New finds go to a scratch directory: a test run must not change the tree.
    corpus=()
    [ ! -d "fuzz/corpus/$target" ] || corpus=("fuzz/corpus/$target")
    if ! cargo +nightly fuzz run "$target" "$work" "${corpus[@]}" -- -max_total_time="$seconds" -print_final_stats=1 \
        >"$work.log" 2>&1; then
        tail -n 60 "$work.log" >&2
        rm -rf "$work" "$work.log"
        exit 1
    fi
    grep -E 'stat::number_of_executed_units|stat::new_units_added' "$work.log" || tail -n 3 "$work.log"
    rm -rf "$work" "$work.log"
done
