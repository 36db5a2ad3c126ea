#!/usr/bin/env bash
# make stories: the documents that tell what commands print, told anew: each command is run in a lab, and its output written below
# it. `make test` fails while they differ from what would be written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make stories" "make stories"
scripts/setup.sh test
cargo build --quiet --release -p dirigent -p dirigent-testkit
built=${CARGO_TARGET_DIR:-target}/release
exec "$built/story" --dirigent "$built/dirigent" docs/why-replies-must-return.md
