"""A registry of models on this machine, as Ollama's library is one: manifests, and blobs in ranges."""

import hashlib
import http.server
import json
import re
import threading
from pathlib import Path

PIECE = 64 << 10


class Registry:
    """`with Registry(file) as registry:` serves `file` as `registry.name`."""

    def __init__(self, file: Path):
        self.blobs: dict[str, bytes] = {}
        config = json.dumps({"model_format": "gguf", "model_family": "llama"}).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": self._layer("application/vnd.docker.container.image.v1+json", config),
                "layers": [self._layer("application/vnd.ollama.image.model", file.read_bytes())],
            }
        ).encode()

    def _layer(self, kind: str, content: bytes) -> dict:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def __enter__(self) -> "Registry":
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802 (the library's name)
                last = self.path.rsplit("/", 1)[-1]
                if self.path == "/v2/people/pulled/manifests/latest":
                    self._send(200, registry.manifest)
                elif last in registry.blobs:
                    self._blob(registry.blobs[last])
                else:
                    self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')

            def _blob(self, content: bytes):
                found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if not found:
                    return self._send(200, content)
                first, last = int(found[1]), min(int(found[2]), len(content) - 1)
                extra = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
                return self._send(206, content[first : last + 1], extra)

            def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None):
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for start in range(0, len(content), PIECE):
                    self.wfile.write(content[start : start + PIECE])

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"http://127.0.0.1:{self.server.server_port}/people/pulled"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
