#!/bin/sh
# Builds the hypura program: says beforehand what the first build takes, and while llama.cpp is compiled, of which cargo
# shows nothing, how far it is.
#
# Usage: build.sh [ARGUMENT...]   as for `cargo build --release`
#        build.sh --progress      print how many files of llama.cpp are compiled, and of how many, if any are to be
set -eu

here=$(dirname "$0")
target=${CARGO_TARGET_DIR:-target}/release

# Processor time of everything from nothing, in minutes, as measured on two cores of a Xeon.
minutes=22
# Seconds between two lines.
pause=15

say() { printf 'build: %s\n' "$*" >&2; }

# Objects as cmake's makefiles list them, and those that are there.
progress() {
    for build in "$target"/build/llama-cpp-sys-4-*/out/build; do
        [ -d "$build" ] || continue
        all=$(find "$build" -name build.make -exec sed -n 's/^\([^ ]*\.o\): .*/\1/p' {} + | sort -u | wc -l)
        compiled=$(find "$build" -name '*.o' | wc -l)
        [ "$compiled" -lt "$all" ] && echo "llama.cpp: $((compiled)) of $((all)) files compiled"
    done
    return 0
}

watch() {
    before=
    # Nobody who reads this script's output waits for a sleep that outlives it.
    while sleep "$pause" 2>/dev/null; do
        now=$(progress 2>/dev/null)
        [ -z "$now" ] || [ "$now" = "$before" ] || say "$now"
        before=$now
    done
}

if [ "${1:-}" = --progress ]; then
    progress
    exit
fi

if [ ! -x "$target/hypura" ]; then
    cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
    say "the first build compiles llama.cpp and Hypura: about $minutes minutes of processor time, more with a GPU," \
        "so about $(((minutes + cores - 1) / cores)) minutes here ($cores processors); later ones take seconds"
fi
watch >/dev/null &
watcher=$!
trap 'kill "$watcher" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
"$here/cargo.sh" build --release "$@"
