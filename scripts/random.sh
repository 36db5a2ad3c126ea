#!/usr/bin/env bash
# make random: random tables, and many random packets through each, in memory, on XDP and on
# tc. Every packet must come to the same bytes and the same end. Says how far it is.
#
#   scripts/random.sh FRAMES [FIRST TABLE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make random" "make random"

export DIRIGENT_RANDOM_FRAMES=$1 DIRIGENT_RANDOM_SEED=${2:-1}
# With optimization: half of the time is the generator's and the executor's in memory.
cargo test --quiet --release -p dirigent-testkit --test differential -- --exact memory_xdp_and_tc_agree_on_many_frames --nocapture
