#!/usr/bin/env python3
"""What is inside the program: licences with their texts, and a bill of materials in CycloneDX 1.5.

Asks cargo which packages the program is linked from (for this machine; tests and build scripts are left out) and
adds llama.cpp, which comes inside llama-cpp-sys-4, with the libraries that llama.cpp brings, and what is bundled into the
page at /ui. The same sources give the same files.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
# In llama.cpp's folder `vendor`, as far as it is linked: the file that holds the licence.
VENDORED = {
    "nlohmann-json": ("MIT", "vendor/nlohmann/json.hpp"),
    "cpp-httplib": ("MIT", "vendor/cpp-httplib/LICENSE"),
}


def cargo(*arguments):
    command = [ROOT / "scripts/cargo.sh", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def cargo_metadata():
    target = re.search(r"^host: (.*)$", cargo("-vV"), re.MULTILINE).group(1)
    return json.loads(cargo("metadata", "--format-version", "1", "--locked", "--filter-platform", target))


def linked_packages(metadata):
    """The program's own package, and the others that are linked into it, by name."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    program = next(p["id"] for p in packages.values() if p["name"] == "hypura" and p["source"] is None)
    reached, waiting = set(), [program]
    while waiting:
        current = waiting.pop()
        if current in reached:
            continue
        reached.add(current)
        for dependency in nodes[current]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    # What runs in the compiler is not in the program.
    is_macro = {i for i, p in packages.items() if any("proc-macro" in t["kind"] for t in p["targets"])}
    found = [packages[identity] for identity in reached - is_macro if packages[identity]["source"]]
    return packages[program], sorted(found, key=lambda package: (package["name"], package["version"]))


def licence_texts(package):
    folder = Path(package["manifest_path"]).parent
    named = [folder / package["license_file"]] if package.get("license_file") else []
    files = named + sorted(path for path in folder.iterdir() if path.is_file() and LICENCE_FILE.match(path.name))
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in dict.fromkeys(files)]


def llama_cpp(packages):
    """llama.cpp and its libraries: name, version, licence, texts."""
    sys_crate = next(package for package in packages if package["name"] == "llama-cpp-sys-4")
    folder = Path(sys_crate["manifest_path"]).parent / "llama.cpp"
    version = dict(re.findall(r"set\((GGML_VERSION_\w+) (\d+)\)", (folder / "ggml/CMakeLists.txt").read_text()))
    parts = [version[f"GGML_VERSION_{part}"] for part in ("MAJOR", "MINOR", "PATCH")]
    found = [("llama.cpp (with ggml)", ".".join(parts), "MIT", [(folder / "LICENSE").read_text().strip()])]
    for name, (licence, path) in VENDORED.items():
        file = folder / path
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            text = text if file.name.startswith("LICENSE") else text[: text.index("#ifndef")]
            found.append((name, sys_crate["version"], licence, [text.strip()]))
    return found


def page():
    """What is bundled into the page: name, version, licence, texts. crates/ui/web/build.mjs writes that file."""
    sections = (ROOT / "crates/ui/assets/licenses.txt").read_text(encoding="utf-8").split(f"\n{'-' * 80}\n\n")
    found = []
    for section in sections:
        heading, text = section.split("\n\n", 1)
        name, version, licence = re.fullmatch(r"(\S+) (\S+) \((.+)\)", heading).groups()
        found.append((name, version, licence, [text.strip()]))
    return found


def notices(packages):
    entries = [(p["name"], p["version"], p["license"] or "see below", licence_texts(p)) for p in packages]
    entries += llama_cpp(packages) + page()
    texts = {}
    for name, version, licence, own in entries:
        for text in own:
            texts.setdefault(text, []).append(f"{name} {version}")
    lines = ["Hypura contains these works of others.", ""]
    lines += [f"{name} {version}: {licence}" for name, version, licence, _ in entries]
    for text, users in texts.items():
        lines += ["", "=" * 80, ", ".join(users), "=" * 80, "", text]
    return "\n".join(lines) + "\n"


def component(name, version, licence, purl):
    entry = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        # Old packages write a slash where SPDX has OR.
        entry["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", licence)}]
    return entry


def sbom(program, packages):
    components = []
    for package in packages:
        name, version = package["name"], package["version"]
        components.append(component(name, version, package["license"], f"pkg:cargo/{name}@{version}"))
    for name, version, licence, _ in llama_cpp(packages)[:1]:
        components.append(component(name.split()[0], version, licence, f"pkg:github/ggml-org/llama.cpp@ggml-{version}"))
    for name, version, licence, _ in page():
        components.append(component(name, version, licence, f"pkg:npm/{name}@{version}"))
    purl = f"pkg:cargo/hypura@{program['version']}"
    digest = hashlib.sha256(json.dumps([purl, components], sort_keys=True).encode()).digest()
    main = component("hypura", program["version"], program["license"], purl) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": [{"ref": purl, "dependsOn": [entry["bom-ref"] for entry in components]}],
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--notices", type=Path, help="write the licences here")
    arguments.add_argument("--sbom", type=Path, help="write the bill of materials here")
    arguments = arguments.parse_args()
    program, packages = linked_packages(cargo_metadata())
    if arguments.notices:
        arguments.notices.write_text(notices(packages), encoding="utf-8")
    if arguments.sbom:
        arguments.sbom.write_text(json.dumps(sbom(program, packages), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
