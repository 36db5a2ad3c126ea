#!/usr/bin/env bash
# Provides what the build needs beyond rustup's stable Rust.
#
#   scripts/setup.sh         the compiler and linker of the BPF side      (make setup)
#   scripts/setup.sh test    and the programs that only tests and demo run (make test, make demo)
#   scripts/setup.sh peers   and those that are measured beside ours       (make bench-peers)
#
# Says beforehand what it installs and why; starts no service; changes nothing when
# nothing is missing. What it builds is kept in ${XDG_CACHE_HOME:-~/.cache}/dirigent/bpf.
# DIRIGENT_BPF_TOOLCHAIN=NAME takes the compiler from that rustup toolchain (which
# must have the rust-src component) instead of Debian's packages.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/versions.env
. "$here/versions.env"
# A system's tools (tc, nft) often are where a plain user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/dirigent/bpf
record=$cache/toolchain.env

say() { echo "setup: $*"; }
die() {
    echo "setup: error: $1" >&2
    shift
    for line in "$@"; do echo "setup:   $line" >&2; done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# --- apt, without side effects -------------------------------------------------

policy=/usr/sbin/policy-rc.d
policy_state=untouched

# Debian starts a package's service right after installing it, unless policy-rc.d
# says no. Ours says no for the duration of the call and is then taken away again.
forbid_services() {
    if [ -e "$policy" ] || [ -L "$policy" ]; then
        mv "$policy" "$policy.before-dirigent-setup"
        policy_state=moved
    else
        policy_state=absent
    fi
    printf '#!/bin/sh\n# Put here by scripts/setup.sh of dirigent while it installs packages.\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}
allow_services() {
    case $policy_state in
    moved) mv -f "$policy.before-dirigent-setup" "$policy" ;;
    absent) rm -f "$policy" ;;
    esac
    policy_state=untouched
}
trap allow_services EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

apt_install() {
    if [ "$(id -u)" != 0 ]; then
        die "installing packages takes root, and this is $(id -un)" \
            "run once: sudo apt-get install --no-install-recommends $*" \
            "then run the same command again as $(id -un)"
    fi
    # A run that was killed may have left our file in place of the real one.
    if [ -e "$policy.before-dirigent-setup" ]; then
        mv -f "$policy.before-dirigent-setup" "$policy"
    fi
    local log
    log=$(mktemp)
    forbid_services
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -q)
    if ! { say "apt-get update" && "${apt[@]}" update >"$log" 2>&1 \
        && say "apt-get install $*" \
        && "${apt[@]}" install -y --no-install-recommends "$@" >>"$log" 2>&1; }; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get failed; its last lines are above" \
            "if it could not reach a mirror: check /etc/apt/sources.list and the network"
    fi
    rm -f "$log"
    allow_services
}

# --- the BPF toolchain -----------------------------------------------------------

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Sets rustc, llvm_so, llvm_major and stamp from a compiler, or fails with a reason in $why.
inspect() {
    rustc=$1
    local verbose release sysroot
    verbose=$("$rustc" -vV 2>/dev/null) || { why="$rustc does not run"; return 1; }
    release=$(sed -n 's/^release: //p' <<<"$verbose")
    llvm_major=$(sed -n 's/^LLVM version: \([0-9]*\).*/\1/p' <<<"$verbose")
    version_at_least "${release%%-*}" "$BPF_RUSTC_MIN" || { why="$rustc is $release, older than $BPF_RUSTC_MIN"; return 1; }
    [ "$llvm_major" -ge "$BPF_LINKER_LLVM_MIN" ] || { why="$rustc uses LLVM $llvm_major; bpf-linker $BPF_LINKER needs $BPF_LINKER_LLVM_MIN or newer"; return 1; }
    sysroot=$("$rustc" --print sysroot)
    [ -e "$sysroot/lib/rustlib/src/rust/library/core/src/lib.rs" ] || { why="$rustc comes without the standard library's sources (rust-src)"; return 1; }
    llvm_so=$(ldd "$rustc" | awk '$1 ~ /^libLLVM/ {print $3; exit}')
    [ -e "$llvm_so" ] || { why="$rustc is not linked against a libLLVM of its own"; return 1; }
    llvm_soname=$(ldd "$rustc" | awk '$1 ~ /^libLLVM/ {print $1; exit}')
    llvm_so=$(readlink -f "$llvm_so")
    feature=$llvm_major
    [ "$feature" -le "$BPF_LINKER_LLVM_MAX" ] || feature=$BPF_LINKER_LLVM_MAX
    stamp="bpf-linker $BPF_LINKER llvm-$feature $llvm_so"
}

# Whether what the last run recorded is still all there and current.
up_to_date() {
    [ -s "$record" ] || return 1
    local was_rustc was_stamp was_toolchain
    was_rustc=$(sed -n 's/^RUSTC=//p' "$record")
    was_stamp=$(sed -n 's/^STAMP=//p' "$record")
    was_toolchain=$(sed -n 's/^TOOLCHAIN=//p' "$record")
    [ -z "${DIRIGENT_BPF_TOOLCHAIN:-}" ] || [ "$was_toolchain" = "$DIRIGENT_BPF_TOOLCHAIN" ] || return 1
    [ -x "$was_rustc" ] && inspect "$was_rustc" && [ "$stamp" = "$was_stamp" ] || return 1
    "$cache/bin/bpf-linker" --version >/dev/null 2>&1
}

# A rustup toolchain that can build the BPF side: the named one, else any with rust-src.
from_rustup() {
    have rustup || return 1
    local names=${DIRIGENT_BPF_TOOLCHAIN:-$(rustup toolchain list | awk '{print $1}')} name path
    for name in $names; do
        path=$(rustup which --toolchain "$name" rustc 2>/dev/null) || { why="rustup knows no toolchain '$name'"; continue; }
        if inspect "$path"; then
            toolchain=$name
            return 0
        fi
    done
    return 1
}

find_compiler() {
    toolchain=
    why=
    if [ -z "${DIRIGENT_BPF_TOOLCHAIN:-}" ]; then
        inspect "$BPF_RUSTC" && return
        if have apt-get; then
            say "the BPF side needs a Rust compiler that comes with its standard library's sources;"
            say "rustup's stable has none. Installing Debian's: $BPF_APT_PACKAGES (150 MB to download, 0.9 GB on disk)."
            # shellcheck disable=SC2086
            apt_install $BPF_APT_PACKAGES
            hash -r
            inspect "$BPF_RUSTC" && return
            say "Debian's compiler does not do: $why (a newer one comes by the security"
            say "archive: see that /etc/apt/sources.list has it); trying rustup's toolchains"
        fi
    fi
    from_rustup && return
    die "no compiler for the BPF side: ${why:-neither apt-get nor rustup is here}" \
        "remedy: rustup toolchain install stable --component rust-src" \
        "then:   DIRIGENT_BPF_TOOLCHAIN=stable make setup"
}

build_linker() {
    have cargo || die "cargo is not in PATH" "install Rust first: https://rustup.rs"
    have cc || die "no C compiler (cc) in PATH" "install your distribution's gcc"
    say "building bpf-linker $BPF_LINKER from crates.io against $llvm_so (about a minute) into $cache"
    rm -f "$record"
    rm -rf "$cache/llvm"
    mkdir -p "$cache/llvm/lib"
    ln -sfn "$llvm_so" "$cache/llvm/lib/libLLVM.so"
    ln -sfn "$llvm_so" "$cache/llvm/lib/$llvm_soname"
    local log=$cache/bpf-linker.log
    # No debug information and little optimisation: the binary is 20 times smaller,
    # builds faster, and links the same object.
    if ! (cd "$cache" && env -u RUSTC -u RUSTFLAGS -u RUSTC_BOOTSTRAP -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET \
        LLVM_PREFIX="$cache/llvm" CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --locked --force --root "$cache" "bpf-linker@$BPF_LINKER" \
        --no-default-features --features "llvm-$feature") >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "bpf-linker did not build; its last lines are above, all of them in $log"
    fi
    "$cache/bin/bpf-linker" --version >/dev/null || die "bpf-linker was built but does not start" "see $log"
}

bpf_toolchain() {
    if up_to_date; then
        say "BPF toolchain is there ($("$rustc" -V), bpf-linker $BPF_LINKER)"
        return
    fi
    find_compiler
    if ! mkdir -p "$cache" || ! : >>"$cache/lock"; then
        die "$cache is not writable for $(id -un)" "set XDG_CACHE_HOME to a directory of yours"
    fi
    (
        # Two set-ups at once (two checkouts, an editor) must not build over each other.
        flock 9
        if ! up_to_date; then
            build_linker
            {
                echo "# Written by scripts/setup.sh, read by crates/datapath/build.rs."
                echo "RUSTC=$rustc"
                echo "LINKER=$cache/bin/bpf-linker"
                echo "TOOLCHAIN=$toolchain"
                echo "STAMP=$stamp"
            } >"$record.new"
            mv "$record.new" "$record"
        fi
    ) 9>"$cache/lock"
    say "BPF toolchain is ready ($("$rustc" -V), bpf-linker $BPF_LINKER)"
}

# --- programs of the tests -----------------------------------------------------------

# Installs the packages of commands that are not there, and packages whose file is not.
programs() { # programs WHAT "COMMAND:PACKAGE ..." "FILE:PACKAGE ..."
    local what=$1 pair missing=() commands=()
    for pair in $2; do
        have "${pair%%:*}" && continue
        commands+=("${pair%%:*}")
        missing+=("${pair#*:}")
    done
    for pair in $3; do
        [ -e "${pair%%:*}" ] || missing+=("${pair#*:}")
    done
    if [ ${#missing[@]} = 0 ]; then
        say "the programs that $what run are there"
    elif have apt-get; then
        say "$what run real clients, servers and others in network namespaces. Installing, with no service"
        say "started: ${missing[*]}"
        apt_install "${missing[@]}"
        # Debian also arranges for these to start at the next boot. Only if they came with us.
        for pair in nginx-light:nginx vsftpd:vsftpd keepalived:keepalived bird2:bird haproxy:haproxy; do
            if [[ " ${missing[*]} " == *" ${pair%%:*} "* ]] && have update-rc.d; then
                update-rc.d "${pair#*:}" disable >/dev/null 2>&1 || true
            fi
        done
        hash -r
        for pair in "${commands[@]}"; do
            have "$pair" || die "$pair is still not in PATH after installing its package"
        done
    else
        die "$what need these, and there is no apt-get to install them: ${missing[*]}" \
            "install them with your distribution's package manager, then run this again"
    fi
}

test_programs() {
    # wrk looks up the name of the port.
    programs "tests and demo" "$TEST_COMMANDS" "/etc/services:netbase"
    prometheus_checker
    cargo_fuzz
}

# Of Prometheus only the tool that checks metrics and rules: the package would bring a server and have it start.
prometheus_checker() {
    local tools=$cache/../tools/bin work log
    if have promtool || [ -x "$tools/promtool" ]; then
        return 0
    fi
    have apt-get || die "the tests of metrics need promtool, and there is no apt-get to fetch it" \
        "take it from https://prometheus.io/download and put it into PATH"
    say "taking promtool out of Debian's package $PROMTOOL_PACKAGE (19 MB to download) into $cache/../tools; nothing is installed"
    work=$(mktemp -d)
    log=$work/log
    # apt gives up root's rights for downloads.
    chmod 755 "$work"
    fetch() { (cd "$work" && apt-get -q download "$PROMTOOL_PACKAGE") >>"$log" 2>&1; }
    if ! fetch && ! { [ "$(id -u)" = 0 ] && apt-get -q update >>"$log" 2>&1 && fetch; }; then
        tail -n 20 "$log" >&2
        rm -rf "$work"
        die "promtool was not to be had; apt-get's last lines are above" "if it knows no such package: apt-get update, as root"
    fi
    dpkg-deb --fsys-tarfile "$work/$PROMTOOL_PACKAGE"_*.deb | tar -x -C "$work" ./usr/bin/promtool
    mkdir -p "$tools"
    install -m 755 "$work/usr/bin/promtool" "$tools/promtool.$$"
    # In place at once: two set-ups may run.
    mv "$tools/promtool.$$" "$tools/promtool"
    rm -rf "$work"
    "$tools/promtool" --version >/dev/null 2>&1 || die "promtool was taken out of its package but does not start" "see $tools/promtool"
}

has_nightly() { have rustup && rustup toolchain list 2>/dev/null | grep -q '^nightly'; }

cargo_fuzz() {
    has_nightly || return 0
    if [ -x "$cache/../tools/bin/cargo-fuzz" ] || have cargo-fuzz; then
        return 0
    fi
    local tools
    tools=$(cd "$cache/.." && pwd)/tools
    say "building cargo-fuzz $CARGO_FUZZ from crates.io for the fuzz targets (about a minute) into $tools"
    mkdir -p "$tools"
    if ! (cd "$tools" && env -u RUSTC -u RUSTFLAGS CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --locked --root "$tools" "cargo-fuzz@$CARGO_FUZZ") >"$tools/cargo-fuzz.log" 2>&1; then
        tail -n 20 "$tools/cargo-fuzz.log" >&2
        die "cargo-fuzz did not build; its last lines are above, all of them in $tools/cargo-fuzz.log"
    fi
}

case ${1:-} in
"") bpf_toolchain ;;
test)
    # Not joined by &&, which would switch off set -e inside them.
    bpf_toolchain
    test_programs
    ;;
peers)
    bpf_toolchain
    programs "bench-peers" "$PEER_COMMANDS" "/etc/services:netbase $PEER_FILES"
    ;;
*) die "unknown argument '$1'" "usage: scripts/setup.sh [test|peers]" ;;
esac
