#!/usr/bin/env bash
# make bench-failover: what the end, a hang, a split and other misfortunes of a master cost clients: connections, requests and
# time, for each method and family, and beside it those of keepalived with a plain address. Into target/bench/failover.json.
# `--fast`: how long clients wait with adverts every 10 ms, 20 times, into target/bench/failover-fast.json; `--only kill` is one
# scenario; `--help` has the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make bench-failover" "make bench-failover"
scripts/setup.sh test
cargo build --quiet --release -p dirigent -p dirigent-testkit
built=${CARGO_TARGET_DIR:-target}/release
json=target/bench/failover.json
case " $* " in *" --fast "*) json=target/bench/failover-fast.json ;; esac
exec "$built/failover" --dirigent "$built/dirigent" --json "$json" "$@"
