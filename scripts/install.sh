#!/bin/sh
# Installs Hypura from an archive of a release, below a folder of your own: no root, no compiler, nothing outside
# that folder. Says what it does. Running it again brings the version that it is told to, and takes files of the
# old one away.
#
# Usage: install.sh [--prefix DIR] [--from FILE.tar.gz]   install; DIR is ~/.local unless it is given
#        install.sh [--prefix DIR] --uninstall            remove what was installed; models stay
#
# Without --from the archive comes from the release that this script belongs to, and must have the SHA-256 that
# the release lists. With it, SHA256SUMS beside the file is asked, if it is there.
set -eu

# The release workflow writes the address of its own release here.
release_url=
version=

say() { printf 'hypura: %s\n' "$*"; }

fail() {
    printf 'hypura: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Of this machine, as archives are named.
platform() {
    case $(uname -s) in
        Linux) os=linux ;;
        Darwin) os=macos ;;
        *) fail "there is no archive for $(uname -s)" ;;
    esac
    case $(uname -m) in
        x86_64 | amd64) arch=x86_64 ;;
        aarch64 | arm64) arch=arm64 ;;
        *) fail "there is no archive for $(uname -m)" ;;
    esac
    printf '%s-%s' "$os" "$arch"
}

download() {
    if have curl; then
        curl --fail --silent --show-error --location --proto '=https' --output "$2" "$1"
    elif have wget; then
        wget --quiet --output-document "$2" "$1"
    else
        fail 'neither curl nor wget is here: download the archive and name it with --from'
    fi || fail "$1 could not be downloaded"
}

sha256() {
    if have sha256sum; then
        sha256sum "$1"
    else
        shasum -a 256 "$1"
    fi | cut -d ' ' -f 1
}

# $1 has the sum that the list $2 has for it.
check() {
    name=${1##*/}
    wanted=$(sed -n "s/^\([0-9a-f]\{64\}\)  \**\(.*\/\)*$name\$/\1/p" "$2" | head -n 1)
    [ -n "$wanted" ] || fail "$2 has no sum for $name"
    [ "$(sha256 "$1")" = "$wanted" ] || fail "$name is damaged: its SHA-256 is not that of the release"
    say "$name has the SHA-256 of the release"
}

# What is recorded: files, and after them the folders that were made, each with a slash at its end.
record=share/hypura/installed-files

make_folder() {
    [ -d "$prefix/$1" ] && return
    case $1 in */*) make_folder "${1%/*}" ;; esac
    mkdir "$prefix/$1"
    printf '%s/\n' "$1" >>"$work/folders"
}

install_from() {
    archive=$1
    tar -xzf "$archive" -C "$work" || fail "$archive cannot be unpacked"
    set -- "$work"/hypura-*/bin/hypura
    [ -f "$1" ] || fail "$archive is no archive of Hypura"
    tree=${1%/bin/hypura}
    : >"$work/folders"
    [ -d "$prefix" ] || echo ./ >>"$work/folders"
    mkdir -p "$prefix"
    # What the last run made is still ours to remove.
    if [ -f "$prefix/$record" ]; then
        grep '/$' "$prefix/$record" >>"$work/folders" || true
    fi
    # Only what belongs below a prefix: this script is in the archive too.
    (cd "$tree" && find bin lib share -type f 2>/dev/null | LC_ALL=C sort) >"$work/files"
    printf '%s\n' "$record" >>"$work/files"
    while read -r file; do
        make_folder "${file%/*}"
        [ "$file" = "$record" ] && continue
        # Beside the old one and then in its place: a program that runs keeps its own.
        cp "$tree/$file" "$prefix/$file.new"
        mv -f "$prefix/$file.new" "$prefix/$file"
    done <"$work/files"
    if [ -f "$prefix/$record" ]; then
        grep -v '/$' "$prefix/$record" | grep -vxF -f "$work/files" | while read -r file; do
            rm -f "$prefix/$file"
        done || true
    fi
    LC_ALL=C sort -ru "$work/folders" >"$work/sorted"
    cat "$work/files" "$work/sorted" >"$prefix/$record"
    say "$("$prefix/bin/hypura" -V) is in $prefix/bin"
    case :$PATH: in
        *:"$prefix/bin":*) ;;
        *) say "put that folder into PATH: export PATH=\"$prefix/bin:\$PATH\"" ;;
    esac
    say "try: hypura run demo 'What is a lynx?'"
}

uninstall() {
    [ -f "$prefix/$record" ] || fail "nothing was installed below $prefix"
    cp "$prefix/$record" "$work/record"
    while read -r line; do
        case $line in
            ./) rmdir "$prefix" 2>/dev/null || true ;;
            */) rmdir "$prefix/$line" 2>/dev/null || true ;;
            *) rm -f "$prefix/$line" ;;
        esac
    done <"$work/record"
    say "removed from $prefix; models and settings stay where they are"
}

prefix=${HOME:-}/.local from='' action=install
while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --from)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case $1 in --prefix) prefix=$2 ;; *) from=$2 ;; esac
            shift
            ;;
        --uninstall) action=uninstall ;;
        -h | --help)
            sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
            exit
            ;;
        *) fail "unknown argument '$1': --help tells what there is" ;;
    esac
    shift
done
case $prefix in
    /*) ;;
    *) prefix=$PWD/$prefix ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if [ "$action" = uninstall ]; then
    uninstall
elif [ -n "$from" ]; then
    [ -f "$from" ] || fail "there is no file $from"
    sums=$(dirname "$from")/SHA256SUMS
    if [ -f "$sums" ]; then
        check "$from" "$sums"
    else
        say "there is no SHA256SUMS beside $from: it is taken as it is"
    fi
    install_from "$from"
else
    [ -n "$release_url" ] || fail 'this copy of the script belongs to no release: name an archive with --from'
    archive=hypura-$version-$(platform).tar.gz
    say "downloading $archive from $release_url"
    download "$release_url/$archive" "$work/$archive"
    download "$release_url/SHA256SUMS" "$work/SHA256SUMS"
    check "$work/$archive" "$work/SHA256SUMS"
    install_from "$work/$archive"
fi
