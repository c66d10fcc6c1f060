#!/bin/sh
# The tests of hypura-storage, where memory is lent to the kernel and to readers, under AddressSanitizer with its leak check.
# Arguments go to the test programs.
#
# The stable compiler knows the switch but does not offer it: RUSTC_BOOTSTRAP unlocks it, so nothing but the pinned
# toolchain is needed. Not under it: hypura-ggml, whose C++ would have to be built a second time.
set -eu
cd "$(dirname "$0")/.."
target_dir=${CARGO_TARGET_DIR:-target}/sanitize
host=$(./scripts/cargo.sh -vV | sed -n 's/^host: //p')

suppressions=$target_dir/leaks.txt
mkdir -p "$target_dir"
# These tests forget a reader, to see that its memory outlives it.
echo 'leak:a_forgotten_reader_' >"$suppressions"

export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address -Cforce-frame-pointers=yes'
LSAN_OPTIONS="suppressions=$(cd "$target_dir" && pwd)/leaks.txt:print_suppressions=0"
export LSAN_OPTIONS
# shellcheck disable=SC2086 # a list of words
exec ./scripts/cargo.sh test --release --package hypura-storage --lib --tests --target "$host" --target-dir "$target_dir" \
    ${CARGO_FLAGS:-} -- "$@"
