#!/bin/sh
# Tests of scripts/build.sh with a stand-in for cargo and a target folder of its own. Nothing is built.
#
# Usage: sh scripts/tests/build.sh
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0 tests=0

CARGO_TARGET_DIR=$work/target LIBCLANG_PATH=/none PATH=$work/bin:$PATH
export CARGO_TARGET_DIR LIBCLANG_PATH PATH

# $1: what was to be seen; then a command that tells whether it was.
check() {
    tests=$((tests + 1))
    what=$1
    shift
    if "$@"; then return; fi
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$what" >&2
    cat "$work/out" >&2
}

# Runs the script; its output is in $work/out, its exit status in $status.
build() {
    status=0
    sh "$here/build.sh" "$@" >"$work/out" 2>&1 || status=$?
}

said() { grep -q -e "$1" "$work/out"; }
quiet() { [ ! -s "$work/out" ]; }
ended() { [ "$status" -eq "$1" ]; }

mkdir -p "$work/bin"
# shellcheck disable=SC2016 # variables of the script that is written
printf '#!/bin/sh\necho "cargo $*"\nexit "${CARGO_STATUS:-0}"\n' >"$work/bin/cargo"
chmod +x "$work/bin/cargo"

build --bin hypura
check 'the first build says what it takes' said 'minutes of processor time'
check 'cargo gets the arguments' said '^cargo build --release --bin hypura$'
check 'and succeeds' ended 0
CARGO_STATUS=101 build
check 'what cargo says counts' ended 101

mkdir -p "$work/target/release"
printf '#!/bin/sh\n' >"$work/target/release/hypura"
chmod +x "$work/target/release/hypura"
build
check 'a later build says nothing of that' sh -c "! grep -q minutes '$work/out'"

build --progress
check 'before there is anything there is no progress' quiet
objects=$work/target/release/build/llama-cpp-sys-4-0123/out/build/src/CMakeFiles/llama.dir
mkdir -p "$objects"
for name in a b c; do
    printf 'src/%s.o: src/flags.make\nsrc/%s.o: /x/%s.cpp\n\t@echo\n' "$name" "$name" "$name"
done >"$objects/build.make"
: >"$objects/a.o"
build --progress
check 'files are counted once each' said '^llama.cpp: 1 of 3 files compiled$'
: >"$objects/b.o"
: >"$objects/c.o"
build --progress
check 'what is done is not told' quiet

printf '%s of %s checks of scripts/build.sh passed\n' "$((tests - failures))" "$tests"
[ "$failures" -eq 0 ]
