#!/bin/sh
# Writes SHA256SUMS of the files of a folder into it.
#
# Usage: sums.sh FOLDER
set -eu
cd "$1"
rm -f SHA256SUMS
for file in *; do
    if command -v sha256sum >/dev/null; then sha256sum "$file"; else shasum -a 256 "$file"; fi
done >.sums
mv .sums SHA256SUMS
