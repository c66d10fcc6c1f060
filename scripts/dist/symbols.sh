#!/bin/sh
# Fails where a file needs a newer C or C++ library than the oldest systems that packages are for have: Ubuntu 22.04
# with glibc 2.35, and libstdc++ of GCC 12 (GLIBCXX_3.4.30), which Debian 12 has too.
#
# Usage: symbols.sh FILE...   prints the newest version that each needs
set -eu

glibc=2.35 glibcxx=3.4.30

# The newest version of a library's symbols that a file needs.
newest() {
    objdump -T "$2" | sed -n "s/.*(\{0,1\}$1_\([0-9.]*\))\{0,1\} .*/\1/p" | sort -V | tail -n 1
}

# $1 is at most $2.
at_most() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$2" ]
}

failed=0
for file in "$@"; do
    needs_glibc=$(newest GLIBC "$file") needs_glibcxx=$(newest GLIBCXX "$file")
    echo "$file: glibc ${needs_glibc:-none}, libstdc++ ${needs_glibcxx:-none}"
    if ! at_most "${needs_glibc:-0}" "$glibc" || ! at_most "${needs_glibcxx:-0}" "$glibcxx"; then
        echo "symbols.sh: $file needs more than glibc $glibc and GLIBCXX_$glibcxx" >&2
        failed=1
    fi
done
exit "$failed"
