#!/usr/bin/env bash
# make golden DIR=...: run a directory of recordings, print each mismatch, and count.
set -euo pipefail
dir=${1:-}
if [ -z "$dir" ] || [ ! -d "$dir" ]; then
    echo "usage: make golden DIR=directory-of-recordings${dir:+ ($dir is none)}" >&2
    exit 2
fi
dir=$(cd "$dir" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make golden" "make golden DIR=$dir"
scripts/setup.sh
exec cargo run --quiet --release -p dirigent-testkit --bin golden -- "$dir"
