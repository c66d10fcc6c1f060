#!/bin/sh
# Packs a staged folder (stage.sh) into an archive for scripts/install.sh. The same folder makes the same archive.
#
# Usage: tarball.sh STAGED OUTPUT_FOLDER   prints the archive
set -eu

here=$(cd "$(dirname "$0")" && pwd)
staged=$1 output=$2

version=$("$here/version.sh")
case $(uname -s) in Darwin) os=macos ;; *) os=linux ;; esac
case $(uname -m) in x86_64 | amd64) arch=x86_64 ;; *) arch=arm64 ;; esac
name=hypura-$version-$os-$arch

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$staged" "$work/$name"
cp "$here/../install.sh" "$work/$name/"
mkdir -p "$output"
archive=$output/$name.tar.gz
if tar --version 2>/dev/null | grep -q GNU; then
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" -C "$work" -cf - "$name" |
        gzip -9n >"$archive.new"
else
    tar -C "$work" -cf - "$name" | gzip -9n >"$archive.new"
fi
mv "$archive.new" "$archive"
printf '%s\n' "$archive"
