#!/bin/sh
# Packs a staged folder (stage.sh) as a Debian package: for Debian 12, Ubuntu 22.04, and later ones.
#
# Usage: deb.sh STAGED OUTPUT_FOLDER   prints the package
#
# For tests: COMPRESSION=gzip takes less time; ANY_SYSTEM=1 packs what was built on a system too new for others.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
assets=$here/../../assets
staged=$1 output=$2

# Of the program, and of the package.
version=$("$here/version.sh")-1
maintainer=$(sed -n 's/^Maintainer: //p' "$assets/package/debian/control.in")
arch=$(dpkg --print-architecture)
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || date +%s)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root doc=$work/root/usr/share/doc/hypura
umask 022
mkdir -p "$root/usr" "$root/DEBIAN" "$root/etc/default" "$root/usr/lib" "$root/lib/systemd/system" "$root/usr/share/lintian/overrides"
cp -R "$staged/." "$root/usr/"
if [ -z "${ANY_SYSTEM:-}" ]; then
    find "$root/usr/bin" "$root/usr/lib" -type f -exec "$here/symbols.sh" {} + >&2
fi

# Where Debian has things, and in the form that it wants.
rm -f "$doc/LICENSE-MIT" "$doc/LICENSE-APACHE"
rm -rf "$root/usr/share/hypura/service"
mv "$doc/CHANGELOG.md" "$doc/changelog"
cat >"$doc/changelog.Debian" <<CHANGES
hypura ($version) unstable; urgency=medium

  * Version ${version%-*}: changelog.gz tells what is new.

 -- $maintainer  $(LC_ALL=C date --utc -R --date "@$epoch")
CHANGES
install -m 644 "$assets/package/debian/copyright" "$doc/copyright"
install -m 644 "$assets/package/debian/default" "$root/etc/default/hypura"
install -m 644 "$assets/package/debian/lintian-overrides" "$root/usr/share/lintian/overrides/hypura"
# shellcheck disable=SC2016 # the text of a comment
sed -e 's|^ExecStart=/usr/local/bin/|ExecStart=/usr/bin/|' \
    -e 's|^# Change settings with .*|EnvironmentFile=-/etc/default/hypura\n# More than /etc/default/hypura is changed with `systemctl edit hypura`:|' \
    -e 's|docs/serving.md tells how to install it\.|Settings are in /etc/default/hypura.|' \
    "$assets/service/hypura.service" >"$root/lib/systemd/system/hypura.service"
chmod 644 "$root/lib/systemd/system/hypura.service"
gzip -9n "$doc/changelog" "$doc/changelog.Debian" "$doc/THIRD-PARTY.txt" "$doc/sbom.cdx.json" "$root"/usr/share/man/man1/*

size=$(du -k -s --apparent-size "$root" | cut -f 1)
recommends=
[ ! -f "$root/usr/lib/hypura/libggml-vulkan.so" ] || recommends=', libvulkan1'
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" -e "s/@RECOMMENDS@/$recommends/" \
    "$assets/package/debian/control.in" >"$root/DEBIAN/control"
echo /etc/default/hypura >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 755 "$assets/package/debian/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find . -type f ! -path './DEBIAN/*' ! -path './etc/*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' md5sum) \
    >"$root/DEBIAN/md5sums"
find "$root" -newermt "@$epoch" -exec touch --no-dereference --date "@$epoch" {} +

mkdir -p "$output"
package=$output/hypura_${version}_$arch.deb
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group "-Z${COMPRESSION:-xz}" --build "$root" "$package.new" >&2
mv "$package.new" "$package"
printf '%s\n' "$package"
