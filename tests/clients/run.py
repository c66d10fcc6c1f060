"""Runs all clients against one server: start, tests, leak check, stop, a table. `scripts/test-clients` calls this."""

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as tree
from collections import Counter
from pathlib import Path

from registry import Registry
from scripted_models import write_all
from server import DEMO, IDLE, ROOT, Server

HERE = Path(__file__).resolve().parent
# What the server may hold more than before: connections that it has not yet seen close.
SPARE_FILES = 4
# What `--fast` leaves out: suites that run through the clients that are tested anyway, and take longest to begin.
SLOW = ("test_agents.py", "test_instructor.py", "test_langchain_ollama.py", "test_launch.py", "test_litellm.py", "test_llm_ollama.py", "test_pydantic_ai.py")


def main() -> int:
    arguments = parse()
    work = arguments.work.resolve()
    models = write_all(work / "models")
    models["sight"] = write_sight(arguments.binary.resolve(), work / "sight")
    started = time.monotonic()
    binary, served = arguments.binary.resolve(), [DEMO, *models.values()]
    with Registry(DEMO) as registry, Server(binary, work / "home", served) as server:
        print(f"{arguments.binary} listens on {server.url}")
        environment = os.environ | {
            "HYPURA_TEST_URL": server.url,
            "HYPURA_TEST_PID": str(server.process.pid),
            "HYPURA_TEST_WORK": str(work),
            "HYPURA_TEST_BINARY": str(binary),
            "HYPURA_TEST_REMOTE": registry.name,
            "OLLAMA_HOST": server.url,
            # The litellm package would fetch a price list, langsmith would report.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LANGSMITH_TRACING": "false",
            "LLM_USER_PATH": str(work / "llm"),
        }
        # Files that stay open for as long as the program runs are opened by the first request.
        server.json("POST", "/api/generate", {"model": DEMO.stem, "prompt": "a", "stream": False, "options": {"num_predict": 1}})
        server.unload_all()
        before = server.file_descriptors()
        table: list[tuple[str, str]] = []
        failed = not python_clients(arguments, work, environment, table)
        if not arguments.python_only and not arguments.filter:
            failed |= not node_clients(work, environment, table)
        leaks = leaks_of(server, before)
        print("\nclient                     passed  failed  skipped")
        for name, line in table:
            print(f"{name:<26} {line}")
        for leak in leaks:
            print(f"LEAK: {leak}")
        if failed or leaks:
            print("\n--- the server's last lines\n" + server.log())
    print(f"\n{'FAILED' if failed or leaks else 'passed'} in {time.monotonic() - started:.0f} s")
    return int(bool(failed or leaks))


def write_sight(binary: Path, folder: Path) -> Path:
    """A model of random weights that sees and hears, with its projector beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "sight.gguf"
    projector = ["--mmproj", folder / "mmproj-sight.gguf", "--mmproj-kind", "omni"]
    command = [binary, "synth", "tiny-qwen2-vl", "--out", model, *projector, "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return model


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/hypura")
    parser.add_argument("--work", type=Path, default=ROOT / "target/clients")
    parser.add_argument("--fast", action="store_true", help="leave out " + ", ".join(SLOW))
    parser.add_argument("--python-only", action="store_true", help="leave out the clients for Node")
    parser.add_argument("-k", dest="filter", help="only tests whose names match, as pytest's -k")
    return parser.parse_args()


def python_clients(arguments, work: Path, environment: dict, table: list) -> bool:
    report = work / "python.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", f"--junitxml={report}", f"--rootdir={HERE}", str(HERE)]
    if arguments.fast:
        command += [f"--ignore={HERE / name}" for name in SLOW]
    command += ["-p", "no:cacheprovider", *(["-k", arguments.filter] if arguments.filter else [])]
    done = subprocess.run(command, env=environment | {"PYTHONDONTWRITEBYTECODE": "1"}, cwd=HERE)
    if report.exists():
        counts: dict[str, Counter] = {}
        for case in tree.parse(report).iter("testcase"):
            file = case.get("classname", "").removeprefix("tests.clients.").split(".Test")[0]
            outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
            counts.setdefault(file.removeprefix("test_"), Counter())["failed" if outcome in ("failure", "error") else outcome] += 1
        for name, count in sorted(counts.items()):
            table.append((name, f"{count['passed']:>6}  {count['failed']:>6}  {count['skipped']:>7}"))
    return done.returncode == 0


def node_clients(work: Path, environment: dict, table: list) -> bool:
    good = True
    for file in sorted((HERE / "node").glob("*.test.mjs")):
        # Modules are found in the folders above the file that imports them, so the files run from beside node_modules.
        copy = work / "node" / file.name
        copy.write_text(file.read_text())
        done = subprocess.run(
            ["node", "--test", "--test-reporter=tap", str(copy)], env=environment, text=True, stdout=subprocess.PIPE
        )
        number = {line.split()[1]: line.split()[2] for line in done.stdout.splitlines() if line.startswith("# ")
                  and len(line.split()) == 3}
        if done.returncode != 0:
            print(done.stdout)
            good = False
        row = [number.get(name, "?") for name in ("pass", "fail", "skipped")]
        table.append((file.name.removesuffix(".test.mjs"), f"{row[0]:>6}  {row[1]:>6}  {row[2]:>7}"))
    return good


def leaks_of(server: Server, before: int | None) -> list[str]:
    """What is left when every client has gone and every model is unloaded; then stops the server."""
    if server.process.poll() is not None:
        return [f"the server ended by itself with exit code {server.process.returncode}"]
    found = []
    samples = server.settled()
    found += [f"{name} is {samples[name]:g} though nobody asks" for name in IDLE if samples.get(name, 0) != 0]
    server.unload_all()
    end = time.monotonic() + 10
    while server.json("GET", "/api/ps")["models"] and time.monotonic() < end:
        time.sleep(0.1)
    found += [f"{model['name']} is still loaded" for model in server.json("GET", "/api/ps")["models"]]
    while before is not None and server.file_descriptors() > before + SPARE_FILES and time.monotonic() < end:
        time.sleep(0.1)
    after = server.file_descriptors()
    if before is not None and after > before + SPARE_FILES:
        found.append(f"{after} open files, {before} before")
    try:
        code = server.stop()
    except subprocess.TimeoutExpired:
        return [*found, "it does not stop on SIGTERM"]
    return found + ([f"exit code {code} after SIGTERM"] if code != 0 else [])


if __name__ == "__main__":
    sys.exit(main())
