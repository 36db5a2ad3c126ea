#!/usr/bin/env bash
# The pure crates under Miri, which sees undefined behaviour that tests survive.
# Takes a nightly with the miri and rust-src components; without them it says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

if ! has_nightly; then
    skip_or_fail ci "Miri: no nightly Rust here (rustup toolchain install nightly --component miri,rust-src)"
    exit
fi
sysroot=$(rustc +nightly --print sysroot)
missing=()
[ -x "$sysroot/bin/miri" ] && [ -x "$sysroot/bin/cargo-miri" ] || missing+=(miri)
[ -e "$sysroot/lib/rustlib/src/rust/library/core/src/lib.rs" ] || missing+=(rust-src)
if [ ${#missing[@]} != 0 ]; then
    skip_or_fail never "Miri: the nightly here lacks the component(s) ${missing[*]} (rustup +nightly component add ${missing[*]})"
    exit
fi
MIRIFLAGS="-Zmiri-symbolic-alignment-check -Zmiri-tree-borrows" \
    cargo +nightly miri test -p dirigent-wire -p dirigent-director
