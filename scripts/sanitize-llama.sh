#!/bin/sh
# llama.cpp's loader, tokenisers and kernels under AddressSanitizer and UndefinedBehaviorSanitizer, with files that the
# mutator of crates/hypura/tests/hostile made and our own reader of headers lets through.
#
# Usage: sanitize-llama.sh [FILES [SEED]]   240 files of seed 14 by default
#
# The build is one of its own, of the very source that the program is built from, in target/sanitize-llama: six minutes of
# one core the first time, nothing later. Not in CI.
set -eu
cd "$(dirname "$0")/.."
files=${1:-240}
seed=${2:-14}
target_dir=${CARGO_TARGET_DIR:-target}
mkdir -p "$target_dir/sanitize-llama"
build=$(cd "$target_dir/sanitize-llama" && pwd)

# Where the program's own build took it from: its build script tells where it ran CMake, whose cache says.
root=$(sed -n 's/^cargo:root=//p' "$target_dir"/release/build/llama-cpp-sys-4-*/output 2>/dev/null | head -n 1)
source=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$root/build/CMakeCache.txt" 2>/dev/null || true)
[ -f "$source/CMakeLists.txt" ] || {
    echo 'sanitize-llama.sh: the source of llama.cpp is not here yet: make build' >&2
    exit 1
}

# Kernels read blocks of numbers at any address, which the processors allow; everything else counts.
sanitize='-fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=undefined'
flags="-O1 -g1 -fno-omit-frame-pointer $sanitize"
cmake -S "$source" -B "$build/cmake" -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" \
    -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=ON -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF >"$build/cmake.log"
cmake --build "$build/cmake" --target llama -j "${JOBS:-1}" >>"$build/cmake.log"
libraries=$(find "$build/cmake" -name 'lib*.a')
# shellcheck disable=SC2086 # lists of words; in a group, because they refer to each other
c++ -std=c++17 $flags -I "$source/include" -I "$source/ggml/include" fuzz/llama/load.cpp \
    -Wl,--start-group $libraries -Wl,--end-group -lpthread -ldl -o "$build/load"
[ "$files" != 0 ] || exit 0

mutants=$build/mutants
rm -rf "$mutants"
mkdir -p "$mutants"
# shellcheck disable=SC2086 # a list of words
HYPURA_HOSTILE_SEED=$seed HYPURA_HOSTILE_FILES=$files HYPURA_HOSTILE_KEEP=$mutants ./scripts/cargo.sh test --release \
    --package hypura --test hostile ${CARGO_FLAGS:-} -- --ignored --exact hostile_files_for_sanitizers

ASAN_OPTIONS=exitcode=99:detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048:hard_rss_limit_mb=3072
UBSAN_OPTIONS=exitcode=99:print_stacktrace=1
export ASAN_OPTIONS UBSAN_OPTIONS
exec "$build/load" "$mutants"/*.gguf
