#!/bin/sh
# Runs the scripts of benchmarks/ on the results that are committed, so that none of them can rot unseen: the chart is
# drawn anew, targets are judged, shell scripts are read by the shell and show their usage.
#
# Usage: sh scripts/tests/benchmarks.sh
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0 tests=0

# Runs a command that must succeed; its output stays in $work/out.
check() {
    tests=$((tests + 1))
    if "$@" >"$work/out" 2>&1; then return; fi
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$*" >&2
    cat "$work/out" >&2
}

# Whether the last output, or the file $2, has a line with $1.
holds() {
    tests=$((tests + 1))
    if grep -q -e "$1" "${2:-$work/out}"; then return; fi
    failures=$((failures + 1))
    printf 'FAILED: no %s in %s\n' "$1" "${2:-the last output}" >&2
}

# The usage of a script is an answer to a wrong call.
usage() {
    if "$@"; then return 1; else [ $? -eq 2 ]; fi
}

for script in run.sh suite.sh reflink-image.sh; do
    check sh -n "$here/benchmarks/$script"
done
check usage "$here/benchmarks/suite.sh" --help
holds 'qwen3-6G'
check usage "$here/benchmarks/reflink-image.sh"
holds 'reflink-image.sh make'

if ! command -v python3 >/dev/null 2>&1; then
    echo "benchmarks: $tests tests; python3 is not here, so plot.py and verdict.py were not run"
    [ "$failures" -eq 0 ] || exit 1
    exit 0
fi

results=$here/benchmarks/results
check python3 "$here/benchmarks/plot.py" "$results" -o "$work/decode.svg"
holds '</svg>' "$work/decode.svg"
# A bar for each of the two arms of each committed result.
holds 'class="mmap"' "$work/decode.svg"
# A value stands in its bar or at its end, and a limit says that it is one.
holds 'class="inside"[^>]*>5.47<' "$work/decode.svg"
holds 'class="value"[^>]*>1.06<' "$work/decode.svg"
holds '>limit 6.85<' "$work/decode.svg"
check python3 -c "import sys, xml.dom.minidom as x; x.parse(sys.argv[1])" "$work/decode.svg"
for cap in 6G 10G; do
    file=$results/epyc-2-qwen3-30b-a3b-q4k-$(printf %s "$cap" | tr G g).json
    check python3 "$here/benchmarks/verdict.py" "qwen3-$cap" "$file"
    holds 'efficiency'
done
check python3 "$here/benchmarks/verdict.py" prediction "$results"/*.json
# Where nothing is read, or nothing computed, there is nothing to lose; where both take time, knowing nothing costs.
check python3 "$here/benchmarks/pipeline.py" --tokens 3 --miss 0
holds 'nothing .* limit 1.00'
check python3 "$here/benchmarks/pipeline.py" --tokens 3 --miss 1 --attention 0 --experts 0 --head 0 --latency 0 --knowledge nothing
holds 'limit \(1.00\|0.99\)'
check python3 "$here/benchmarks/pipeline.py" --tokens 3 --knowledge nothing
holds 'limit 0.[56]'

echo "benchmarks: $tests tests, $failures failed"
[ "$failures" -eq 0 ]
