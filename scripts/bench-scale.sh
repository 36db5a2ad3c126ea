#!/usr/bin/env bash
# make bench-scale: a daemon with 10,000 services of 100 servers each (start, reloads, its successor's start, memory), what two CPUs
# do at once, and what follows for larger machines. Writes the tables of docs/capacity.md, and target/bench/scale.json. With arguments
# (`--services 200 --servers 20`, `--only cores`, `--help`) a sample, which writes no document.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make bench-scale" "make bench-scale"
scripts/setup.sh
cargo build --quiet --release -p dirigent -p dirigent-testkit
built=${CARGO_TARGET_DIR:-target}/release
if [ $# -gt 0 ]; then
    exec "$built/scale" --dirigent "$built/dirigent" --json target/bench/scale.json "$@"
fi
exec "$built/scale" --dirigent "$built/dirigent" --json target/bench/scale.json --docs docs/capacity.md
