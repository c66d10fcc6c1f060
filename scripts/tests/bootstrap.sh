#!/bin/sh
# Tests of scripts/bootstrap.sh, scripts/gpu.sh and scripts/cargo.sh: the real scripts, with a PATH that holds only stand-ins
# and with BOOTSTRAP_ROOT in place of the machine's folders. Nothing is installed.
#
# Usage: sh scripts/tests/bootstrap.sh     (SHELL_UNDER_TEST=/bin/bash picks another shell)
# shellcheck disable=SC2016 # the stand-ins expand their variables, not this script
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
shell=${SHELL_UNDER_TEST:-/bin/sh}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir_path=$(command -v mkdir) env_path=$(command -v env) dirname_path=$(command -v dirname) cat_path=$(command -v cat)
failures=0 tests=0

# Makes an empty machine: $1 is what uname says, $2 the user id.
machine() {
    rm -rf "${work:?}"/*
    mkdir -p "$work/bin" "$work/root" "$work/home"
    stub uname "echo $1"
    stub id "echo $2"
    ln -s "$env_path" "$work/bin/env"
    : >"$work/log"
}

# A program of the fake PATH: $1 name, $2 what it does.
stub() {
    printf '#!/bin/sh\n%s\n' "$2" >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}

tools() { for tool in "$@"; do stub "$tool" 'exit 0'; done; }

file() {
    mkdir -p "$(dirname "$work/root$1")"
    : >"$work/root$1"
}

debian_libclang() {
    file /usr/lib/llvm-14/lib/libclang.so.1
    file /usr/lib/llvm-14/lib/clang/14.0.6/include/stddef.h
}

# A package manager that logs its arguments and, when it installs, brings everything.
manager() {
    stub "$1" "echo \"$1 \$*\" >>$work/log
case \" \$* \" in *' install '* | *' -S '*)
    for tool in cc c++ make cmake patch; do printf '#!/bin/sh\n' >$work/bin/\$tool; done
    $(command -v chmod) +x $work/bin/*
    $mkdir_path -p $work/root/usr/lib/llvm-14/lib/clang/14/include $work/root/opt/homebrew/opt/llvm/lib
    : >$work/root/usr/lib/llvm-14/lib/libclang.so
    : >$work/root/usr/lib/llvm-14/lib/clang/14/include/stddef.h
    : >$work/root/opt/homebrew/opt/llvm/lib/libclang.dylib ;;
esac"
}

# Runs $shell on script $1 of scripts/ with the remaining arguments on the fake machine. Variables that the
# test wants set are in $with.
with=
run() {
    script=$1
    shift
    status=0
    # shellcheck disable=SC2086 # $with is a list of assignments
    # Not the target folder of this checkout, where headers may have been fetched to.
    "$env_path" -i PATH="$work/bin" HOME="$work/home" BOOTSTRAP_ROOT="$work/root" CARGO_TARGET_DIR="$work/target" $with \
        "$shell" "$here/$script" "$@" >"$work/out" 2>"$work/err" || status=$?
}

fail() {
    failures=$((failures + 1))
    printf 'FAILED %s: %s\n' "$name" "$1" >&2
    sed 's/^/    /' "$work/out" "$work/err" "$work/log" >&2
}

begin() { name=$1 with='' tests=$((tests + 1)); }
status_is() { [ "$status" = "$1" ] || fail "exit status $status, not $1"; }
silent() { [ -z "$(cat "$work/out" "$work/err")" ] || fail 'it printed something'; }
log_is() { [ "$(cat "$work/log")" = "$1" ] || fail "package manager calls are not: $1"; }
prints() { grep -qF -- "$1" "$work/out" "$work/err" || fail "it does not print: $1"; }
never_prints() { ! grep -qF -- "$1" "$work/out" "$work/err" || fail "it prints: $1"; }

begin 'nothing missing: silent, no package manager'
machine Linux 0
tools cc c++ make cmake
manager apt-get
debian_libclang
run bootstrap.sh
status_is 0
silent
log_is ''

begin 'root with apt-get: update, then install everything that is missing'
machine Linux 0
manager apt-get
run bootstrap.sh
status_is 0
log_is "apt-get update
apt-get install -y --no-install-recommends build-essential make cmake libclang-dev"

begin 'only what is missing is installed'
machine Linux 0
tools cc c++ make
manager apt-get
debian_libclang
run bootstrap.sh
status_is 0
log_is "apt-get update
apt-get install -y --no-install-recommends cmake"

begin 'a user whose sudo asks nothing'
machine Linux 1000
tools cc c++ make cmake
manager apt-get
stub sudo '[ "$1" = -n ] && shift; [ "$1" = true ] || exec "$@"'
run bootstrap.sh
status_is 0
log_is "apt-get update
apt-get install -y --no-install-recommends libclang-dev"

begin 'a user whose sudo wants a password: the exact commands, status 1'
machine Linux 1000
tools cc c++ make
manager apt-get
stub sudo 'exit 1'
run bootstrap.sh
status_is 1
log_is ''
prints 'cmake libclang'
prints '    sudo apt-get update'
prints '    sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends cmake libclang-dev'

begin 'a user without sudo: the same'
machine Linux 1000
manager dnf
run bootstrap.sh
status_is 1
log_is ''
prints '    sudo dnf install -y gcc gcc-c++ make cmake clang-devel'

begin 'dnf as root'
machine Linux 0
manager dnf
run bootstrap.sh
status_is 0
log_is 'dnf install -y gcc gcc-c++ make cmake clang-devel'

begin 'pacman as root'
machine Linux 0
manager pacman
run bootstrap.sh
status_is 0
log_is 'pacman -S --needed --noconfirm gcc make cmake clang'

begin 'no package manager: says what is needed, status 1'
machine Linux 0
tools cc c++ make
run bootstrap.sh
status_is 1
prints 'the build needs: cmake libclang'

begin 'a package manager that fails: status 1'
machine Linux 0
stub apt-get "echo 'E: no network' >&2; exit 100"
run bootstrap.sh
status_is 1
prints 'E: no network'
prints 'The package manager failed'

begin 'packages that bring nothing: status 1, not a build that fails later'
machine Linux 0
stub apt-get 'exit 0'
run bootstrap.sh
status_is 1
prints 'still not found'

begin 'a compiler for C but not for C++'
machine Linux 0
tools cc make cmake
manager apt-get
debian_libclang
run bootstrap.sh
log_is "apt-get update
apt-get install -y --no-install-recommends build-essential"

begin 'libclang-cpp is not libclang'
machine Linux 0
tools cc c++ make cmake
manager apt-get
file /usr/lib/x86_64-linux-gnu/libclang-cpp.so.14
file /usr/lib/llvm-14/lib/clang/14/include/stddef.h
run bootstrap.sh
prints 'missing: libclang;'

begin 'libclang without the headers of clang is not enough'
machine Linux 0
tools cc c++ make cmake
manager apt-get
file /usr/lib/x86_64-linux-gnu/libclang-14.so.1
run bootstrap.sh
prints 'missing: libclang;'

begin 'libclang of Fedora'
machine Linux 0
tools cc c++ make cmake
file /usr/lib64/libclang.so
file /usr/lib/clang/19/include/stddef.h
run bootstrap.sh
status_is 0
silent

begin 'libclang only through llvm-config'
machine Linux 0
tools cc c++ make cmake
file /opt/llvm/lib/libclang.so
file /opt/llvm/lib/clang/19/include/stddef.h
stub llvm-config "echo $work/root/opt/llvm"
run bootstrap.sh
status_is 0
silent

begin 'LIBCLANG_PATH names a folder'
machine Linux 0
tools cc c++ make cmake
file /somewhere/libclang.so
with="LIBCLANG_PATH=$work/root/somewhere"
run bootstrap.sh
status_is 0
silent

begin 'LIBCLANG_PATH names a folder without it: nothing to install'
machine Linux 0
tools cc c++ make cmake
manager apt-get
debian_libclang
with="LIBCLANG_PATH=$work/root/nowhere"
run bootstrap.sh
status_is 1
log_is ''
prints 'correct or unset it'

begin 'patch is needed only by those who ask the llama.cpp crate to call it'
machine Linux 0
tools cc c++ make cmake
manager apt-get
debian_libclang
with=LLAMA_PATCH_ENGINE=cli
run bootstrap.sh
status_is 0
log_is "apt-get update
apt-get install -y --no-install-recommends patch"

begin 'a Mac without the command line tools: how to get them, no brew'
machine Darwin 501
tools cc c++ make cmake
manager brew
stub xcode-select 'exit 2'
run bootstrap.sh
status_is 1
log_is ''
prints 'xcode-select --install'

begin 'a Mac with the command line tools lacks only cmake; brew without sudo'
machine Darwin 501
tools cc c++ make
manager brew
stub xcode-select 'echo /Library/Developer/CommandLineTools'
file /Library/Developer/CommandLineTools/usr/lib/libclang.dylib
run bootstrap.sh
status_is 0
log_is 'brew install cmake'

begin 'a Mac without brew: where to get it'
machine Darwin 501
tools cc c++ make
stub xcode-select 'echo /Library/Developer/CommandLineTools'
file /Library/Developer/CommandLineTools/usr/lib/libclang.dylib
run bootstrap.sh
status_is 1
prints 'https://brew.sh'

begin '--libclang names the folder that bindgen does not search'
machine Darwin 501
tools cc c++ make cmake
stub xcode-select 'echo /Library/Developer/CommandLineTools'
file /opt/homebrew/opt/llvm/lib/libclang.dylib
run bootstrap.sh --libclang
status_is 0
[ "$(cat "$work/out")" = "$work/root/opt/homebrew/opt/llvm/lib" ] || fail 'another folder'

begin '--libclang is silent when bindgen finds it'
machine Linux 0
debian_libclang
run bootstrap.sh --libclang
status_is 0
silent

begin 'clients: nothing missing: silent, no package manager'
machine Linux 0
tools python3 node npm
manager apt-get
run bootstrap.sh --clients
status_is 0
silent
log_is ''

begin 'clients: what is missing is installed; a Python without venv or too old counts as missing'
machine Linux 0
stub python3 'exit 1'
stub apt-get "echo \"apt-get \$*\" >>$work/log
for tool in python3 node npm; do printf '#!/bin/sh\n' >$work/bin/\$tool; $(command -v chmod) +x $work/bin/\$tool; done"
run bootstrap.sh --clients
status_is 0
log_is "apt-get update
apt-get install -y --no-install-recommends python3 python3-venv nodejs npm"

begin 'clients: brew brings npm with node'
machine Darwin 501
tools python3
stub brew "echo \"brew \$*\" >>$work/log
for tool in node npm; do printf '#!/bin/sh\n' >$work/bin/\$tool; $(command -v chmod) +x $work/bin/\$tool; done"
run bootstrap.sh --clients
status_is 0
log_is 'brew install node'

begin 'clients: a Python that stays too old: status 1'
machine Linux 0
tools node npm
stub python3 'exit 1'
stub apt-get "echo \"apt-get \$*\" >>$work/log"
run bootstrap.sh --clients
status_is 1
prints 'needs: python'

begin 'clients: without the right to install: the exact commands, status 1'
machine Linux 1000
tools python3 node
manager dnf
run bootstrap.sh --clients
status_is 1
log_is ''
prints 'make test needs: npm'
prints '    sudo dnf install -y npm'

begin 'ui: a browser of another name will do: silent'
machine Linux 0
tools node npm google-chrome
manager apt-get
run bootstrap.sh --ui
status_is 0
silent
log_is ''

begin 'ui: Chromium is installed where there is no browser'
machine Linux 0
tools node npm
stub apt-get "echo \"apt-get \$*\" >>$work/log
printf '#!/bin/sh\n' >$work/bin/chromium; $(command -v chmod) +x $work/bin/chromium"
run bootstrap.sh --ui
status_is 0
log_is "apt-get update
apt-get install -y --no-install-recommends chromium"

begin 'an unknown argument is a mistake of usage'
machine Linux 0
run bootstrap.sh --help-me
status_is 2

# cargo.sh
cargo_machine() {
    machine "$1" 0
    debian_libclang
    ln -s "$dirname_path" "$work/bin/dirname"
    ln -s "$cat_path" "$work/bin/cat"
}

begin 'cargo of PATH'
cargo_machine Linux
stub cargo 'echo "in PATH: $*"'
run cargo.sh build --release
status_is 0
prints 'in PATH: build --release'

begin 'cargo of ~/.cargo/bin, whose folder goes into PATH'
cargo_machine Linux
mkdir -p "$work/home/.cargo/bin"
stub ../home/.cargo/bin/cargo 'echo "$PATH"'
run cargo.sh build
status_is 0
prints "$work/home/.cargo/bin:"

begin 'cargo of CARGO_HOME'
cargo_machine Linux
mkdir -p "$work/elsewhere/bin"
stub ../elsewhere/bin/cargo 'echo elsewhere'
with="CARGO_HOME=$work/elsewhere"
run cargo.sh build
status_is 0
prints elsewhere

begin 'no cargo: how to get it, status 1'
cargo_machine Linux
run cargo.sh build
status_is 1
prints 'https://sh.rustup.rs'

begin 'cargo knows of a libclang that bindgen does not find'
cargo_machine Darwin
stub xcode-select 'exit 2'
file /opt/homebrew/opt/llvm/lib/libclang.dylib
stub cargo 'echo "libclang=$LIBCLANG_PATH"'
run cargo.sh build
prints "libclang=$work/root/opt/homebrew/opt/llvm/lib"

begin 'cargo does not see a job server that is closed to it'
cargo_machine Linux
stub cargo 'echo "flags=${MAKEFLAGS-none}"'
with='MAKEFLAGS=-j4'
run cargo.sh build
prints 'flags=none'
never_prints 'flags=-j4'

vulkan_headers() {
    file /usr/include/vulkan/vulkan.hpp
    printf '%s\n' '#define VK_HEADER_VERSION 1' \
        "#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, $1, VK_HEADER_VERSION)" \
        >"$work/root/usr/include/vulkan/vulkan_core.h"
}

vulkan_toolchain() {
    tools glslc
    file /usr/lib/x86_64-linux-gnu/libvulkan.so
    file /usr/share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake
    file /usr/share/vulkan/icd.d/driver.json
}

begin 'no GPU: none, whatever toolchain is there'
machine Linux 0
vulkan_toolchain
vulkan_headers 4
run gpu.sh choose auto
status_is 0
prints 'GPU backend: none (no GPU is here)'
run gpu.sh features auto
silent

begin 'a GPU and all that Vulkan needs: vulkan'
machine Linux 0
vulkan_toolchain
vulkan_headers 4
file /dev/dri/renderD128
run gpu.sh choose auto
prints 'GPU backend: vulkan'
run gpu.sh features auto
prints '--features vulkan'

begin 'a GPU, but old headers: none, and how to get them'
machine Linux 0
vulkan_toolchain
vulkan_headers 3
file /dev/kfd
run gpu.sh choose auto
status_is 0
prints 'GPU backend: none'
prints 'GPU=vulkan installs that'

begin 'an NVIDIA driver and nvcc: cuda'
machine Linux 0
tools nvcc
file /proc/driver/nvidia/version
run gpu.sh features auto
prints '--features cuda'

begin 'GPU=cuda without nvcc: an error'
machine Linux 0
run gpu.sh choose cuda
status_is 1
prints 'nvcc'

begin 'GPU=none beats what is found, and a wrong word is an error'
machine Linux 0
tools nvcc
file /proc/driver/nvidia/version
run gpu.sh features none
silent
run gpu.sh features fast
status_is 2
prints 'GPU=fast is not known'

begin 'a Mac has Metal without a feature'
machine Darwin 0
run gpu.sh features auto
silent

begin 'what Vulkan lacks is installed by the names of the package manager'
machine Linux 0
vulkan_headers 4
stub apt-get "echo \"apt-get \$*\" >>$work/log
case \" \$* \" in *' install '*)
    printf '#!/bin/sh\n' >$work/bin/glslc
    $(command -v chmod) +x $work/bin/glslc
    $mkdir_path -p $work/root/usr/lib $work/root/usr/share/cmake/SPIRV-Headers $work/root/usr/share/vulkan/icd.d
    : >$work/root/usr/lib/libvulkan.so
    : >$work/root/usr/share/vulkan/icd.d/driver.json ;;
esac"
run bootstrap.sh --vulkan
log_is "apt-get update
apt-get install -y --no-install-recommends glslc libvulkan-dev spirv-headers mesa-vulkan-drivers"

begin 'old headers and no way to fetch newer ones: what to do, status 1'
machine Linux 0
vulkan_toolchain
vulkan_headers 3
run bootstrap.sh --vulkan
status_is 1
prints 'set VULKAN_SDK'

printf '%s tests of the build scripts, %s failed\n' "$tests" "$failures"
[ "$failures" = 0 ]
