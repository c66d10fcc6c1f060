#!/bin/sh
# Prints the Homebrew formula of a release.
#
# Usage: formula.sh HOMEPAGE URL SUMS   URL is the folder that the archives are downloaded from, SUMS their SHA256SUMS
set -eu

here=$(cd "$(dirname "$0")" && pwd)
homepage=$1 url=$2 sums=$3
version=$("$here/version.sh")

sum() {
    found=$(sed -n "s/^\([0-9a-f]\{64\}\)  hypura-$version-$1\.tar\.gz\$/\1/p" "$sums")
    [ -n "$found" ] || {
        echo "formula.sh: $sums has no sum for $1" >&2
        exit 1
    }
    printf '%s' "$found"
}

macos_arm64=$(sum macos-arm64) linux_x86_64=$(sum linux-x86_64) linux_arm64=$(sum linux-arm64)
sed -e "s|@HOMEPAGE@|$homepage|" -e "s|@URL@|$url|" -e "s|@VERSION@|$version|" -e "s|@MACOS_ARM64@|$macos_arm64|" \
    -e "s|@LINUX_X86_64@|$linux_x86_64|" -e "s|@LINUX_ARM64@|$linux_arm64|" "$here/../../assets/package/hypura.rb.in"
