#!/usr/bin/env bash
# Records what the real kernel's sync master sends and what its backup makes of our datagrams,
# with the oracle that stands beside this clone (../shared/oracle, or set DIRIGENT_ORACLE).
#
#   crates/sync/recordings/record.sh [master|backup]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../../.."
oracle=${DIRIGENT_ORACLE:-../shared/oracle}
[ -x "$oracle/run" ] || { echo "no oracle: set DIRIGENT_ORACLE" >&2; exit 1; }
job=$(mktemp -d)
trap 'rm -rf "$job"' EXIT
for what in ${1:-master backup}; do
    extra=()
    if [ "$what" = backup ]; then
        cargo run --quiet -p dirigent-sync --example offers >"$job/offers.json"
        extra=(-a "$job/offers.json")
    fi
    nice "$oracle/run" -i -t 1800 -o "$job/out" "${extra[@]}" "$here/$what.py"
    for f in master when backup; do
        [ ! -f "$job/out/$f.json" ] || mv "$job/out/$f.json" "$here/"
    done
done
