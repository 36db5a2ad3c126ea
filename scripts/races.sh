#!/usr/bin/env bash
# make races: connections that come and go on one CPU while another forwards, so many packets
# on XDP and as many on tc, half on each CPU.
#
#   scripts/races.sh PACKETS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "make races" "make races"

export DIRIGENT_RACE_PACKETS=$(($1 / 2))
cargo test --quiet --release -p dirigent-testkit --test races -- connections_come_and_go --nocapture --test-threads=1
