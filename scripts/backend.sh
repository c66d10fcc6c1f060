#!/bin/sh
# Builds a backend for GPUs as a library, for a program that was built without it or that runs on other machines
# too. The program loads it from the folder lib/hypura beside its own folder, or from HYPURA_BACKENDS.
#
# Usage: backend.sh cuda|vulkan FOLDER [CMAKE_FLAG...]
#
# LLAMA_SOURCE is the llama.cpp to build from: the one that cargo fetched, unless it is set. CUDA is built for the GPU
# that is here; -DCMAKE_CUDA_ARCHITECTURES=... says otherwise.
set -eu

backend=${1:-} folder=${2:-}
case $backend in
    cuda | vulkan) ;;
    *)
        echo 'usage: backend.sh cuda|vulkan FOLDER [CMAKE_FLAG...]' >&2
        exit 2
        ;;
esac
[ -n "$folder" ] || folder=${CARGO_TARGET_DIR:-target}/lib/hypura
[ $# -lt 2 ] || shift
shift
here=$(cd "$(dirname "$0")" && pwd)

if [ -z "${LLAMA_SOURCE:-}" ]; then
    manifest=$("$here/cargo.sh" metadata --format-version 1 --locked --manifest-path "$here/../Cargo.toml" |
        sed -n 's/.*"manifest_path":"\([^"]*llama-cpp-sys-4-[^"]*Cargo.toml\)".*/\1/p')
    LLAMA_SOURCE=$(dirname "$manifest")/llama.cpp
fi
[ -d "$LLAMA_SOURCE/ggml" ] || {
    echo "backend.sh: no llama.cpp in $LLAMA_SOURCE" >&2
    exit 1
}

case $backend in
    cuda) switch=-DGGML_CUDA=ON ;;
    vulkan)
        switch=-DGGML_VULKAN=ON
        sdk=${CARGO_TARGET_DIR:-target}/vulkan-sdk
        "$here/gpu.sh" headers "$sdk"
        if [ -z "${VULKAN_SDK:-}" ] && [ -d "$sdk/include" ]; then
            VULKAN_SDK=$(cd "$sdk" && pwd)
            export VULKAN_SDK
        fi
        ;;
esac
build=${CARGO_TARGET_DIR:-target}/backend-$backend
cmake -S "$here/backend" -B "$build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_SOURCE="$LLAMA_SOURCE" "$switch" "$@"
cmake --build "$build" --target "ggml-$backend" --parallel "$(getconf _NPROCESSORS_ONLN)"
mkdir -p "$folder"
# Not onto itself: a program may be using it.
library=$(find "$build" -name "libggml-$backend.so" | head -n 1)
cp "$library" "$folder/.libggml-$backend.so.new"
strip "$folder/.libggml-$backend.so.new" 2>/dev/null || true
mv "$folder/.libggml-$backend.so.new" "$folder/libggml-$backend.so"
echo "$folder/libggml-$backend.so"
