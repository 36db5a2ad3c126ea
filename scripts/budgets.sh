#!/usr/bin/env bash
# make budgets REASON="...": saves anew what each BPF program takes (bpf/budgets.txt), and why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
reason=${1:-}
if [ -z "${reason//[[:space:]]/}" ]; then
    echo "error: budgets are saved for a reason" >&2
    echo '  remedy: make budgets REASON="what the programs do now that they did not before"' >&2
    exit 2
fi
need_root "make budgets" 'make budgets REASON="..."'
scripts/setup.sh
DIRIGENT_BUDGETS="$(date +%F) ${reason//$'\n'/ }" cargo test --quiet -p dirigent-datapath --test kernel -- --nocapture the_verifier_takes_every_program |
    grep '^anew: ' || echo "nothing takes over 5 % more than was saved"
git --no-pager diff --stat -- bpf/budgets.txt
