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
scripts/setup.sh test
export PATH="$PATH:${XDG_CACHE_HOME:-$HOME/.cache}/dirigent/tools/bin"
if ! command -v cargo-fuzz >/dev/null; then
    skip_or_fail ci "fuzzing: no cargo-fuzz here (cargo install cargo-fuzz)"
    exit
fi
# Not every distribution of a nightly has the runtime of the address sanitizer.
sanitizer=address
compgen -G "$(rustc +nightly --print sysroot)/lib/rustlib/*/lib/librustc-*_rt.asan.a" >/dev/null || sanitizer=none
echo "sanitizer: $sanitizer"
# Of a few seconds' run the build is the most.
[ "$seconds" -ge 60 ] || export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
cargo +nightly fuzz build --sanitizer "$sanitizer"
# One target; what it says comes at its end, in one piece, since others run beside it.
fuzz_one() {
    local target=$1 work corpus=()
    work=$(mktemp -d)
    # New finds go to a scratch directory: a test run must not change the tree.
    [ ! -d "fuzz/corpus/$target" ] || corpus=("fuzz/corpus/$target")
    if ! cargo +nightly fuzz run --sanitizer "$sanitizer" "$target" "$work" "${corpus[@]}" -- \
        -max_total_time="$seconds" -print_final_stats=1 >"$work.log" 2>&1; then
        printf -- '-- fuzz target %s fails\n%s\n' "$target" "$(tail -n 60 "$work.log")" >&2
        rm -rf "$work" "$work.log"
        return 1
    fi
    printf -- '-- fuzz target %s, %s s\n%s\n' "$target" "$seconds" \
        "$(grep -E 'stat::number_of_executed_units|stat::new_units_added' "$work.log" || tail -n 3 "$work.log")"
    rm -rf "$work" "$work.log"
}
export -f fuzz_one
export sanitizer seconds
cargo +nightly fuzz list | xargs -P "$(nproc)" -I{} bash -c 'set -euo pipefail; fuzz_one "$1"' _ {}
