#!/bin/sh
# Prints what CHANGELOG.md says of this version.
set -eu
root=$(dirname "$0")/../..
version=$("$root/scripts/dist/version.sh")
sed -n "/^## \[$version\]/,/^## \[/p" "$root/CHANGELOG.md" | sed -e '/^## \[/d' | grep . || {
    echo "notes.sh: CHANGELOG.md says nothing of $version" >&2
    exit 1
}
