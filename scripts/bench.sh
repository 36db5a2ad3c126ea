#!/usr/bin/env bash
# make bench: nanoseconds a packet on XDP against floors measured in the same run and against the last run's ratios, then
# forwarding while the configuration changes, one and ten million live connections, a large table that is restored and
# reloaded, health checks, and instructions counted in the oracle's guest, of its IPVS too. Takes some minutes.
#
#   --only WORDS   only cases whose name holds these words (target/bench/some.json)
#   --against REV  another revision, measured in the same rounds (target/bench/against.json); --only and --rounds as else
#   --changes      only forwarding while the configuration changes
#   --live N,N     only so many live connections
#   --write        writes the tables of docs/performance.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

words=() against='' write=()
while [ $# != 0 ]; do
    case $1 in
    --against)
        against=${2:-}
        [ -n "$against" ] || { echo "error: --against wants a revision" >&2; exit 2; }
        shift
        ;;
    --write) write=(--write) ;;
    *) words+=("$1") ;;
    esac
    shift
done
if [ -n "$against" ]; then
    # Before all that takes time.
    commit=$(git rev-parse --verify --quiet "$against^{commit}") || {
        echo "error: --against $against: there is no such revision here" >&2
        echo "  remedy: a commit, a tag or a branch that \`git log\` knows; perhaps \`git fetch\` first" >&2
        exit 2
    }
fi
need_root "make bench" "make bench"
scripts/setup.sh
built=${CARGO_TARGET_DIR:-target}/release
cargo build --quiet --release -p dirigent-testkit --bin bench
bench() { "$built/bench" "$@"; }

# Builds another revision's bench, unless it is there: its path is $other. Its files come from git's objects into target/, so
# that no worktree is left to git when this is killed; what an earlier run has left there is removed.
build_other() {
    local place=target/against
    other=$place/bench-$commit
    [ -x "$other" ] && return
    echo "building $against ($(git log -1 --format='%h %s' "$commit")): some minutes"
    rm -rf "$place/source"
    mkdir -p "$place/source"
    trap 'part_ended; rm -rf target/against/source' EXIT
    # With today's times: cargo must not take what it built of another revision for this one.
    git archive "$commit" | tar -x -m -C "$place/source"
    (
        cd "$place/source"
        CARGO_TARGET_DIR=$OLDPWD/$place/build cargo build --quiet --release -p dirigent-testkit --bin bench
    ) || {
        echo "error: --against $against: its bench does not build here" >&2
        exit 1
    }
    # Whole, or not at all.
    cp "$place/build/release/bench" "$other.new"
    mv "$other.new" "$other"
    rm -rf "$place/source"
}

if [ -n "$against" ]; then
    build_other
    bench --against "$other" --json target/bench/against.json "${words[@]}"
    exit
fi

page=${DIRIGENT_PERFORMANCE:-../shared/reference/performance.md}
cases=(--before target/bench/latest.json)
if [ -f "$page" ]; then
    cases+=(--page "$page")
else
    echo "SKIPPED: whether each case of $page is measured: it is not beside this clone"
fi
docs=(--docs docs/performance.md "${write[@]}")
case " ${words[*]} " in
*" --live "*) bench --json target/bench/live.json "${docs[@]}" "${words[@]}" ;;
*" --changes "*) bench --json target/bench/changes.json "${docs[@]}" "${words[@]}" ;;
*" --only "*) bench --json target/bench/some.json "${cases[@]}" "${docs[@]}" "${words[@]}" ;;
*)
    failed=0
    bench --json target/bench/latest.json "${cases[@]}" "${docs[@]}" "${words[@]}" || failed=$?
    bench --json target/bench/changes.json --changes "${docs[@]}"
    bench --json target/bench/live.json --live 1000000,10000000 "${docs[@]}"
    scripts/bench-restore.sh
    scripts/bench-health.sh
    scripts/bench-instructions.sh "${write[@]}"
    scripts/bench-ipvs.sh "${write[@]}"
    exit "$failed"
    ;;
esac
