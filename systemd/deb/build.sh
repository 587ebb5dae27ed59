#!/bin/sh
# Makes anmin_VERSION_ARCHITECTURE.deb of a binary, with nothing but what every Debian has:
#   sh systemd/deb/build.sh target/release/anmin target/deb [VERSION] [COMPRESSION]
# The binary itself says what belongs where (`anmin install --root`), so that the package and an installation by hand are
# the same. The site in /etc/anmin is not the package's: `anmin init` writes it, people change it, no upgrade touches it.
set -eu
binary=$1
out=$2
version=${3:-$("$binary" --version | cut -d ' ' -f 2)}
compression=${4:-xz}
here=$(dirname "$0")
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

"$binary" install --root "$stage" >/dev/null
doc=$stage/usr/share/doc/anmin
mkdir -p "$doc" "$stage/DEBIAN" "$out"
cp "$here/../../LICENSE" "$doc/copyright"
gzip -9n <"$here/../../CHANGELOG.md" >"$doc/changelog.gz"
architecture=$(dpkg --print-architecture)
size=$(du -sk "$stage" | cut -f 1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$size/" "$here/control" >"$stage/DEBIAN/control"
for script in preinst postinst prerm postrm; do
    install -m 755 "$here/$script" "$stage/DEBIAN/$script"
done
find "$stage" -type d -exec chmod 755 {} +
chmod 644 "$doc"/*
package=$out/anmin_${version}_${architecture}.deb
dpkg-deb --root-owner-group -Z"$compression" --build "$stage" "$package" >/dev/null
echo "$package"
