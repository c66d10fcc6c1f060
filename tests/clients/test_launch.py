"""`hypura launch` starts agents as they come from npm and PyPI: each calls a tool, gets its result, and answers."""

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest
from scripted_models import MADE

WORK = Path(os.environ.get("HYPURA_TEST_WORK", "."))
BINARY = os.environ.get("HYPURA_TEST_BINARY", "hypura")
PACKAGES = WORK / "node/node_modules"
# What `scripts/test-clients --more-agents` installs beside the others: large, or not for every Python.
MORE = WORK / "more-agents"
LIMIT_S = 150
PROMPT = f"Make the file {MADE}."
ANSWER = "I have done all of it, human."

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="their programs are installed for one system"
)

# What is started by which name.
PROGRAMS = {
    "claude": PACKAGES / "@anthropic-ai/claude-code-linux-x64/claude",
    "codex": PACKAGES / "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex",
    "opencode": PACKAGES / "opencode-linux-x64/bin/opencode",
    "cline": PACKAGES / "@cline/cli-linux-x64/bin/cline",
    "cn": PACKAGES / "@continuedev/cli/dist/cn.js",
    "pi": MORE / "node_modules/@mariozechner/pi-coding-agent/dist/cli.js",
    "aider": MORE / "venv/bin/aider",
}

# Agent -> model that knows the name of its tool, and the agent's own arguments for one prompt without a person.
AGENTS = {
    "claude": ("worker-claude", ["-p", PROMPT, "--allowedTools", "Bash(touch:*)"]),
    "codex": ("worker-codex", ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", PROMPT]),
    "opencode": ("worker-bash", ["run", PROMPT]),
    "cline": ("worker-cline", [PROMPT]),
    "continue": ("worker-claude", ["-p", "--auto", PROMPT]),
    "pi": ("worker-bash", ["-p", "--no-session", PROMPT]),
}

# Nothing that they would fetch or report matters here.
QUIET = {
    "DISABLE_AUTOUPDATER": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "CONTINUE_CLI_ENABLE_TELEMETRY": "0",
    "PI_OFFLINE": "1",
    # Otherwise a daemon stays behind.
    "CLINE_SESSION_BACKEND_MODE": "local",
    "CI": "1",
}


@pytest.fixture
def place(tmp_path):
    """An empty folder to work in, one to live in, and one with the programs: nothing of the person is read."""
    for name in ("project", "home", "bin"):
        (tmp_path / name).mkdir()
    for name, program in PROGRAMS.items():
        if program.exists():
            (tmp_path / "bin" / name).symlink_to(program)
            program.resolve().chmod(0o755)
    return tmp_path


def launch(url: str, place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "HYPURA_HOST": url,
        # Models are the server's: none is found, and none is planned, on this side.
        "HYPURA_MODELS": str(place / "home/models"),
        "NO_PROXY": "127.0.0.1,localhost",
        **QUIET,
        **variables,
    }
    return run_in(place, [BINARY, "launch", *arguments], environment)


def run_in(place: Path, command: list, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Runs a program in the project, with nobody at the terminal."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=place / "project",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def needs(agent: str) -> None:
    if not PROGRAMS[agent].exists():
        pytest.skip(f"{agent} is not installed: scripts/test-clients --more-agents")


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_calls_a_tool_and_reads_its_result(url, place, agent):
    if agent in PROGRAMS:
        needs(agent)
    model, arguments = AGENTS[agent]
    done = launch(url, place, agent, "--model", model, "--yes", "--", *arguments)
    assert done.returncode == 0, (done.stdout[-4000:], done.stderr[-4000:])
    assert (place / "project" / MADE).exists(), (done.stdout[-4000:], done.stderr[-4000:])
    assert ANSWER in done.stdout, (done.stdout[-4000:], done.stderr[-4000:])


def test_aider_edits_a_file(url, place):
    needs("aider")
    arguments = ["--no-git", "--yes-always", "--no-check-update", "--analytics-disable", "--message", PROMPT, MADE]
    done = launch(url, place, "aider", "--model", "editor", "--", *arguments)
    assert done.returncode == 0, (done.stdout[-4000:], done.stderr[-4000:])
    assert (place / "project" / MADE).read_text() == "It was edited.\n", (done.stdout[-4000:], done.stderr[-4000:])


def test_settings_of_another_server_do_not_win(url, place):
    settings = place / "home/.claude/settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}}))
    done = launch(url, place, "claude", "--model", "worker-claude", "--", *AGENTS["claude"][1])
    assert ANSWER in done.stdout, (done.stdout[-4000:], done.stderr[-4000:])


def test_what_is_written_to_stay_works_by_itself_and_goes_again(url, place):
    """`--config` leaves the agent configured; `--restore` gives back the bytes of before."""
    config = place / "home/.config/opencode/opencode.json"
    config.parent.mkdir(parents=True)
    config.write_text('{\n  // mine\n  "share": "disabled",\n}')
    before = files(place / "home")
    for agent, model in (("opencode", "worker-bash"), ("codex", "worker-codex"), ("claude", "worker-claude")):
        done = launch(url, place, agent, "--model", model, "--config", "--yes")
        assert done.returncode == 0, done.stderr
    assert "// mine" in config.read_text()
    environment = {"PATH": os.environ["PATH"], "HOME": str(place / "home"), **QUIET}
    for command in (
        [place / "bin/opencode", *AGENTS["opencode"][1]],
        [place / "bin/claude", *AGENTS["claude"][1]],
        [place / "bin/codex", "--profile", "hypura", *AGENTS["codex"][1]],
    ):
        done = run_in(place, command, environment)
        assert ANSWER in done.stdout, (command, done.stdout[-4000:], done.stderr[-4000:])
    for agent in ("opencode", "codex", "claude"):
        assert launch(url, place, agent, "--restore").returncode == 0
    after = files(place / "home")
    assert {name: after.get(name) for name in before} == before
    assert not (place / "home/.codex/hypura.config.toml").exists()


def test_print_changes_nothing(url, place):
    for agent in ("claude", "cline", "continue", "zed", "vscode", "goose", "droid", "pi", "qwen", "copilot", "aider"):
        done = launch(url, place, agent, "--model", "worker-claude", "--print")
        assert done.returncode == 0 and url in done.stdout, done
    assert files(place / "home") == {}


def test_what_cannot_be_is_said_in_one_line(url, place):
    for arguments, code, words in [
        (["claude", "--model", "nowhere"], 1, "has no model nowhere"),
        (["claude"], 2, "--model"),
        (["zed", "--model", "worker-claude"], 1, "Zed is not installed"),
        (["goose", "--model", "worker-claude", "--config"], 2, "goose --print` shows them"),
    ]:
        done = launch(url, place, *arguments)
        assert done.returncode == code and words in done.stderr, (arguments, done)
    done = launch("http://127.0.0.1:1", place, "claude", "--model", "agent")
    assert done.returncode == 1 and "no server runs" in done.stderr and "hypura serve" in done.stderr, done
    broken = place / "home/.cline/data/globalState.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"a": ')
    done = launch(url, place, "cline", "--model", "worker-cline", "--yes", "--", PROMPT)
    assert done.returncode == 1 and "globalState.json" in done.stderr and "not valid JSON" in done.stderr, done
    assert broken.read_text() == '{"a": '
