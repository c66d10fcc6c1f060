"""What certain programs read out of answers: each test does what that program does, with its strictness."""

import json
import re

import pytest
from conftest import DEMO, WEATHER_TOOL

HELLO = [{"role": "user", "content": "hello"}]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_zed_has_strict_fields(ask):
    for model in json.loads(ask("GET", "/api/tags")[2])["models"]:
        for field, kind in {"name": str, "modified_at": str, "size": int, "digest": str}.items():
            assert isinstance(model[field], kind)
        for field in ("format", "family", "parameter_size", "quantization_level"):
            assert isinstance(model["details"][field], str)
        assert model["name"] == model["model"] and ":" in model["name"]
        assert re.fullmatch(r"[0-9a-f]{64}", model["digest"])
    body = {"model": "caller", "messages": HELLO, "stream": True, "keep_alive": -1, "think": True, "tools": [WEATHER_TOOL]}
    for chunk in lines(ask("POST", "/api/chat", body)[2]):
        assert chunk["message"]["role"] == "assistant" and isinstance(chunk["message"]["content"], str)
        for call in chunk["message"].get("tool_calls", []):
            assert isinstance(call["function"]["arguments"], dict)


def test_continue_parses_the_parameters(ask):
    made = {"model": "trap-continue", "from": "thinker", "parameters": {"num_ctx": 4096, "stop": ["<|im_end|>", "a b"]}, "stream": False}
    assert ask("POST", "/api/create", made)[0] == 200
    shown = json.loads(ask("POST", "/api/show", {"name": "trap-continue"})[2])
    found = [re.match(r"^(\S+)\s+(\".*\"|\S+)$", line.strip()) for line in shown["parameters"].strip().splitlines()]
    assert all(found)
    assert [match[2] for match in found if match[1] == "num_ctx"] == ["4096"]
    assert [json.loads(match[2]) for match in found if match[1] == "stop"] == ["<|im_end|>", "a b"]
    # Its old versions take `.Suffix` in the template for the ability to fill in.
    assert ".Suffix" not in shown["template"]
    assert ask("DELETE", "/api/delete", {"name": "trap-continue"})[0] == 200


def test_litellm_finds_tools_in_the_template(ask):
    assert "tools" in json.loads(ask("POST", "/api/show", {"name": "weather"})[2])["template"]


@pytest.mark.parametrize("keep_alive", [-1, "300s", "-1s", 0])
def test_home_assistant_sends_seconds(ask, keep_alive):
    body = {"model": "thinker", "messages": HELLO, "stream": True, "keep_alive": keep_alive, "options": {"num_ctx": 8192}, "think": False}
    status, _, text = ask("POST", "/api/chat", body)
    assert status == 200 and "".join(line["message"]["content"] for line in lines(text)).strip() == "Good morning, human."
    assert json.loads(ask("POST", "/api/pull", {"model": "thinker", "stream": False})[2])["status"] == "success"


def test_open_webui_unloads(ask):
    ask("POST", "/api/generate", {"model": "thinker", "prompt": "", "keep_alive": "5m"})
    status, _, text = ask("POST", "/api/generate", {"model": "thinker", "keep_alive": 0, "prompt": ""})
    assert status == 200 and json.loads(text)["done_reason"] == "unload"
    running = json.loads(ask("GET", "/api/ps")[2])["models"]
    assert "thinker:latest" not in [model["name"] for model in running]
    assert ask("POST", "/api/generate", {"model": "thinker", "keep_alive": 0, "prompt": ""})[0] == 200


def test_copilot_asks_for_a_base_name(ask):
    agent = {"User-Agent": "GitHubCopilotChat/0.30.1"}
    info = json.loads(ask("POST", "/api/show", {"model": "thinker:latest"}, agent)[2])["model_info"]
    assert info["general.basename"] == "thinker:latest" and info[f"{info['general.architecture']}.context_length"] > 0


def test_openclaw_and_llamaindex_read_the_context(ask):
    info = json.loads(ask("POST", "/api/show", {"model": DEMO})[2])["model_info"]
    assert [value for key, value in info.items() if key.endswith("context_length")] == [1024]


def test_claude_code_counts_tokens(ask):
    body = {"model": "thinker", "messages": HELLO, "tools": [{"name": "a", "input_schema": {"type": "object"}}]}
    status, _, text = ask("POST", "/v1/messages/count_tokens?beta=true", body, {"anthropic-version": "2023-06-01", "x-api-key": "x"})
    assert status == 200 and json.loads(text)["input_tokens"] > 10


def test_claude_code_sends_more_than_is_known(ask):
    body = {
        "model": "weather",
        "max_tokens": 32000,
        "stream": True,
        "system": [{"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}],
        "tools": [{"name": "get_weather", "description": "", "input_schema": WEATHER_TOOL["function"]["parameters"]}],
        "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "tool_choice": {"type": "auto"},
    }
    status, headers, text = ask("POST", "/v1/messages?beta=true", body, {"anthropic-beta": "x", "Authorization": "Bearer x"})
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    arguments = "".join(event["delta"]["partial_json"] for event in events
                        if event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta")
    assert json.loads(arguments) == {"city": "Paris", "days": 2}
    assert next(event for event in events if event["type"] == "message_delta")["delta"]["stop_reason"] == "tool_use"


def test_old_clients_send_arguments_as_text_and_no_content(ask):
    call = {"id": "call_1", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = HELLO + [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "rain"}]
    assert ask("POST", "/api/chat", {"model": "weather", "messages": messages, "tools": [WEATHER_TOOL], "stream": False})[0] == 200


def test_unknown_and_odd_options_do_no_harm(ask):
    options = {"mirostat": 2, "tfs_z": 1.0, "numa": False, "num_predict": 2.0, "seed": None, "num_gqa": 8, "made_up": {}, "stop": "x"}
    assert ask("POST", "/api/generate", {"model": DEMO, "prompt": "a", "options": options, "stream": False})[0] == 200
    text = ask("POST", "/api/generate", {"model": DEMO, "prompt": "a", "options": {"temperature": "hot"}})[2]
    assert json.loads(text)["error"] == 'option "temperature" must be of type float32'


def test_keys_may_be_null(ask):
    body = {"model": "thinker", "messages": HELLO, "stream": False, "tools": None, "format": None, "options": None, "think": None, "keep_alive": None}
    assert ask("POST", "/api/chat", body)[0] == 200


def test_llama_server_habits(ask):
    assert json.loads(ask("GET", "/health")[2])["status"] == "ok"
    for path in (f"/props?model={DEMO}", "/slots"):
        assert ask("GET", path)[0] == 200
    tokens = json.loads(ask("POST", "/tokenize", {"content": "hello", "model": DEMO})[2])["tokens"]
    assert json.loads(ask("POST", "/detokenize", {"tokens": tokens, "model": DEMO})[2])["content"].strip() == "hello"
