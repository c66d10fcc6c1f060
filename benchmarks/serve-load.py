#!/usr/bin/env python3
"""Loads a server with many clients and compares what it does with the targets. Needs Python 3.11 and nothing else.

    benchmarks/serve-load.py [--quick] [--model FILE] [--json FILE]

Starts `hypura serve` on a free port, then measures, one after the other: the time of a token against that of `hypura run`, metadata
while a model loads and generates, the first token of a second turn against that of the first, eight users against one, and a soak:
idle connections and active clients that go away at random, while open files, memory, sequences and pins are watched. `--only` picks
some of them. Exit code 1 when a target is missed.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/clients"))
from server import DEMO, IDLE, ROOT, Server  # noqa: E402

METADATA = [("GET", "/api/tags", None), ("GET", "/api/ps", None), ("GET", "/api/version", None), ("POST", "/api/show", "MODEL")]
WORDS = "a lynx borrows the vector and drops a reference while another thread waits for its turn to push one more element".split()
PARTS = ("overhead", "metadata", "second_turn", "users", "soak")
# What nobody may hold when nobody asks anything. Reads and cells may: a ring of dense weights is filled ahead.
LEAKS = ("hypura_sequences_busy", "hypura_held_pins", "hypura_held_loading_slots")
# Expected of a server that is full or whose client has gone; anything else is an error.
EXPECTED_STATUS = (200, 503)


class Client:
    """One HTTP connection by hand: asyncio has no client, and a load must be able to hang up in the middle."""

    def __init__(self, url: str):
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    async def send(self, method: str, path: str, body: object = None) -> int:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        await self.writer.drain()
        status = int((await self.reader.readline()).split()[1])
        self.length, self.chunked = 0, False
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                self.length = int(value)
            elif name.lower() == "transfer-encoding":
                self.chunked = "chunked" in value
        return status

    async def chunks(self):
        if not self.chunked:
            yield await self.reader.readexactly(self.length)
            return
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()

    def close(self) -> None:
        self.writer.close()


@dataclass
class Answer:
    """What one streamed request gave."""

    status: int
    tokens: int = 0
    text: str = ""
    first_s: float = 0.0
    last_s: float = 0.0
    last: dict = field(default_factory=dict)
    gone: bool = False


async def talk(url: str, path: str, body: dict, leave_after: int | None = None) -> Answer:
    """Sends it, reads the lines, and hangs up after `leave_after` of them."""
    client, start = Client(url), time.monotonic()
    await client.open()
    try:
        answer = Answer(await client.send("POST", path, body))
        rest = b""
        async for chunk in client.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(None, lines):
                value = json.loads(line)
                text = value.get("response") or value.get("message", {}).get("content")
                if text and not answer.tokens:
                    answer.first_s = time.monotonic() - start
                answer.last_s = time.monotonic() - start if text else answer.last_s
                answer.tokens += bool(text)
                answer.text += text or ""
                answer.last = value
                if leave_after is not None and answer.tokens >= leave_after:
                    answer.gone = True
                    return answer
        if rest.strip():
            # An answer in one piece ends without a new line.
            answer.last = json.loads(rest)
        return answer
    finally:
        client.close()


def listen(url: str, path: str, body: dict) -> tuple[list[float], dict]:
    """When each piece of text arrived, and the last line. Does nothing with what it gets until all of it is there: a client that
    reads JSON takes time from the processors that compute the next token."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    got: list[tuple[float, bytes]] = []
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + data)
        while piece := connection.recv(1 << 16):
            got.append((time.monotonic(), piece))
    arrived = [when for when, piece in got if b'"response":"' in piece and b'"response":""' not in piece]
    lines = b"".join(piece for _, piece in got).split(b"\n")
    last = [json.loads(line) for line in lines if line.startswith(b"{") and b'"done":true' in line]
    if not arrived or not last:
        raise SystemExit(f"serve-load.py: no answer: {lines[-3:]}")
    return arrived, last[-1]


def prompt(random_: random.Random, words: int) -> str:
    return " ".join(random_.choice(WORDS) for _ in range(words))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def overhead(server: Server, model: Path, tokens: int, pairs: int, flags: list[str]) -> dict:
    """Time of a token after the first: what a client of the server sees against what `hypura run` measures of itself, in pairs. And
    what the server measures where nothing is sent before the end: what is left then is not sending and receiving."""
    ratios, served, ran, unsent = [], [], [], []
    for pair in range(pairs):
        text = prompt(random.Random(1000 + pair), 40)
        report = server.folder / "run.json"
        # One at a time has the memory and the processors.
        server.unload_all()
        subprocess.run(
            [server.binary, "run", "--local", "--raw", "--temperature", "0", "-n", str(tokens), "--stats-json", report, *flags, model, text],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )
        run = json.loads(report.read_text())
        body = {"model": model.stem, "prompt": text, "raw": True, "options": {"num_predict": tokens, "temperature": 0}}
        # Loads the model, as `run` just did.
        asyncio.run(talk(server.url, "/api/generate", {"model": model.stem, "prompt": ""}))
        arrived, last = listen(server.url, "/api/generate", body)
        # Another prompt of the same length: the same one would be found in memory.
        text = prompt(random.Random(2000 + pair), 40)
        whole = asyncio.run(talk(server.url, "/api/generate", {**body, "prompt": text, "stream": False})).last
        count = last["eval_count"]
        if min(count, run["generated_tokens"]) < 8:
            continue
        served.append((arrived[-1] - arrived[0]) * 1e3 / (count - 1))
        ran.append(run["decode_ms"] / (run["generated_tokens"] - 1))
        ratios.append(served[-1] / ran[-1])
        if whole["eval_count"] >= 8:
            unsent.append(whole["eval_duration"] / 1e6 / (whole["eval_count"] - 1) / ran[-1])
    if not ratios:
        raise SystemExit("serve-load.py: the model's answers are too short to measure the time of a token")
    return {"pairs": len(ratios), "server_ms": median(served), "run_ms": median(ran), "ratios": ratios, "overhead": median(ratios) - 1, "overhead_unsent": median(unsent) - 1 if unsent else None}


async def metadata(url: str, name: str, seconds: float) -> dict:
    """Latency of what must never wait for a model, while one loads, generates and unloads again and again."""
    stop, times = asyncio.Event(), []

    async def poll() -> None:
        while not stop.is_set():
            for method, path, body in METADATA:
                client, start = Client(url), time.monotonic()
                await client.open()
                status = await client.send(method, path, {"model": name} if body else None)
                async for _ in client.chunks():
                    pass
                client.close()
                assert status == 200, (path, status)
                times.append((time.monotonic() - start) * 1e3)
            await asyncio.sleep(0.02)

    poller, end = asyncio.create_task(poll()), time.monotonic() + seconds
    random_ = random.Random(1)
    rounds = 0
    while time.monotonic() < end or rounds == 0:
        await talk(url, "/api/generate", {"model": name, "prompt": prompt(random_, 200), "options": {"num_predict": 100}})
        await talk(url, "/api/generate", {"model": name, "prompt": "", "keep_alive": 0})
        rounds += 1
    stop.set()
    await poller
    return {"requests": len(times), "loads": rounds, "p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99), "max_ms": max(times)}


async def second_turn(url: str, name: str, words: int, context: int, rounds: int) -> dict:
    """Time to the first token of a long chat's first and second turn; medians over `rounds` different chats."""
    random_, firsts, seconds, tokens = random.Random(2), [], [], []
    options = {"num_predict": 12, "temperature": 0, "num_ctx": context}
    for _ in range(rounds):
        messages = [{"role": "user", "content": prompt(random_, words)}]
        first = await talk(url, "/api/chat", {"model": name, "messages": messages, "options": options, "truncate": False})
        assert first.status == 200 and first.tokens, first
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And then?"}]
        second = await talk(url, "/api/chat", {"model": name, "messages": messages, "options": options, "truncate": False})
        firsts.append(first.first_s)
        seconds.append(second.first_s)
        tokens.append(first.last["prompt_eval_count"])
    first_s, second_s = percentile(firsts, 0.5), percentile(seconds, 0.5)
    return {"prompt_tokens": tokens[0], "first_ms": first_s * 1e3, "second_ms": second_s * 1e3, "ratio": second_s / first_s}


async def users(url: str, name: str, count: int, tokens: int) -> dict:
    """Tokens per second of one user and of `count` at once, prompts and all."""

    async def together(users_: int, seed: int) -> float:
        bodies = [
            {"model": name, "prompt": prompt(random.Random(seed + user), 30), "raw": True, "options": {"num_predict": tokens, "seed": user}}
            for user in range(users_)
        ]
        start = time.monotonic()
        answers = await asyncio.gather(*(talk(url, "/api/generate", body) for body in bodies))
        return sum(answer.last.get("eval_count", 0) for answer in answers) / (time.monotonic() - start)

    await together(1, 0)
    # In turns, so that what else the machine does hits both.
    ones, manys = [], []
    for turn in range(3):
        ones.append(await together(1, 100 + turn))
        manys.append(await together(count, 200 + 50 * turn))
    one, many = percentile(ones, 0.5), percentile(manys, 0.5)
    return {"users": count, "one_tps": one, "all_tps": many, "ratio": many / one}


async def soak(server: Server, name: str, minutes: float, idle: int, active: int) -> dict:
    """Idle connections and clients that come, ask and go, some in the middle of an answer."""
    counts = {"requests": 0, "left": 0, "refused": 0, "errors": 0}
    errors: list[str] = []
    end = time.monotonic() + minutes * 60

    async def one(number: int) -> None:
        random_ = random.Random(number)
        while time.monotonic() < end:
            body = {"model": name, "prompt": prompt(random_, random_.randint(1, 40)), "options": {"num_predict": random_.randint(1, 40)}}
            leave = random_.choice([None, 0, 1, 5]) if random_.random() < 0.4 else None
            try:
                answer = await talk(server.url, "/api/generate", body, leave)
            except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
                counts["errors"] += 1
                errors.append(repr(error))
                await asyncio.sleep(0.2)
                continue
            counts["requests"] += 1
            counts["left"] += answer.gone
            counts["refused"] += answer.status == 503
            if answer.status not in EXPECTED_STATUS or "error" in answer.last and answer.status == 200:
                counts["errors"] += 1
                errors.append(f"{answer.status} {answer.last}")

    await talk(server.url, "/api/generate", {"model": name, "prompt": "", "keep_alive": -1})
    files_before = server.file_descriptors()
    idlers = []
    for _ in range(idle):
        client = Client(server.url)
        await client.open()
        idlers.append(client)
    tasks = [asyncio.create_task(one(number)) for number in range(active)]
    # What grows with the first clients (their buffers, the context) is there after a third of the time.
    await asyncio.sleep(minutes * 20)
    memory_before = server.memory_bytes()
    await asyncio.gather(*tasks)
    memory_after = server.memory_bytes()
    answered = await talk(server.url, "/api/generate", {"model": name, "prompt": "a", "options": {"num_predict": 1}})
    alive = 0
    for client in idlers:
        try:
            alive += await client.send("GET", "/api/version") == 200
        except (OSError, IndexError):
            pass
        client.close()
    samples = await asyncio.to_thread(server.settled)
    held = {name: samples.get(name) for name in LEAKS}
    for _ in range(50):
        if files_before is None or server.file_descriptors() <= files_before + 4:
            break
        await asyncio.sleep(0.1)
    return counts | {
        "idle": idle,
        "idle_alive": alive,
        "active": active,
        "minutes": minutes,
        "answers_after": answered.status == 200,
        "left_running": sum(samples.get(name, 0) for name in IDLE),
        "held": held,
        "files_before": files_before,
        "files_after": server.file_descriptors(),
        "memory_before_bytes": memory_before,
        "memory_after_bytes": memory_after,
        "first_errors": errors[:5],
    }


def verdicts(results: dict, users_target: float) -> list[tuple[str, str, str, bool]]:
    """(what, target, measured, good) for each target of what was measured."""
    rows = []
    if cost := results.get("overhead"):
        rows.append(("time of a token beyond that of hypura run", "<= 2%", f"{cost['overhead']:.1%}", cost["overhead"] <= 0.02))
    if meta := results.get("metadata"):
        rows.append(("metadata while a model loads and generates, p99", "<= 50 ms", f"{meta['p99_ms']:.1f} ms", meta["p99_ms"] <= 50))
    if turn := results.get("second_turn"):
        rows.append(("first token of a second turn, of the first turn's", "<= 5%", f"{turn['ratio']:.1%}", turn["ratio"] <= 0.05))
    if many := results.get("users"):
        what = f"{many['users']} users against one, tokens/s"
        rows.append((what, f">= {users_target:g}x", f"{many['ratio']:.2f}x", many["ratio"] >= users_target))
    if load := results.get("soak"):
        rows += soak_verdicts(load)
    return rows


def soak_verdicts(load: dict) -> list[tuple[str, str, str, bool]]:
    rows = [
        ("errors during the soak", "0", str(load["errors"]), load["errors"] == 0),
        ("idle connections that still answer", str(load["idle"]), str(load["idle_alive"]), load["idle_alive"] == load["idle"]),
        ("requests left when all clients have gone", "0", f"{load['left_running']:g}", load["left_running"] == 0),
        ("answers after the soak", "yes", "yes" if load["answers_after"] else "no", load["answers_after"]),
    ]
    # A sample that is not there is no proof.
    rows += [(f"{name} after the soak", "0", str(value), value == 0) for name, value in load["held"].items()]
    if load["files_before"] is not None:
        grown = load["files_after"] - load["files_before"]
        rows.append(("open files more than before", "<= 4", str(grown), grown <= 4))
    if load["memory_before_bytes"] is not None:
        grown = load["memory_after_bytes"] - load["memory_before_bytes"]
        limit = max(16 << 20, load["memory_before_bytes"] // 20)
        rows.append(("memory more than after a third of the soak", f"<= {limit >> 20} MiB", f"{grown / (1 << 20):.1f} MiB", grown <= limit))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one minute, 200 idle connections, 16 clients")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/hypura")
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--idle", type=int)
    parser.add_argument("--active", type=int)
    parser.add_argument("--users-target", type=float, default=2.0, help="ratio that eight users must reach (default 2)")
    parser.add_argument("--chat-words", type=int, default=600, help="length of the long chat; the model's context must hold it")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of server and hypura run (default 5)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each of a pair (default 128)")
    parser.add_argument("--memory", help="memory of the server, and of hypura run")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("serve", nargs="*", help="after --: more arguments for hypura serve, as --memory 8GiB")
    given = parser.parse_args()
    minutes = given.minutes or (1 if given.quick else 10)
    idle = given.idle if given.idle is not None else (200 if given.quick else 1000)
    active = given.active or (16 if given.quick else 64)
    name = given.model.stem
    only = given.only.split(",")
    if unknown := set(only) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(unknown)}")
    memory = ["--memory", given.memory] if given.memory else []
    flags = ["--parallel", "8", *memory, *given.serve]
    results: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        with Server(given.binary.resolve(), Path(folder), [given.model.resolve()], flags) as server:
            if "overhead" in only:
                results["overhead"] = overhead(server, given.model.resolve(), given.tokens, given.pairs, memory)
            if "metadata" in only:
                results["metadata"] = asyncio.run(metadata(server.url, name, 8 if given.quick else 30))
            if "second_turn" in only:
                results["second_turn"] = asyncio.run(second_turn(server.url, name, given.chat_words, given.context, 3))
            if "users" in only:
                results["users"] = asyncio.run(users(server.url, name, 8, 64))
            if "soak" in only:
                results["soak"] = asyncio.run(soak(server, name, minutes, idle, active))
            results["exit_code"] = server.stop()
    rows = verdicts(results, given.users_target)
    print(f"{'what':<50} {'target':>10} {'measured':>12}  verdict")
    for what, target, measured, good in rows:
        print(f"{what:<50} {target:>10} {measured:>12}  {'met' if good else 'MISSED'}")
    for error in results.get("soak", {}).get("first_errors", []):
        print(f"error: {error}")
    results["verdicts"] = [{"what": a, "target": b, "measured": c, "met": d} for a, b, c, d in rows]
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
