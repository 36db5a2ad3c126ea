#!/usr/bin/env bash
# Runs the project's doors on a Debian 12 that never saw them: a root directory made by debootstrap, with make, a C
# compiler, git and this machine's rustup, and nothing else. Shows what set-up forgets to install.
#
#   scripts/fresh-machine.sh [COMMIT]      default: HEAD; about half an hour on two cores, 8 GB below /var/tmp
#
# Runs make setup (twice: the second has nothing to do), make demo, make golden, make lint and .ci/run.
# Not part of make test: it downloads a whole system. Kernel and network are this machine's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "a fresh machine" "scripts/fresh-machine.sh"
command -v debootstrap >/dev/null || { echo "error: debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }

commit=$(git rev-parse --verify "${1:-HEAD}^{commit}")
root=$(mktemp -d /var/tmp/dirigent-fresh.XXXXXX)
chmod 755 "$root" # it becomes /
shared=$(realpath ../shared)
rustup=$(rustup show home)
home=/root # of the fresh system
# shellcheck disable=SC2329 # called by the trap
clean() {
    # The mounts were in a namespace that is gone: nothing of this machine hangs below the directory.
    rm -rf --one-file-system "$root"
}
trap 'part_ended; clean' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

system() {
    debootstrap --variant=minbase --include=make,gcc,libc6-dev,git,ca-certificates,procps bookworm "$root" \
        >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; return 1; }
    rm -f "$root.log"
    mkdir -p "$root$home/.cargo/bin" "$root/srv/shared" "$root$rustup"
    # The rustup proxies, none of the tools that somebody installed beside them.
    cp -P "$(dirname "$(command -v rustup)")"/{rustup,cargo,rustc,rustdoc,rustfmt,cargo-fmt,cargo-clippy,clippy-driver} \
        "$root$home/.cargo/bin/"
    # debootstrap knows one suite; an installed Debian has the other two as well.
    local mirror=http://deb.debian.org
    printf 'deb %s main\n' "$mirror/debian bookworm" "$mirror/debian bookworm-updates" \
        "$mirror/debian-security bookworm-security" >"$root/etc/apt/sources.list"
    cp -r /etc/ssl/certs "$root/etc/ssl/"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    git clone --quiet . "$root/srv/main"
    git -C "$root/srv/main" checkout --quiet "$commit"
    mkdir "$root/srv/nat"
    cp "$shared"/oracle/golden/xmit/{xmit-nat-4,xmit-nat-6,nat-conntrack-4}.json "$root/srv/nat/"
}

# inside COMMAND...: on the fresh system, with mounts and processes of its own.
inside() {
    # shellcheck disable=SC2016 # expanded inside
    unshare --mount --pid --fork bash -euc '
        root=$1 rustup=$2 shared=$3 home=$4
        shift 4
        mount --make-rprivate /
        mount --bind "$root" "$root" # network namespaces want their / to be a mount point
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/run"
        mount --bind -o ro "$rustup" "$root$rustup"
        mount --bind -o ro "$shared" "$root/srv/shared"
        exec chroot "$root" env -i HOME="$home" TERM=dumb LANG=C.UTF-8 RUSTUP_HOME="$rustup" CI=true \
            PATH="$home/.cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
            ${SSL_CERT_FILE:+SSL_CERT_FILE="$SSL_CERT_FILE"} bash -ec "cd /srv/main && exec $*"
    ' bash "$root" "$rustup" "$shared" "$home" "$@"
}

nothing_listens() { # no service was started by a package
    ! inside "ps -e -o comm= | grep -E '^(nginx|iperf3|qemu)'"
}

part "a fresh Debian 12" system
part "make setup" inside make setup
part "make setup, again" inside make setup
part "make demo" inside make demo
part "make golden" inside make golden DIR=../nat
part "make lint" inside make lint
part ".ci/run" inside bash .ci/run
part "no service was started" nothing_listens
echo "== fresh machine: $SECONDS s in all"
