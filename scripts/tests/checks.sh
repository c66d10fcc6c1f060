# For tests to read in: a folder $work that goes when they end, and `check COMMAND...`, which counts failures.
# shellcheck shell=sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

check() {
    if "$@" >"$work/out" 2>&1; then return; fi
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$*" >&2
    tail -n 20 "$work/out" | sed 's/^/    /' >&2
}
