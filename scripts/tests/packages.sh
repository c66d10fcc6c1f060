#!/bin/sh
# Packages made of a program: the archive and its installation into an empty home, up to the demo model's first words;
# the Debian package, as far as it can be judged without installing it; the bill of materials and the formula.
#
# Usage: packages.sh PROGRAM [LIBRARIES]
set -eu

program=$(cd "$(dirname "$1")" && pwd)/${1##*/}
libraries=${2:-}
[ -z "$libraries" ] || libraries=$(cd "$libraries" && pwd)
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/tests/checks.sh
. scripts/tests/checks.sh

have() { command -v "$1" >/dev/null 2>&1 || {
    echo "packages: no $1 here, so what it judges is not judged"
    return 1
}; }

contains() { grep -q -e "$1" "$2"; }

# In a home of its own, with nothing of this machine's but its system.
alone() { env -i HOME="$work/home" PATH="/usr/bin:/bin:/usr/sbin:/sbin" LANG=C.UTF-8 "$@"; }

answers() {
    alone "$1" run demo --temperature 0 -n 24 'What is a lynx?' >"$work/answer" 2>&1 || return 1
    contains 'A lynx is a kind of wildcat' "$work/answer"
}

scripts/dist/stage.sh "$program" "$libraries" "$work/staged"
for file in bin/hypura share/man/man1/hypura-run.1 share/bash-completion/completions/hypura \
    share/zsh/vendor-completions/_hypura share/fish/vendor_completions.d/hypura.fish share/hypura/demo/demo-moe-Q4_K_M.gguf \
    share/hypura/service/hypura.service share/hypura/service/hypura.plist share/doc/hypura/LICENSE-MIT; do
    check test -s "$work/staged/$file"
done
check contains '^llama.cpp' "$work/staged/share/doc/hypura/THIRD-PARTY.txt"
check contains 'Copyright (c) .* The ggml authors' "$work/staged/share/doc/hypura/THIRD-PARTY.txt"
# What is bundled into the page.
check contains 'Copyright (c) .* Jason Miller' "$work/staged/share/doc/hypura/THIRD-PARTY.txt"
check python3 - "$work/staged/share/doc/hypura/sbom.cdx.json" <<'PYTHON'
import json, sys
bill = json.load(open(sys.argv[1]))
references = [component["bom-ref"] for component in bill["components"]]
assert bill["bomFormat"] == "CycloneDX" and bill["specVersion"] == "1.5"
assert len(references) == len(set(references)) and set(bill["dependencies"][0]["dependsOn"]) == set(references)
names = {component["name"] for component in bill["components"]}
assert {"llama.cpp", "axum", "llama-cpp-sys-4", "preact", "dompurify"} <= names, names
# Macros and tests are not in the program.
assert not {"serde_derive", "proptest"} & names, names
assert all(component.get("licenses") for component in bill["components"])
PYTHON

archive=$(scripts/dist/tarball.sh "$work/staged" "$work/output")
mkdir "$work/home"
(cd "$work/output" && if command -v sha256sum; then sha256sum ./*.tar.gz; else shasum -a 256 ./*.tar.gz; fi) |
    sed -n 's|  \./|  |p' >"$work/output/SHA256SUMS"
check alone sh scripts/install.sh --from "$archive"
check answers "$work/home/.local/bin/hypura"
check alone sh scripts/install.sh --uninstall
check test ! -e "$work/home/.local/bin"
check test ! -e "$work/home/.local/share/hypura/demo"

for other in macos-arm64 linux-x86_64 linux-arm64; do
    printf '%064d  hypura-%s-%s.tar.gz\n' 0 "$(scripts/dist/version.sh)" "$other"
done >"$work/sums"
scripts/dist/formula.sh https://example.org https://example.org/download "$work/sums" >"$work/hypura.rb"
check test "$(grep -c '@' "$work/hypura.rb")" -eq 0
if have ruby; then check ruby -c "$work/hypura.rb"; fi

if [ "$(uname -s)" = Linux ] && have dpkg-deb; then
    package=$(COMPRESSION=gzip ANY_SYSTEM=1 scripts/dist/deb.sh "$work/staged" "$work/output" 2>"$work/out")
    dpkg-deb -x "$package" "$work/unpacked"
    dpkg-deb -e "$package" "$work/control"
    check answers "$work/unpacked/usr/bin/hypura"
    unit=$work/unpacked/lib/systemd/system/hypura.service
    check contains '^ExecStart=/usr/bin/hypura serve' "$unit"
    check contains '^EnvironmentFile=-/etc/default/hypura' "$unit"
    check contains '^/etc/default/hypura$' "$work/control/conffiles"
    check test -f "$work/unpacked/etc/default/hypura"
    check env -C "$work/unpacked" md5sum --check --quiet "$work/control/md5sums"
    if systemd-analyze security --help 2>/dev/null | grep -q -- --offline; then
        check systemd-analyze security --offline=true --threshold=25 --no-pager "$unit"
    fi
    if have lintian; then
        # Tests have no time for xz.
        check lintian --allow-root --fail-on error,warning "$package"
    fi
fi
if have shellcheck; then
    check shellcheck scripts/*.sh scripts/dist/*.sh scripts/tests/*.sh benchmarks/*.sh .ci/run assets/package/debian/postinst \
        assets/package/debian/prerm assets/package/debian/postrm
fi

[ "$failures" -eq 0 ] || exit 1
echo "packages: all checks passed"
