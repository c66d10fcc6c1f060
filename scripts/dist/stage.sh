#!/bin/sh
# Lays out what a package installs below its prefix: bin, lib/hypura, share. What formats add of their own is theirs.
#
# Usage: stage.sh PROGRAM LIBRARIES FOLDER   LIBRARIES is a folder of libggml-*.so, or '' for none; FOLDER is new
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
program=$1 libraries=$2 folder=$3

[ ! -e "$folder" ] || {
    echo "stage.sh: $folder is there already" >&2
    exit 1
}
umask 022
mkdir -p "$folder/bin" "$folder/share/man/man1" "$folder/share/doc/hypura" "$folder/share/hypura/demo" \
    "$folder/share/hypura/service" "$folder/share/bash-completion/completions" "$folder/share/zsh/vendor-completions" \
    "$folder/share/fish/vendor_completions.d"

strip -o "$folder/bin/hypura" "$program"
chmod 755 "$folder/bin/hypura"
# A Mac runs nothing whose signature, which the linker made, strip has broken.
[ "$(uname -s)" != Darwin ] || codesign --force --sign - "$folder/bin/hypura"
if [ -n "$libraries" ] && [ -d "$libraries" ]; then
    for library in "$libraries"/libggml-*.so; do
        [ -f "$library" ] || continue
        mkdir -p "$folder/lib/hypura"
        install -m 644 "$library" "$folder/lib/hypura/"
    done
fi

"$program" man --dir "$folder/share/man/man1"
"$program" completions bash >"$folder/share/bash-completion/completions/hypura"
"$program" completions zsh >"$folder/share/zsh/vendor-completions/_hypura"
"$program" completions fish >"$folder/share/fish/vendor_completions.d/hypura.fish"
chmod 644 "$folder"/share/man/man1/*

install -m 644 "$root"/assets/demo/*.gguf "$root/assets/demo/README.md" "$folder/share/hypura/demo/"
install -m 644 "$root"/assets/service/hypura.* "$folder/share/hypura/service/"
install -m 644 "$root/README.md" "$root/CHANGELOG.md" "$root/LICENSE-MIT" "$root/LICENSE-APACHE" "$folder/share/doc/hypura/"
"$here/bill.py" --notices "$folder/share/doc/hypura/THIRD-PARTY.txt" --sbom "$folder/share/doc/hypura/sbom.cdx.json"
chmod 644 "$folder"/share/doc/hypura/*
