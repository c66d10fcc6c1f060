#!/bin/sh
# Which GPU backend is compiled in, and what it needs. macOS has Metal in every build; elsewhere `make build GPU=...`
# decides: vulkan, cuda, none, or auto, which takes a backend where both a GPU and the toolchain for it are found.
#
# Usage: gpu.sh choose WISH     print none, vulkan or cuda; say why on standard error
#        gpu.sh features WISH   print the flags that cargo needs for it; silent
#        gpu.sh missing         print what a build with Vulkan lacks, as words that bootstrap.sh knows
#        gpu.sh headers FOLDER  put current Vulkan headers into FOLDER/include where the system has none (Debian)
#
# POSIX sh; uname only, but for `headers`. BOOTSTRAP_ROOT (tests only) is put before every absolute folder.
set -eu

root=${BOOTSTRAP_ROOT:-}

have() { command -v "$1" >/dev/null 2>&1; }

say() { printf 'gpu: %s\n' "$*" >&2; }

# Is any of these there? Called with unexpanded patterns too, which are not.
any() {
    for candidate in "$@"; do
        [ -e "$candidate" ] && return 0
    done
    return 1
}

nvidia_exists() { any "$root"/proc/driver/nvidia/version "$root"/dev/dxg; }

gpu_exists() { nvidia_exists || any "$root"/dev/kfd "$root"/dev/dri/renderD*; }

nvcc_exists() { have nvcc || [ -x "${CUDACXX:-/none}" ] || [ -x "${CUDA_PATH:-$root/usr/local/cuda}/bin/nvcc" ]; }

# ggml needs headers of Vulkan 1.4; Debian 12 has 1.3.239.
headers_are_new() {
    [ -f "$1/vulkan/vulkan.hpp" ] || return 1
    while read -r define name value; do
        case "$define $name $value" in
            '#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, '[4-9]*) return 0 ;;
        esac
    done <"$1/vulkan/vulkan_core.h"
    return 1
}

# Where cargo.sh looks too.
fetched=${CARGO_TARGET_DIR:-target}/vulkan-sdk

headers_exist() {
    for include in "${VULKAN_SDK:-$fetched}/include" "$root/usr/include" "$root/usr/local/include"; do
        headers_are_new "$include" && return 0
    done
    return 1
}

# Words for what is missing, but for the headers.
missing() {
    words=
    have glslc || words="$words glslc"
    any "$root"/usr/lib*/libvulkan.so "$root"/usr/lib/*/libvulkan.so "$root"/usr/local/lib*/libvulkan.so \
        "${VULKAN_SDK:-/none}"/lib/libvulkan.so || words="$words vulkan-loader"
    any "$root"/usr/share/cmake/SPIRV-Headers "$root"/usr/lib*/cmake/SPIRV-Headers \
        "$root"/usr/local/share/cmake/SPIRV-Headers "${VULKAN_SDK:-/none}"/share/cmake/SPIRV-Headers ||
        words="$words spirv-headers"
    any "$root"/usr/share/vulkan/icd.d/*.json "$root"/etc/vulkan/icd.d/*.json "${VK_DRIVER_FILES:-/none}" ||
        words="$words vulkan-driver"
    printf '%s' "${words# }"
}

choose() {
    if [ "$(uname -s)" = Darwin ]; then
        # Cargo.toml turns Metal on there.
        choice=none why='Metal is part of every build'
        return
    fi
    case $1 in
        none | vulkan | cuda) choice=$1 why="GPU=$1" ;;
        auto)
            if nvidia_exists && nvcc_exists; then
                choice=cuda why='an NVIDIA driver and nvcc are here'
            elif gpu_exists && [ -z "$(missing)" ] && headers_exist; then
                choice=vulkan why='a GPU and all that Vulkan needs are here'
            elif gpu_exists; then
                choice=none why='a GPU is here, but not what it takes to build for it: GPU=vulkan installs that'
            else
                choice=none why='no GPU is here'
            fi
            ;;
        *)
            say "GPU=$1 is not known: there are auto, vulkan, cuda and none"
            exit 2
            ;;
    esac
    if [ "$choice" = cuda ] && ! nvcc_exists; then
        say 'GPU=cuda needs the CUDA toolkit: nvcc is neither in PATH nor under /usr/local/cuda (set CUDACXX or CUDA_PATH)'
        exit 1
    fi
}

# The newer distribution's package of headers, read by apt with lists of its own, so that the system's packages stay what
# they are; the mirror is the one that the system uses.
fetch_headers() {
    keys=/usr/share/keyrings/debian-archive-keyring.gpg suite=trixie
    if ! have apt-get || ! have dpkg-deb || [ ! -f "$keys" ]; then
        return 1
    fi
    # shellcheck disable=SC2016 # apt-get's own variable
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | {
        read -r first || first=
        printf '%s' "$first"
    })
    [ -n "$mirror" ] || return 1
    apt=$(mktemp -d)
    trap 'rm -rf "$apt"' EXIT
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    printf 'deb [signed-by=%s] %s %s main\n' "$keys" "$mirror" "$suite" >"$apt/sources.list"
    set -- -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User= -o Acquire::Retries=3
    apt-get "$@" update >&2
    (cd "$apt" && apt-get "$@" download libvulkan-dev >&2)
    dpkg-deb -x "$apt"/libvulkan-dev_*.deb "$apt/unpacked"
    mkdir -p "$fetched"
    rm -rf "$fetched/include"
    mv "$apt/unpacked/usr/include" "$fetched/include"
}

command=${1:-} wish=${2:-auto}
case $command in
    choose)
        choose "$wish"
        say "GPU backend: $choice ($why)"
        printf '%s\n' "$choice"
        ;;
    features)
        choose "$wish"
        [ "$choice" = none ] || printf '%s\n' "--features $choice"
        ;;
    missing) missing ;;
    headers)
        [ -n "${2:-}" ] && fetched=$2
        if ! headers_exist && ! fetch_headers; then
            say 'the Vulkan headers of this system are too old (1.4 is needed) and there is no way here to fetch newer ones:'
            say 'install the Vulkan SDK and set VULKAN_SDK to its folder'
            exit 1
        fi
        ;;
    *)
        say "unknown command '$command'"
        exit 2
        ;;
esac
