#!/usr/bin/env bash
# make bench-peers: ours (XDP and tc; NAT, direct routing, tunnel) beside nftables, HAProxy in TCP mode, nginx's stream module and
# plain routing, in namespaces: throughput, requests, times to answer, new connections, datagrams, CPU time. Into
# target/bench/peers.json, and the tables and pictures of README.md and docs/peers.md. A run takes a quarter of an hour;
# `--quick` is one round, `--only "requests xdp"` a part (target/bench/peers-some.json, no documents); `--help` has the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make bench-peers" "make bench-peers"
scripts/setup.sh peers
cargo build --quiet --release -p dirigent -p dirigent-testkit
built=${CARGO_TARGET_DIR:-target}/release
json=target/bench/peers.json
case " $* " in *" --quick "* | *" --only "*) json=target/bench/peers-some.json ;; esac
# Also after Ctrl-C no lab is left.
trap '"$built/peers" --dirigent "$built/dirigent" --clean' EXIT
"$built/peers" --dirigent "$built/dirigent" --json "$json" --into . "$@"
