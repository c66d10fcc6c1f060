"""What every test can use. The server comes from run.py; alone, these tests do not run."""

import os

import pytest

import server as of_server

# Names of the models that run.py serves.
DEMO = "demo-moe-Q4_K_M"
QUESTION = "What is a lynx?"
# The demo model answers QUESTION so, at temperature 0.
ANSWER = "wildcat"
GREEDY = {"temperature": 0, "num_predict": 40}

# Some 20,000 tokens of the demo model's words, all of them different lines.
LONG_PROMPT = "\n".join(f"Line {line}: the quick brown fox jumps over the lazy dog." for line in range(1000))

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of the coming days",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}},
            "required": ["city"],
        },
    },
}
WEATHER_ARGUMENTS = {"city": "Paris", "days": 2}


@pytest.fixture(scope="session")
def url() -> str:
    if "HYPURA_TEST_URL" not in os.environ:
        pytest.exit("these tests need a server: run scripts/test-clients", returncode=2)
    return os.environ["HYPURA_TEST_URL"]


@pytest.fixture(scope="session")
def ask(url):
    """ask(method, path, body=None, headers=None) -> (status, headers, text), without any client library."""
    return lambda method, path, body=None, headers=None: of_server.request(url, method, path, body, headers)


@pytest.fixture
def idle(url):
    """idle() waits until nothing runs and fails if that takes longer than a cancelled request may."""

    def wait(limit_s: float = 5):
        samples = of_server.wait_idle(url, limit_s)
        busy = {name: samples.get(name) for name in of_server.IDLE if samples.get(name, 0) != 0}
        assert not busy, f"still busy {limit_s} s after the client has gone: {busy}"
        return samples

    return wait
