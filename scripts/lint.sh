#!/usr/bin/env bash
# make lint: formatting, clippy and shellcheck, without changing a file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

versions_agree() {
    # shellcheck source=scripts/versions.env
    . scripts/versions.env
    local locked
    locked=$(sed -n '/^name = "aya-ebpf"$/{n;s/^version = "\(.*\)"$/\1/p}' bpf/Cargo.lock)
    if [ "$locked" != "$AYA_EBPF" ]; then
        echo "bpf/Cargo.lock has aya-ebpf $locked, scripts/versions.env says $AYA_EBPF" >&2
        return 1
    fi
}

shell_scripts() {
    if ! command -v shellcheck >/dev/null; then
        skip_or_fail never "shellcheck is not installed (apt-get install shellcheck)"
        return
    fi
    shellcheck -x .ci/run scripts/*.sh
}

no_local_paths() {
    # A path of one machine in a tracked file works on one machine.
    local found
    found=$(git grep -nE '(^|[^A-Za-z0-9_.-])/(work|home|root)/' -- . ':!scripts/lint.sh' || true)
    [ -z "$found" ] || { echo "paths of one machine:" >&2; echo "$found" >&2; return 1; }
}

part "set-up" scripts/setup.sh
part "cargo fmt" cargo fmt --all --check
part "cargo fmt (bpf)" cargo fmt --manifest-path bpf/Cargo.toml --check
part "clippy" cargo clippy --workspace --all-targets -- -D warnings
# Outside the workspace, and some include its sources: a change there can break them unseen.
part "check (fuzz)" cargo check --quiet --manifest-path fuzz/Cargo.toml --bins
part "cargo fmt (fuzz)" cargo fmt --manifest-path fuzz/Cargo.toml --check
part "versions" versions_agree
part "paths" no_local_paths
part "shellcheck" shell_scripts
echo "== make lint: $SECONDS s in all"
