#!/bin/sh
# Reproduces the figures of the README: makes the 17 GB qwen3-30b-a3b shape, measures it in memory groups of several
# sizes against llama.cpp over its own mapping, and deletes it again.
#
#   sudo benchmarks/run.sh [FOLDER]     FOLDER: on the disk to measure, with 18 GB free; default: this folder
#
# Root is needed for the memory groups and for the read-ahead of the disk. Results go to benchmarks/results/, one file
# for each size. Settings, all optional:
#   CAPS="6G 8G 10G"   sizes of the memory groups       PAIRS=5    rounds
#   PROMPT=128         tokens of the prompt             GEN=64     tokens decoded and measured
#   ROUTES=trace.gz    also measure with forced routes  MODEL=file.gguf   an existing model; it is kept
#   HYPURA=path        the program                      NAME=machine      begins the names of the results
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=${1:-$here}
hypura=${HYPURA:-$here/../target/release/hypura}
name=${NAME:-$(uname -n)}
results=$here/results

fail() { echo "run.sh: $1" >&2; exit 1; }

[ -x "$hypura" ] || fail "$hypura is not there: build it with 'make build', or name it in HYPURA"
[ "$(id -u)" = 0 ] || fail "memory groups and the disk's read-ahead need root: run it with sudo"

made=
if [ -n "${MODEL:-}" ]; then
    [ -f "$MODEL" ] || fail "$MODEL is no file"
else
    MODEL=$folder/hypura-bench-qwen3-30b-a3b-Q4_K.gguf
    made=$MODEL
    # Also on Ctrl-C: 17 GB are not left behind.
    trap 'rm -f -- "$made"' EXIT
    trap 'exit 130' INT TERM HUP
    "$hypura" synth qwen3-30b-a3b --quant Q4_K --out "$MODEL"
fi

mkdir -p "$results"
measure() { # CAP SUFFIX FLAG…
    cap=$1 suffix=$2
    shift 2
    echo "== $cap$suffix" >&2
    "$hypura" bench "$MODEL" --memcap "$cap" --against mmap --pairs "${PAIRS:-5}" \
        --prompt "${PROMPT:-128}" --gen "${GEN:-64}" --markdown \
        --json "$results/$name-qwen3-30b-a3b-$cap$suffix.json" "$@"
}

for cap in ${CAPS:-6G 8G 10G}; do
    measure "$cap" ""
    [ -z "${ROUTES:-}" ] || measure "$cap" "-routes" --routes "$ROUTES"
done

python3 "$here/plot.py" "$results" -o "$here/decode.svg"
