#!/usr/bin/env bash
# Builds the Debian package: target/deb/dirigent_VERSION_ARCH.deb.
#
#   scripts/deb.sh            of a release build
#   scripts/deb.sh BINARY     of this binary, as it is (the tests' package)
#
# The same source gives the same bytes: SOURCE_DATE_EPOCH, or else the time of the last commit, is the time of everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

binary=${1:-}
if [ -z "$binary" ]; then
    scripts/setup.sh
    cargo build --release --quiet -p dirigent
    binary=target/release/dirigent
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }

put 755 "$binary" usr/bin/dirigent
strip --strip-unneeded "$root/usr/bin/dirigent"
# ipvsadm's own package has its own: whoever wants this one in its place links it where PATH finds it first.
mkdir -p "$root/usr/lib/dirigent"
ln -s ../../bin/dirigent "$root/usr/lib/dirigent/ipvsadm"
put 644 packaging/dirigent.service usr/lib/systemd/system/dirigent.service
put 644 packaging/dirigent-realserver.service usr/lib/systemd/system/dirigent-realserver.service
put 644 packaging/dirigent.toml etc/dirigent/dirigent.toml
put 644 packaging/grafana/dirigent.json usr/share/dirigent/grafana/dirigent.json
put 644 packaging/prometheus/dirigent.rules.yml usr/share/dirigent/prometheus/dirigent.rules.yml
put 644 packaging/60-dirigent.conf usr/share/dirigent/sysctl.d/60-dirigent.conf

"$binary" man "$root/usr/share/man/man8"
gzip -9 -n "$root"/usr/share/man/man8/*.8
complete=$root/usr/share
mkdir -p "$complete/bash-completion/completions" "$complete/zsh/vendor-completions" "$complete/fish/vendor_completions.d"
"$binary" completions bash >"$complete/bash-completion/completions/dirigent"
"$binary" completions zsh >"$complete/zsh/vendor-completions/_dirigent"
"$binary" completions fish >"$complete/fish/vendor_completions.d/dirigent.fish"

doc=$root/usr/share/doc/dirigent
mkdir -p "$doc"
put 644 packaging/real-path.conf usr/share/doc/dirigent/examples/real-path.conf
gzip -9 -n <CHANGELOG.md >"$doc/changelog.gz"
printf '%s\n' 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/' 'Upstream-Name: dirigent' '' \
    'Files: *' "Copyright: $(git log -1 --format=%cd --date=format:%Y) Dirigent's authors" \
    'License: MIT or Apache-2.0' ' The texts are LICENSE-MIT and LICENSE-APACHE of the sources; Debian has the latter as' \
    ' /usr/share/common-licenses/Apache-2.0.' >"$doc/copyright"

# The C library that the binary was linked with, and nothing else.
glibc=$(objdump -T "$root/usr/bin/dirigent" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
mkdir "$root/DEBIAN"
install -m 755 packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$root/DEBIAN"
echo /etc/dirigent/dirigent.toml >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<EOF
Package: dirigent
Version: $version
Architecture: $architecture
Maintainer: Dirigent's maintainers <dirigent@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= $glibc), libgcc-s1, passwd
Suggests: nftables, iproute2, keepalived
Section: net
Priority: optional
Description: layer-4 load balancer: the Linux Virtual Server director on XDP
 Dirigent distributes connections to a virtual address over real servers by NAT,
 direct routing or tunnelling, in the kernel's XDP and tc hooks. It takes ipvsadm's
 commands and files and keepalived's virtual servers, tells what becomes of every
 packet, and changes, restarts and upgrades without losing one.
EOF
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p target/deb
package=target/deb/dirigent_${version}_${architecture}.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
