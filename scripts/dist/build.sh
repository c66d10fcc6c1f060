#!/bin/sh
# Builds what packages are made of: a program that runs on any processor of this architecture, with kernels for
# several kinds of them beside it. A build of its own, so llama.cpp is compiled anew the first time.
#
# Usage: build.sh   the program: $CARGO_TARGET_DIR/dist/release/hypura; its libraries: $CARGO_TARGET_DIR/dist/lib/hypura
#
# CARGO_FLAGS go to cargo; JOBS is how many compilers run at once.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/dist
export CARGO_TARGET_DIR

# On a Mac the oldest processor of its kind is what machines that build have, and ggml has no libraries for it.
if [ "$(uname -s)" = Linux ]; then
    "$here/kernels.sh" "$CARGO_TARGET_DIR/lib/hypura"
    CMAKE_TOOLCHAIN_FILE=$here/portable.cmake
    export CMAKE_TOOLCHAIN_FILE
fi
# shellcheck disable=SC2086 # lists of words
"$here/../build.sh" --package hypura --bin hypura ${JOBS:+--jobs "$JOBS"} ${CARGO_FLAGS:-}
