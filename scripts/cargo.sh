#!/bin/sh
# Runs cargo for the Makefile and the CI: finds it where rustup puts it when PATH does not have it, and tells
# bindgen where libclang is when that is a place that it does not search.
#
# Usage: cargo.sh ARGUMENT...   as for cargo
set -eu

folder=${CARGO_HOME:-${HOME:-}/.cargo}/bin
if ! command -v cargo >/dev/null 2>&1; then
    if [ ! -x "$folder/cargo" ]; then
        cat >&2 <<'MESSAGE'
cargo not found, neither in PATH nor in ~/.cargo/bin. Install the Rust toolchain and run the same command again:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
rustup then fetches the version that rust-toolchain.toml names.
MESSAGE
        exit 1
    fi
    # In PATH, because cargo itself looks for rustc, cargo-fmt and cargo-clippy there.
    PATH=$folder:$PATH
    export PATH
fi

if [ -z "${LIBCLANG_PATH:-}" ]; then
    libclang=$("$(dirname "$0")/bootstrap.sh" --libclang)
    if [ -n "$libclang" ]; then
        LIBCLANG_PATH=$libclang
        export LIBCLANG_PATH
    fi
fi

# The headers that `bootstrap.sh --vulkan` fetched where the system's are too old.
if [ -z "${VULKAN_SDK:-}" ] && [ -d "${CARGO_TARGET_DIR:-target}/vulkan-sdk/include" ]; then
    VULKAN_SDK=$(cd "${CARGO_TARGET_DIR:-target}/vulkan-sdk" && pwd)
    export VULKAN_SDK
fi

# make's job server is closed to a recipe that is not a recursive make; cargo and cmake would complain and then
# build with one job.
unset MAKEFLAGS MFLAGS MAKELEVEL

exec cargo "$@"
