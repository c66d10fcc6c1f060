#!/bin/sh
# Every fuzz target for a while: those in fuzz/ with AddressSanitizer, and the tests that make requests, schemas and messages
# of runners without end.
#
# Usage: fuzz.sh [SECONDS]   so long each, 40 by default
#
# Requests, schemas and messages have no target in fuzz/, because what reads them is linked with llama.cpp, which would have to
# be built a second time with other flags. They are made by proptest, of what the formats consist of, in the test programs.
#
# The stable compiler knows the switches but does not offer them: RUSTC_BOOTSTRAP unlocks them, so that nothing but the
# pinned toolchain is needed, and no cargo-fuzz. A target begins with the inputs in fuzz/seeds/TARGET, if there are any.
# What it has learnt stays in its corpus; an input that fails is kept and named.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-40}
target_dir=${CARGO_TARGET_DIR:-target}/fuzz
host=$(./scripts/cargo.sh -vV | sed -n 's/^host: //p')

# What cargo-fuzz passes: coverage that libFuzzer is guided by.
coverage='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters'
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTC_BOOTSTRAP=1
RUSTFLAGS="-Zsanitizer=address -Ccodegen-units=1 --cfg fuzzing $coverage"
export RUSTFLAGS
# shellcheck disable=SC2086 # a list of words
./scripts/cargo.sh build --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$target_dir" ${CARGO_FLAGS:-}

for source in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    corpus=$target_dir/corpus/$name
    failed=$target_dir/failed/$name
    mkdir -p "$corpus" "$failed"
    seeds=fuzz/seeds/$name
    [ -d "$seeds" ] || seeds=
    log=$target_dir/$name.log
    if "$target_dir/$host/release/$name" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 \
        -print_final_stats=1 -artifact_prefix="$failed/" "$corpus" ${seeds:+"$seeds"} >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        printf '%-12s %s runs in %s s, nothing found\n' "$name" "$runs" "$seconds"
    else
        tail -40 "$log"
        printf '%s FAILED: the input is in %s, all output in %s\n' "$name" "$failed" "$log" >&2
        exit 1
    fi
done

# The flags above are for the targets alone: with others, the tests and llama.cpp would be built anew.
unset RUSTC_BOOTSTRAP RUSTFLAGS
endless() {
    name=$1
    shift
    log=${CARGO_TARGET_DIR:-target}/fuzz/$name.log
    # shellcheck disable=SC2086 # a list of words
    if HYPURA_FUZZ_SECONDS=$seconds ./scripts/cargo.sh test --release ${CARGO_FLAGS:-} "$@" --nocapture >"$log" 2>&1; then
        printf '%-12s %s in %s s, nothing found\n' "$name" "$(grep -E '^[0-9]+ (rounds|schemas|streams)' "$log" | tr '\n' ' ')" "$seconds"
    else
        tail -40 "$log"
        printf '%s FAILED: all output in %s\n' "$name" "$log" >&2
        exit 1
    fi
}
endless requests -p hypura-server --test server -- fuzz::http_any_value
endless schemas -p hypura-ggml --lib -- any_schema_is_compiled
endless messages -p hypura-server --lib -- no_runner_harms_the_server
