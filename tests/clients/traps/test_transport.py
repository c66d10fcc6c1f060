"""What programs that cannot be installed here send and expect, at the level of HTTP: bodies, methods, errors, hosts."""

import datetime
import json
import re
import socket

import pytest
import zstandard
from conftest import DEMO, QUESTION


def test_curl_sends_a_form_and_means_json(ask):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, headers, text = ask("POST", "/api/generate", {"model": "endless", "prompt": "a", "options": {"num_predict": 3}}, form)
    lines = [json.loads(line) for line in text.splitlines()]
    assert status == 200 and headers["content-type"] == "application/x-ndjson"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_head(ask, path):
    status, _, text = ask("HEAD", path)
    assert status == 200 and text == ""


def test_the_root_says_what_scripts_look_for(ask):
    status, headers, text = ask("GET", "/")
    assert status == 200 and text == "Ollama is running" and headers["content-type"].startswith("text/plain")


def test_open_webui_and_copilot_read_the_version_as_numbers(ask):
    version = json.loads(ask("GET", "/api/version")[2])["version"]
    # Open WebUI: int() of each part. Copilot: not before 0.6.4.
    assert tuple(int(part) for part in re.sub(r"^v|-.*", "", version).split(".")) >= (0, 6, 4)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/nothing", None, 404),
        ("GET", "/api/chat", None, 405),
        ("POST", "/api/chat", b"", 400),
        ("POST", "/api/chat", b"{", 400),
        ("POST", "/api/chat", b'{"model": 7}', 400),
        ("POST", "/api/chat", b'{"model": "a/b/c/d/e"}', 400),
        ("POST", "/api/chat", b"\xff\xfe{}", 400),
        ("POST", "/api/chat", b"[" * 100_000, 400),
        ("POST", "/api/chat", {"model": ""}, 400),
        ("POST", "/api/generate", {"model": ""}, 404),
        ("POST", "/api/show", {}, 400),
        ("DELETE", "/api/delete", {"model": "nobody"}, 404),
        ("POST", "/api/embed", {"model": DEMO, "input": [1]}, 400),
        ("POST", "/api/generate", {"model": DEMO, "prompt": "a", "images": ["bm90IGFuIGltYWdl"]}, 400),
        ("POST", "/api/generate", {"model": DEMO, "prompt": "a", "think": "much"}, 400),
        ("POST", "/api/generate", {"model": DEMO, "prompt": "a", "top_logprobs": 21, "logprobs": True}, 400),
        ("POST", "/api/generate", {"model": DEMO, "prompt": "a", "format": {"type": "unheard-of"}}, 400),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/embeddings", {"model": DEMO, "input": "a", "encoding_format": "hex"}, 400),
    ],
)
def test_errors_are_json_and_show_no_paths(ask, method, path, body, status):
    got, headers, text = ask(method, path, body)
    assert got == status, text
    assert "/home" not in text and "gguf" not in text
    if status == 400:
        assert json.loads(text)["error"] and headers["content-type"].startswith("application/json")


def test_foreign_hosts_and_origins_are_refused(ask):
    assert ask("GET", "/api/tags", headers={"Host": "evil.example"})[0] == 403
    assert ask("GET", "/api/tags", headers={"Origin": "https://evil.example"})[0] == 403
    for origin in ("http://localhost:3000", "app://obsidian.md", "vscode-webview://x", "tauri://localhost"):
        status, headers, _ = ask("GET", "/api/tags", headers={"Origin": origin})
        assert status == 200 and headers["access-control-allow-origin"] in (origin, "*")


def test_a_browser_asks_first(ask):
    wanted = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    status, headers, _ = ask("OPTIONS", "/v1/chat/completions", headers=wanted)
    assert status == 204
    allowed = headers["access-control-allow-headers"].lower()
    assert allowed == "*" or all(name in allowed for name in ("authorization", "content-type", "x-stainless-os"))


def test_codex_compresses_its_body(ask):
    body = zstandard.compress(json.dumps({"model": "thinker", "input": "hello"}).encode())
    status, _, text = ask("POST", "/v1/responses", body, {"Content-Encoding": "zstd", "Content-Type": "application/json"})
    assert status == 200 and "Good morning" in text


def test_cline_gives_up_without_headers(url):
    """Cline waits 30 s for headers. They come before the first token: here, before a long prompt is read."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"model": DEMO, "messages": [{"role": "user", "content": QUESTION * 60}], "options": {"num_ctx": 32768}})
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /api/chat HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_connection_is_kept_and_survives_an_error(url):
    import http.client

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    for path, status in (("/api/version", 200), ("/api/nothing", 404), ("/api/tags", 200)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert connection.sock is not None
    connection.close()


def test_times_are_read_by_the_standard_library(ask):
    for model in json.loads(ask("GET", "/api/tags")[2])["models"]:
        assert datetime.datetime.fromisoformat(model["modified_at"]).tzinfo


def test_a_queued_or_reading_request_ends_with_its_client(url, idle):
    """The client goes away before there is any token."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"model": "endless", "prompt": "go " * 2000, "options": {"num_predict": -1, "num_ctx": 8192}, "stream": False})
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /api/generate HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
    idle()
