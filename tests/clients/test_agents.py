"""Agents as they come from npm, with their whole first prompt and no setting but the address of the server."""

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest
import server as of_server

PACKAGES = Path(os.environ.get("HYPURA_TEST_WORK", ".")) / "node/node_modules"
LIMIT_S = 150
ANSWER = "I have read all of it, human."

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="their programs are installed for one system"
)


@pytest.fixture
def workplace(tmp_path):
    """An empty folder to work in and one to live in: nothing of the person who runs this is read."""
    (tmp_path / "project").mkdir()
    (tmp_path / "home").mkdir()
    return tmp_path


def run(command: list, workplace: Path, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [str(part) for part in command],
        cwd=workplace / "project",
        env=kept | {"HOME": str(workplace / "home")} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def claude(url: str, workplace: Path, model: str) -> subprocess.CompletedProcess:
    program = PACKAGES / "@anthropic-ai/claude-code-linux-x64/claude"
    return run(
        [program, "-p", "Say hello.", "--model", model],
        workplace,
        ANTHROPIC_BASE_URL=url,
        ANTHROPIC_AUTH_TOKEN="none",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_AUTOUPDATER="1",
    )


def codex(url: str, workplace: Path, model: str) -> subprocess.CompletedProcess:
    program = PACKAGES / "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"
    provider = f'{{name="hypura", base_url="{url}/v1", wire_api="responses"}}'
    settings = ["-c", 'model_provider="hypura"', "-c", f"model_providers.hypura={provider}"]
    command = [program, "exec", "--skip-git-repo-check", *settings, "-m", model, "Say hello."]
    return run(command, workplace, CODEX_HOME=str(workplace / "home"))


def opencode(url: str, workplace: Path, model: str) -> subprocess.CompletedProcess:
    program = PACKAGES / "opencode-linux-x64/bin/opencode"
    settings = {
        "provider": {
            "hypura": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": f"{url}/v1"},
                "models": {model: {"limit": {"context": 65536, "output": 1024}}},
            }
        },
        "model": f"hypura/{model}",
        "autoupdate": False,
        "share": "disabled",
    }
    return run(
        [program, "run", "Say hello."],
        workplace,
        OPENCODE_CONFIG_CONTENT=json.dumps(settings),
        OPENCODE_DISABLE_MODELS_FETCH="1",
        OPENCODE_DISABLE_LSP_DOWNLOAD="1",
        OPENCODE_DISABLE_AUTOUPDATE="1",
    )


def prompt_tokens(url: str) -> float:
    samples = of_server.metrics(url)
    return samples["llamacpp:prompt_tokens_total"]


@pytest.mark.parametrize("agent", [claude, codex, opencode])
def test_the_whole_first_prompt_is_read_and_answered(url, workplace, agent, ask):
    ask("POST", "/api/generate", {"model": "agent", "prompt": "a", "stream": False, "options": {"num_predict": 1}})
    before = prompt_tokens(url)
    done = agent(url, workplace, "agent")
    assert done.returncode == 0 and ANSWER in done.stdout, (done.stdout, done.stderr)
    # Codex has a prompt of 40 KB, Claude Code one of 76 KB.
    assert prompt_tokens(url) - before > 8000


def test_claude_code_knows_what_a_prompt_that_is_too_long_is(url, workplace):
    done = claude(url, workplace, "forgetful")
    assert "too long" in done.stdout.lower() + done.stderr.lower(), (done.stdout, done.stderr)


def test_codex_knows_what_a_prompt_that_is_too_long_is(url, workplace):
    done = codex(url, workplace, "forgetful")
    assert "context window" in done.stdout + done.stderr, (done.stdout, done.stderr)
