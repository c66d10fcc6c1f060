#!/bin/sh
# Installs what the build of Hypura lacks: cmake, make, a C and C++ compiler, and libclang (for bindgen).
#
# Silent, and without a call to a package manager, when nothing is missing. Otherwise it installs through
# apt-get, dnf, pacman or brew, as root or with a sudo that asks nothing; without those rights it prints the
# command to run and exits 1. The Rust toolchain is not its business: see scripts/cargo.sh.
#
# Usage: bootstrap.sh              install what is missing
#        bootstrap.sh --clients    install what scripts/test-clients needs: Python 3.11 with venv, Node and npm
#        bootstrap.sh --ui         install what scripts/test-ui needs: Node, npm and Chromium
#        bootstrap.sh --vulkan     install what a build with GPU=vulkan needs beside that, and a driver to test it with
#        bootstrap.sh --libclang   print the folder of a libclang that bindgen would not find by itself, if any
#
# POSIX sh, and of other programs only uname and id, so that the tests can run it with a PATH of stand-ins.
# BOOTSTRAP_ROOT (tests only) is put before every absolute folder that is searched.
set -eu

root=${BOOTSTRAP_ROOT:-}
system=$(uname -s)

have() { command -v "$1" >/dev/null 2>&1; }

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# Is any of these files there? Called with unexpanded patterns too, which are no files. libclang-cpp is the
# C++ interface, another library.
any_libclang() {
    for candidate in "$@"; do
        case $candidate in *-cpp.*) continue ;; esac
        [ -f "$candidate" ] && return 0
    done
    return 1
}

# The file names that clang-sys, which bindgen uses, takes for libclang.
libclang_in() {
    if [ "$system" = Darwin ]; then
        any_libclang "$1"/libclang.dylib
    else
        any_libclang "$1"/libclang.so "$1"/libclang-*.so "$1"/libclang.so.* "$1"/libclang-*.so.*
    fi
}

# libclang without clang's own stddef.h parses nothing; Debian ships the two in different packages.
clang_headers_exist() {
    [ "$system" = Darwin ] && return 0
    for header in "$root"/usr/lib*/llvm*/lib*/clang/*/include/stddef.h "$root"/usr/lib*/clang/*/include/stddef.h \
        "$root"/usr/local/lib*/clang/*/include/stddef.h "$root"/usr/local/llvm*/lib*/clang/*/include/stddef.h; do
        [ -f "$header" ] && return 0
    done
    prefix=$(llvm_prefix) || return 1
    for header in "$prefix"/lib*/clang/*/include/stddef.h; do
        [ -f "$header" ] && return 0
    done
    return 1
}

llvm_prefix() {
    "${LLVM_CONFIG_PATH:-llvm-config}" --prefix 2>/dev/null
}

# Splits a list of folders at its colons.
libclang_in_list() {
    list=$1
    while [ -n "$list" ]; do
        folder=${list%%:*}
        case $list in *:*) list=${list#*:} ;; *) list= ;; esac
        [ -n "$folder" ] && libclang_in "$folder" && return 0
    done
    return 1
}

# Searches where clang-sys searches.
bindgen_finds_libclang() {
    if [ -n "${LIBCLANG_PATH:-}" ]; then
        # A file or a folder. The one who set it vouches for the headers.
        [ -f "$LIBCLANG_PATH" ] || libclang_in "$LIBCLANG_PATH"
        return
    fi
    if [ "$system" = Darwin ]; then
        developer=$(xcode-select --print-path 2>/dev/null) || developer=/Library/Developer/CommandLineTools
        for folder in "$root$developer"/Toolchains/XcodeDefault.xctoolchain/usr/lib \
            "$root"/Library/Developer/CommandLineTools/usr/lib \
            "$root"/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib \
            "$root"/usr/local/opt/llvm*/lib; do
            libclang_in "$folder" && return 0
        done
    else
        for folder in "$root"/usr/lib/llvm*/lib "$root"/usr/lib* "$root"/usr/lib*/* "$root"/usr/lib*/*/* \
            "$root"/usr/local/llvm*/lib* "$root"/usr/local/lib* "$root"/usr/local/lib*/* "$root"/usr/local/lib*/*/*; do
            libclang_in "$folder" && clang_headers_exist && return 0
        done
    fi
    if prefix=$(llvm_prefix) && [ -n "$prefix" ]; then
        for folder in "$prefix"/lib "$prefix"/lib64; do
            libclang_in "$folder" && clang_headers_exist && return 0
        done
    fi
    libclang_in_list "${LD_LIBRARY_PATH:-}:${LIBRARY_PATH:-}" && clang_headers_exist
}

# Homebrew's llvm on Apple Silicon, which clang-sys does not look at.
brew_libclang() {
    [ "$system" = Darwin ] || return 1
    libclang_in "$root/opt/homebrew/opt/llvm/lib" && printf '%s\n' "$root/opt/homebrew/opt/llvm/lib"
}

# /usr/bin/cc and /usr/bin/make of a Mac are there before the tools behind them are.
compiler_exists() {
    if [ "$system" = Darwin ]; then
        xcode-select --print-path >/dev/null 2>&1
    else
        # cc also links what rustc compiles, so CC cannot stand in for it.
        have cc && have "${CXX:-c++}"
    fi
}

# Sets `missing` to the words of what is missing.
look() {
    missing=
    compiler_exists || missing="$missing compiler"
    have make || missing="$missing make"
    have "${CMAKE:-cmake}" || missing="$missing cmake"
    bindgen_finds_libclang || brew_libclang >/dev/null || missing="$missing libclang"
    # The llama.cpp crate applies its patches itself unless it is told to call patch.
    if [ "${LLAMA_PATCH_ENGINE:-rust}" = cli ] && ! have "${LLAMA_PATCH:-patch}"; then
        missing="$missing patch"
    fi
    missing=${missing# }
}

# The same for the tests with other people's clients. A Python of Debian may come without what venv needs.
look_for_clients() {
    missing=
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        missing="$missing python"
    have node || missing="$missing node"
    have npm || missing="$missing npm"
    missing=${missing# }
}

# The same for the tests of the page: any browser of Chromium's kin will do.
look_for_ui() {
    missing=
    have node || missing="$missing node"
    have npm || missing="$missing npm"
    have chromium || have chromium-browser || have google-chrome || [ -n "${CHROMIUM:-}" ] ||
        [ -d "$root/Applications/Google Chrome.app" ] || missing="$missing chromium"
    missing=${missing# }
}

# scripts/gpu.sh knows what Vulkan needs.
look_for_vulkan() {
    missing=$("${0%/*}/gpu.sh" missing)
}

lacks() {
    case " $missing " in *" $1 "*) ;; *) return 1 ;; esac
}

find_manager() {
    for manager in apt-get dnf pacman brew; do
        have "$manager" && return 0
    done
    return 1
}

# The package of $manager that brings $1.
package() {
    case $manager:$1 in
        apt-get:compiler) printf 'build-essential' ;;
        apt-get:libclang) printf 'libclang-dev' ;;
        apt-get:vulkan-loader) printf 'libvulkan-dev' ;;
        apt-get:vulkan-driver | dnf:vulkan-driver) printf 'mesa-vulkan-drivers' ;;
        apt-get:python) printf 'python3 python3-venv' ;;
        apt-get:node | dnf:node | pacman:node) printf 'nodejs' ;;
        dnf:compiler) printf 'gcc gcc-c++' ;;
        dnf:libclang) printf 'clang-devel' ;;
        dnf:vulkan-loader) printf 'vulkan-loader-devel vulkan-headers' ;;
        dnf:spirv-headers) printf 'spirv-headers-devel' ;;
        dnf:python) printf 'python3' ;;
        pacman:compiler) printf 'gcc' ;;
        pacman:glslc) printf 'shaderc' ;;
        pacman:vulkan-loader) printf 'vulkan-icd-loader vulkan-headers' ;;
        pacman:vulkan-driver) printf 'vulkan-swrast' ;;
        pacman:libclang) printf 'clang' ;;
        brew:libclang) printf 'llvm' ;;
        # It comes with node.
        brew:npm) ;;
        *) printf '%s' "$1" ;;
    esac
}

packages() {
    list=
    for word in $missing; do
        name=$(package "$word")
        list="$list${name:+ $name}"
    done
    printf '%s' "${list# }"
}

# Runs, or with $1 = show prints, what installs $list; $2 is what goes before each command (sudo or nothing).
# shellcheck disable=SC2086 # $as and $list are lists of words
install_with() {
    run=$1 as=$2
    case $manager in
        apt-get)
            $run $as apt-get update &&
                $run $as env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $list
            ;;
        dnf) $run $as dnf install -y $list ;;
        pacman) $run $as pacman -S --needed --noconfirm $list ;;
        brew) $run brew install $list ;;
    esac
}

show() { printf '    %s\n' "$*" >&2; }

execute() {
    say "$*"
    # Standard output stays free for what make was asked for.
    "$@" >&2
}

give_up() {
    say "$who needs: $missing. $1"
    exit 1
}

install_missing() {
    # bindgen looks nowhere else when LIBCLANG_PATH is set, so that installing another one would not help.
    if lacks libclang && [ -n "${LIBCLANG_PATH:-}" ]; then
        give_up "There is no libclang at LIBCLANG_PATH=$LIBCLANG_PATH: correct or unset it."
    fi
    if [ "$system" = Darwin ] && { lacks compiler || lacks make; }; then
        give_up "Run 'xcode-select --install', then the same command again."
    fi
    find_manager ||
        give_up "None of apt-get, dnf, pacman or brew is here: install them by other means (on a Mac: https://brew.sh first)."
    list=$(packages)
    if [ "$manager" = brew ] || [ "$(id -u)" = 0 ]; then
        as=
    elif have sudo && sudo -n true >/dev/null 2>&1; then
        as="sudo -n"
    else
        say "$who needs: $missing. There is no right to install packages here; run"
        install_with show sudo
        say "and then the same command again."
        exit 1
    fi
    say "missing: $missing; installing $list"
    install_with execute "$as" || give_up "The package manager failed, see above."
}

look=look who='the build'
case ${1:-} in
    --libclang)
        bindgen_finds_libclang || brew_libclang || true
        exit 0
        ;;
    --clients) look=look_for_clients who='make test' ;;
    --ui) look=look_for_ui who='make test-ui' ;;
    --vulkan) look=look_for_vulkan who='a build with Vulkan' ;;
    '') ;;
    *)
        say "unknown argument '$1' (there are --clients, --ui, --vulkan and --libclang)"
        exit 2
        ;;
esac
$look
if [ -n "$missing" ]; then
    install_missing
    $look
    [ -z "$missing" ] || give_up "The packages were installed and it is still not found; see docs/operations.md."
fi
if [ "$look" = look_for_vulkan ]; then
    "${0%/*}/gpu.sh" headers
fi
