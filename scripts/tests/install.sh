#!/bin/sh
# scripts/install.sh with archives of a stand-in for the program, in folders of their own: what it puts where, what it
# refuses, and that it leaves nothing.
set -eu
cd "$(dirname "$0")/../.."
script=$PWD/scripts/install.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

check() {
    if "$@"; then return; fi
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$*" >&2
    sed 's/^/    /' "$work/out" >&2
}

# An archive of version $1 with the files $2...
archive() {
    version=$1 tree=$work/hypura-$1-linux-x86_64
    shift
    mkdir -p "$tree/bin"
    printf '#!/bin/sh\necho "hypura %s"\n' "$version" >"$tree/bin/hypura"
    chmod +x "$tree/bin/hypura"
    for file in "$@"; do
        mkdir -p "$tree/$(dirname "$file")"
        echo "$version" >"$tree/$file"
    done
    echo '# not for the prefix' >"$tree/install.sh"
    tar -C "$work" -czf "$work/hypura-$version-linux-x86_64.tar.gz" "${tree##*/}"
    rm -r "$tree"
}

install_sh() {
    status=0
    env -i HOME="$work/home" PATH="$PATH" sh "$script" "$@" >"$work/out" 2>&1 || status=$?
}

said() { grep -q -e "$1" "$work/out"; }
ended() { [ "$status" -eq "$1" ]; }
empty() { [ -z "$(find "$1" -mindepth 1)" ]; }
absent() { [ ! -e "$1" ]; }
holds() { [ "$(cat "$1")" = "$2" ]; }

mkdir "$work/home"
archive 1 share/man/man1/hypura.1 share/hypura/demo/demo.gguf lib/hypura/old.so
archive 2 share/man/man1/hypura.1 share/hypura/demo/demo.gguf lib/hypura/new.so
local=$work/home/.local

install_sh --from "$work/hypura-1-linux-x86_64.tar.gz"
check ended 0
check said 'taken as it is'
check said "hypura 1 is in $local/bin"
check said 'into PATH'
check test -x "$local/bin/hypura"

# Again, and then a newer one: the files are those of the last.
install_sh --from "$work/hypura-1-linux-x86_64.tar.gz"
check ended 0
(cd "$work" && sha256sum hypura-2-*.tar.gz >SHA256SUMS)
install_sh --from "$work/hypura-2-linux-x86_64.tar.gz"
check ended 0
check said 'has the SHA-256 of the release'
check holds "$local/share/hypura/demo/demo.gguf" 2
check test -f "$local/lib/hypura/new.so"
check absent "$local/lib/hypura/old.so"

# What others put there stays, and so does a folder that was there before.
mkdir -p "$local/share/hypura/models"
echo mine >"$local/share/hypura/models/mine"
install_sh --uninstall
check ended 0
check holds "$local/share/hypura/models/mine" mine
check absent "$local/bin"
check absent "$local/lib"
check absent "$local/share/man"
rm -r "$local"
mkdir -p "$local/bin"
install_sh --from "$work/hypura-2-linux-x86_64.tar.gz"
install_sh --uninstall
check ended 0
check test -d "$local/bin"
rmdir "$local/bin"
check empty "$local"
rmdir "$local"
install_sh --from "$work/hypura-2-linux-x86_64.tar.gz"
install_sh --uninstall
check empty "$work/home"

install_sh --uninstall
check ended 1
check said 'nothing was installed'

# An archive that is not the one of the list is not touched.
echo damage >>"$work/hypura-2-linux-x86_64.tar.gz"
install_sh --from "$work/hypura-2-linux-x86_64.tar.gz"
check ended 1
check said 'is damaged'
install_sh --from "$work/hypura-1-linux-x86_64.tar.gz"
check ended 1
check said 'has no sum'
check empty "$work/home"

# Other places, and other ways to be wrong.
rm "$work/SHA256SUMS"
install_sh --prefix "$work/a place" --from "$work/hypura-1-linux-x86_64.tar.gz"
check ended 0
check test -x "$work/a place/bin/hypura"
install_sh --prefix "$work/a place" --uninstall
check ended 0
check absent "$work/a place/bin"
install_sh --from "$work/nothing.tar.gz"
check ended 1
check said 'there is no file'
install_sh --frm x
check ended 1
check said 'unknown argument'
install_sh --prefix
check ended 1
install_sh
check ended 1
check said 'belongs to no release'
install_sh --help
check ended 0
check said 'Usage: install.sh'

# What the release workflow makes of the script names that release, and is refused what it cannot reach.
sed -e 's|^release_url=$|release_url=https://127.0.0.1:9/release|' -e 's|^version=$|version=9|' "$script" >"$work/install.sh"
script=$work/install.sh
install_sh
check ended 1
check said 'downloading hypura-9-'
check said 'could not be downloaded'
check empty "$work/home"

[ "$failures" -eq 0 ] || exit 1
echo "install: all checks passed"
