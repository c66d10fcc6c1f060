#!/bin/sh
# Makes the packages of this machine's kind: the archive, on Debian's relatives the package too, the bill of materials, and
# their SHA-256.
#
# Usage: dist.sh OUTPUT_FOLDER [LIBRARIES]   LIBRARIES: more backends to pack, as scripts/backend.sh makes them
#
# Builds with scripts/dist/build.sh; PROGRAM and KERNELS name what was built already.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
output=$1 more=${2:-}

built=${CARGO_TARGET_DIR:-target}/dist
if [ -z "${PROGRAM:-}" ]; then
    "$here/build.sh"
    PROGRAM=$built/release/hypura KERNELS=$built/lib/hypura
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/libraries" "$output"
for folder in "${KERNELS:-}" "$more"; do
    if [ -n "$folder" ]; then
        find "$folder" -name 'libggml-*.so' -exec cp {} "$work/libraries/" \;
    fi
done
"$here/stage.sh" "$PROGRAM" "$work/libraries" "$work/staged"
"$here/tarball.sh" "$work/staged" "$output"
if [ "$(uname -s)" = Linux ] && command -v dpkg-deb >/dev/null; then
    "$here/deb.sh" "$work/staged" "$output"
fi
cp "$work/staged/share/doc/hypura/sbom.cdx.json" "$output/hypura-$("$here/version.sh").cdx.json"
"$here/sums.sh" "$output"
