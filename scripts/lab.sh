#!/usr/bin/env bash
# make lab ARGS=...: `dirigent lab ...` from the tree, built and set up first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make lab" "make lab"
scripts/setup.sh test
exec cargo run --quiet --release -p dirigent -- lab "$@"
