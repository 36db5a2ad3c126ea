#!/usr/bin/env bash
# Installs, upgrades, removes and purges the Debian package in a fresh Debian 12 (made by debootstrap), and looks whether
# anything is left.
#
#   scripts/deb-test.sh PACKAGE      as make deb built it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root "the package's test" "scripts/deb-test.sh"
package=$(realpath "${1:?a package}")
command -v debootstrap >/dev/null || { echo "error: debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }

root=$(mktemp -d /var/tmp/dirigent-deb.XXXXXX)
chmod 755 "$root"
trap 'part_ended; rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

debootstrap --variant=minbase --include=systemd,passwd,procps bookworm "$root" >"$root.log" 2>&1 \
    || { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"
cp "$package" "$root/dirigent.deb"

# In mounts and processes of its own, which end with it. The BPF file system is an empty one of its own, too.
# shellcheck disable=SC2016 # expanded inside
unshare --mount --pid --fork bash -euc '
    mount --make-rprivate /
    mount --bind "$1" "$1"
    mount -t proc proc "$1/proc"
    mount -t sysfs -o ro sysfs "$1/sys" 2>/dev/null || mount --rbind /sys "$1/sys"
    mount -t tmpfs tmpfs "$1/run"
    exec chroot "$1" /bin/bash -eu /dev/stdin
' - "$root" <<'INSIDE'
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
fail() { echo "FAILED: $*" >&2; exit 1; }
# What there is, without what any package changes: dpkg's own records, logs, and copies of the user database.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log \
        -o -path /var/cache \) -prune -o ! -name '*-' -print | sort
}
users() { cut -d: -f1 /etc/passwd /etc/group | sort; }
sysctl_now() { cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv6/conf/*/forwarding; }
sysctl_now >/tmp/sysctl
files >/tmp/before
users >/tmp/users
dpkg -i /dirigent.deb >/tmp/log 2>&1 || { cat /tmp/log; fail "it does not install"; }
for file in /usr/bin/dirigent /usr/lib/dirigent/ipvsadm /usr/lib/systemd/system/dirigent.service \
    /usr/share/doc/dirigent/examples/real-path.conf \
    /usr/share/man/man8/dirigent.8.gz /usr/share/man/man8/dirigent-service-list.8.gz \
    /usr/share/bash-completion/completions/dirigent /usr/share/zsh/vendor-completions/_dirigent \
    /etc/dirigent/dirigent.toml /usr/share/dirigent/sysctl.d/60-dirigent.conf \
    /usr/share/dirigent/grafana/dirigent.json /usr/share/dirigent/prometheus/dirigent.rules.yml \
    /usr/lib/systemd/system/dirigent-realserver.service /usr/share/doc/dirigent/copyright; do
    [ -s "$file" ] || fail "$file is not there"
done
dirigent --version
dirigent check --config /etc/dirigent/dirigent.toml || fail "its own configuration is wrong"
/usr/lib/dirigent/ipvsadm --version | grep -q '^ipvsadm v1.31' || fail "it is no ipvsadm"
[ "$(id -un dirigent)" = dirigent ] || fail "there is no user"
[ "$(stat -c %U:%G:%a /etc/dirigent)" = root:dirigent:750 ] || fail "rights of /etc/dirigent"
sysctl_now | diff /tmp/sysctl - || fail "it changed the kernel's settings"
[ ! -e /etc/systemd/system/multi-user.target.wants/dirigent.service ] || fail "it is enabled by itself"
(cd / && md5sum --quiet -c /var/lib/dpkg/info/dirigent.md5sums) || fail "files are not those of the package"
systemd-analyze verify --man=no dirigent.service dirigent-realserver.service 2>/tmp/log || { cat /tmp/log; fail "the units are wrong"; }
# Lines about these units; others are about this chroot.
! grep -E 'dirigent(-realserver)?\.service' /tmp/log || fail "the units are wrong"
systemd-analyze security --offline=true --threshold=35 --no-pager dirigent.service >/tmp/log 2>&1 \
    || { tail -n 30 /tmp/log; fail "the unit is not closed enough"; }
tail -n 1 /tmp/log
# An administrator's own configuration outlasts an upgrade and a removal, and goes with a purge.
echo '# mine' >>/etc/dirigent/dirigent.toml
mkdir -p /var/lib/dirigent && echo '{}' >/var/lib/dirigent/main.saved.json
dpkg -i /dirigent.deb >/tmp/log 2>&1 || { cat /tmp/log; fail "it does not upgrade"; }
grep -q '^# mine' /etc/dirigent/dirigent.toml || fail "the upgrade lost the configuration"
dpkg -r dirigent >/tmp/log 2>&1 || { cat /tmp/log; fail "it cannot be removed"; }
grep -q '^# mine' /etc/dirigent/dirigent.toml || fail "the removal lost the configuration"
[ ! -e /usr/bin/dirigent ] || fail "the removal left the program"
dpkg -P dirigent >/tmp/log 2>&1 || { cat /tmp/log; fail "it cannot be purged"; }
files >/tmp/after
users | diff /tmp/users - || fail "users or groups are left"
diff /tmp/before /tmp/after || fail "files are left"
echo "installed, upgraded, removed and purged: nothing is left"
INSIDE
