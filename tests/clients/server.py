"""A `hypura serve` of its own: started on a free port with nothing of this machine's in sight, watched, stopped."""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "assets/demo/demo-moe-Q4_K_M.gguf"
START_LIMIT_S = 60
STOP_LIMIT_S = 20


class Server:
    """`with Server(binary, folder, models) as server:`; `server.url` is where it listens."""

    def __init__(self, binary: Path, folder: Path, models: list[Path], arguments: list[str] | None = None):
        self.binary, self.folder, self.models = binary, folder, models
        self.arguments = arguments or []
        self.lines: list[str] = []
        self.url = ""

    def __enter__(self) -> "Server":
        self.folder.mkdir(parents=True, exist_ok=True)
        hidden = {
            # No model and no setting of the person who runs this may be seen or changed.
            "HOME": self.folder,
            "XDG_DATA_HOME": self.folder / "data",
            "XDG_CACHE_HOME": self.folder / "cache",
            "HYPURA_MODELS": self.folder / "models",
            "OLLAMA_MODELS": self.folder / "ollama",
            "HF_HUB_CACHE": self.folder / "huggingface",
            "HYPURA_DEMO": DEMO,
            # Nothing is pulled from other machines: a proxy that nobody runs.
            "HTTPS_PROXY": "http://127.0.0.1:1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "HYPURA_", "HF_"))}
        self.process = subprocess.Popen(
            [self.binary, "serve", "--port", "0", *self.arguments, *self.models],
            env=kept | {name: str(value) for name, value in hidden.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        threading.Thread(target=self._read, args=[ready], daemon=True).start()
        ready.wait(START_LIMIT_S)
        if not self.url:
            self.process.kill()
            raise RuntimeError("the server did not start:\n" + "\n".join(self.lines))
        return self

    def _read(self, ready: threading.Event) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            found = not self.url and re.search(r"http://[\d.]+:\d+", line)
            if found:
                self.url = found.group(0)
                ready.set()
        ready.set()

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Stops it as an administrator would and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_LIMIT_S)

    def log(self, lines: int = 60) -> str:
        return "\n".join(self.lines[-lines:])

    def file_descriptors(self) -> int | None:
        """How many are open, where the system tells (Linux)."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        return len(list(folder.iterdir())) if folder.is_dir() else None

    def memory_bytes(self) -> int | None:
        """What the process holds in memory itself, without cached pages of files."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        return int(found.group(1)) * 1024 if found else None

    def unload_all(self) -> None:
        for model in self.json("GET", "/api/ps")["models"]:
            self.json("POST", "/api/generate", {"model": model["name"], "keep_alive": 0, "prompt": ""})

    def json(self, method: str, path: str, body: object = None):
        status, _, text = request(self.url, method, path, body)
        assert status == 200, (path, status, text)
        return json.loads(text) if text else None

    def metrics(self) -> dict[str, float]:
        return metrics(self.url)

    def settled(self, limit_s: float = 10) -> dict[str, float]:
        """The metrics as soon as nothing runs any more; those at the end of the time if something still does."""
        return wait_idle(self.url, limit_s)


def request(url: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, timeout: float = 60):
    """One request without any client library: (status, headers, text)."""
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def metrics(url: str) -> dict[str, float]:
    """All samples of /metrics; those with the same name and different labels are added up."""
    status, _, text = request(url, "GET", "/metrics")
    assert status == 200, text
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name = name.partition("{")[0]
            samples[name] = samples.get(name, 0.0) + float(value)
    return samples


# Samples that are 0 when nobody asks anything.
IDLE = ("llamacpp:requests_processing", "llamacpp:requests_deferred")


def wait_idle(url: str, limit_s: float = 10) -> dict[str, float]:
    end = time.monotonic() + limit_s
    while True:
        samples = metrics(url)
        if all(samples.get(name, 0) == 0 for name in IDLE) or time.monotonic() > end:
            return samples
        time.sleep(0.05)
