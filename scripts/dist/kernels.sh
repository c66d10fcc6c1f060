#!/bin/sh
# Builds ggml's CPU kernels for several kinds of processors, as libraries from which the program chooses the best
# when it starts: from the folder lib/hypura beside its own folder, or from HYPURA_BACKENDS.
#
# Usage: kernels.sh FOLDER [NAME...]   the libraries of this architecture, or those that are named
#        kernels.sh --names            print what those are
#
# LLAMA_SOURCE is the llama.cpp to build from: the one that cargo fetched, unless it is set. JOBS is how many
# compilers run at once.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

# In ggml's words (ggml/src/CMakeLists.txt). Left out are those that hardly differ from the one before them, and
# AMX (crates/ggml/src/amx.cpp). The program itself has kernels for any processor.
case $(uname -m) in
    x86_64 | amd64) names="sse42 sandybridge haswell alderlake skylakex cascadelake icelake zen4" ;;
    aarch64 | arm64) names="armv8.2_1 armv8.2_2 armv8.2_3 armv8.6_1 armv8.6_2" ;;
    *) names= ;;
esac

case ${1:-} in
    --names)
        printf '%s\n' "$names"
        exit
        ;;
    '')
        echo 'usage: kernels.sh FOLDER [NAME...]' >&2
        exit 2
        ;;
esac
folder=$1
shift
if [ $# -gt 0 ]; then
    names=$*
fi

LLAMA_SOURCE=${LLAMA_SOURCE:-$("$here/../cargo.sh" metadata --format-version 1 --locked \
    --manifest-path "$here/../../Cargo.toml" |
    sed -n 's/.*"manifest_path":"\([^"]*llama-cpp-sys-4-[^"]*\)\/Cargo.toml".*/\1/p')/llama.cpp}
[ -d "$LLAMA_SOURCE/ggml" ] || {
    echo "kernels.sh: no llama.cpp in $LLAMA_SOURCE" >&2
    exit 1
}

build=${CARGO_TARGET_DIR:-target}/kernels
cmake -S "$here" -B "$build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_SOURCE="$LLAMA_SOURCE" >&2
targets=
for name in $names; do
    targets="$targets ggml-cpu-$name"
done
# shellcheck disable=SC2086 # a list of words
cmake --build "$build" --target $targets --parallel "${JOBS:-$(getconf _NPROCESSORS_ONLN)}" >&2
mkdir -p "$folder"
for name in $names; do
    library=$(find "$build" -name "libggml-cpu-$name.so" | head -n 1)
    # Not onto itself: a program may be using it.
    strip --strip-unneeded -o "$folder/.libggml-cpu-$name.so.new" "$library"
    mv "$folder/.libggml-cpu-$name.so.new" "$folder/libggml-cpu-$name.so"
    printf '%s\n' "$folder/libggml-cpu-$name.so"
done
