#!/bin/sh
# A program of scripts/dist/build.sh on other processors, by qemu's user emulation: the kernels that it takes there, and
# that the demo model answers. qemu ends a program at an instruction that the processor lacks, as the processor would.
#
# Usage: processors.sh PROGRAM LIBRARIES   LIBRARIES is a folder of libggml-cpu-*.so
set -eu

program=$(cd "$(dirname "$1")" && pwd)/${1##*/}
HYPURA_BACKENDS=$(cd "$2" && pwd)
HYPURA_DEMO=$(cd "$(dirname "$0")/../../assets/demo" && pwd)
export HYPURA_BACKENDS HYPURA_DEMO
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Profiles of machines that do not exist stay here.
XDG_CACHE_HOME=$work HOME=$work
export XDG_CACHE_HOME HOME
failures=0

answer() { "$@" run demo --threads 1 --temperature 0 -n 12 --ctx 256 'What is a lynx?'; }

# on NAME KERNELS COMMAND...: the program by that command takes those kernels, and answers.
on() {
    name=$1 kernels=$2
    shift 2
    if ! "$@" --version >"$work/out" 2>&1 || ! grep -q "kernels$kernels are for" "$work/out" ||
        ! answer "$@" >>"$work/out" 2>&1 || ! grep -q 'A lynx is a kind of wildcat' "$work/out"; then
        failures=$((failures + 1))
        echo "FAILED: $name" >&2
        sed 's/^/    /' "$work/out" >&2
        return
    fi
    echo "processors: $name answers with kernels${kernels:- that are linked}"
}

best=$("$program" --version | sed -n 's/.*its kernels\(.*\) are for a CPU.*/\1/p')
on 'this one' "$best" "$program"
if command -v qemu-x86_64 >/dev/null; then
    # The oldest x86-64 there is, one with SSE 4.2, the first with AVX, and the first with AVX2.
    on 'Opteron G1' '' qemu-x86_64 -cpu Opteron_G1 "$program"
    on Nehalem ' (sse42)' qemu-x86_64 -cpu Nehalem "$program"
    on Haswell ' (haswell)' qemu-x86_64 -cpu Haswell "$program"
    # The linked kernels need no library.
    HYPURA_BACKENDS=$work on 'Nehalem without libraries' '' qemu-x86_64 -cpu Nehalem "$program"
else
    echo "processors: no qemu-x86_64 here (Debian: qemu-user), so other processors were not tried"
fi
[ "$failures" -eq 0 ] || exit 1
echo "processors: all checks passed"
