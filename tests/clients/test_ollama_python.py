"""ollama-python: every call of the package, streamed and not, and what it raises."""

import asyncio
import datetime
import os

import ollama
import pytest
from conftest import ANSWER, DEMO, GREEDY, QUESTION, WEATHER_ARGUMENTS, WEATHER_TOOL
from pydantic import BaseModel

ASK = [{"role": "user", "content": QUESTION}]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(url):
    return ollama.Client(host=url, timeout=60)


def check_summary(last):
    assert last.done and last.done_reason in ("stop", "length")
    for name in ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"):
        assert getattr(last, name) > 0, name
    created = datetime.datetime.fromisoformat(last.created_at)
    assert abs((datetime.datetime.now(datetime.UTC) - created).total_seconds()) < 60


def test_generate(client):
    answer = client.generate(DEMO, QUESTION, options=GREEDY)
    assert ANSWER in answer.response and answer.model == DEMO
    assert len(answer.context) == answer.prompt_eval_count + answer.eval_count or answer.context
    check_summary(answer)


def test_generate_streams_pieces_that_join_to_the_whole_answer(client):
    whole = client.generate(DEMO, QUESTION, options=GREEDY).response
    chunks = list(client.generate(DEMO, QUESTION, options=GREEDY, stream=True))
    assert len(chunks) > 3 and not any(chunk.done for chunk in chunks[:-1])
    assert "".join(chunk.response for chunk in chunks) == whole
    check_summary(chunks[-1])


def test_generate_goes_on_from_a_context(client):
    first = client.generate(DEMO, QUESTION, options=GREEDY)
    second = client.generate(DEMO, "Who are you?", context=first.context, options=GREEDY)
    alone = client.generate(DEMO, "Who are you?", options=GREEDY)
    assert second.prompt_eval_count > alone.prompt_eval_count + len(first.context) // 2


def test_generate_raw_has_no_template_and_no_context(client):
    templated = client.generate(DEMO, "The", options={"num_predict": 2})
    raw = client.generate(DEMO, "The", raw=True, options={"num_predict": 2})
    assert raw.context is None and 0 < raw.prompt_eval_count < templated.prompt_eval_count
    with pytest.raises(ollama.ResponseError, match="raw mode does not support template, system, or context") as error:
        client.generate(DEMO, "The", raw=True, system="no")
    assert error.value.status_code == 400


def test_generate_uses_the_system_prompt_of_the_request(client):
    plain = client.generate(DEMO, "hi", options={"num_predict": 1})
    longer = client.generate(DEMO, "hi", system="You are a very long system prompt.", options={"num_predict": 1})
    assert longer.prompt_eval_count > plain.prompt_eval_count


def test_suffix_needs_a_model_that_inserts(client):
    with pytest.raises(ollama.ResponseError, match="does not support insert") as error:
        client.generate(DEMO, "def f(", suffix="return 1")
    assert error.value.status_code == 400


def test_load_and_unload(client):
    loaded = client.generate(DEMO, keep_alive="5m")
    assert loaded.done and loaded.done_reason == "load" and loaded.response == ""
    assert DEMO.lower() in [model.name.lower().removesuffix(":latest") for model in client.ps().models]
    assert client.generate(DEMO, "", keep_alive=0).done_reason == "unload"
    assert DEMO.lower() not in [model.name.lower().removesuffix(":latest") for model in client.ps().models]
    assert client.chat(DEMO, []).done_reason == "load"
    assert client.chat(DEMO, [], keep_alive=0).done_reason == "unload"


@pytest.mark.parametrize("keep_alive", ["5m", "1h30m", "-1m", 300, -1, 10.5])
def test_keep_alive_forms(client, keep_alive):
    client.generate("thinker", "hi", keep_alive=keep_alive)
    model = next(model for model in client.ps().models if model.model == "thinker:latest")
    seconds = (model.expires_at - datetime.datetime.now(model.expires_at.tzinfo)).total_seconds()
    expected = {"5m": 300, "1h30m": 5400}.get(keep_alive, keep_alive)
    if expected == "-1m" or expected == -1:
        assert seconds > 20 * 365 * 86400
    else:
        assert expected - 30 < seconds <= expected + 1


def test_keep_alive_as_the_text_of_a_number_is_that_number(client):
    assert client.generate("thinker", "hi", keep_alive="300").done


@pytest.mark.parametrize("keep_alive", ["3x", "soon"])
def test_keep_alive_that_is_no_time_is_refused(client, keep_alive):
    with pytest.raises(ollama.ResponseError) as error:
        client.generate("thinker", "hi", keep_alive=keep_alive)
    assert error.value.status_code == 400


def test_chat(client):
    answer = client.chat(DEMO, ASK, options=GREEDY)
    assert ANSWER in answer.message.content and answer.message.role == "assistant"
    check_summary(answer)
    chunks = list(client.chat(DEMO, ASK, options=GREEDY, stream=True))
    assert "".join(chunk.message.content for chunk in chunks) == answer.message.content
    assert all(chunk.message.role == "assistant" for chunk in chunks)
    check_summary(chunks[-1])


def test_chat_of_the_async_client(url):
    async def talk():
        client = ollama.AsyncClient(host=url, timeout=60)
        text = ""
        async for chunk in await client.chat(DEMO, ASK, options=GREEDY, stream=True):
            text += chunk.message.content
        return text

    assert ANSWER in asyncio.run(talk())


def test_prompt_count_includes_what_was_reused(client):
    first = client.chat(DEMO, ASK, options=GREEDY)
    again = client.chat(DEMO, ASK, options=GREEDY)
    assert first.prompt_eval_count == again.prompt_eval_count and first.message.content == again.message.content


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_and_answer_are_apart(client, stream):
    answer = client.chat("thinker", HELLO, think=True, stream=stream)
    chunks = list(answer) if stream else [answer]
    thinking = "".join(chunk.message.thinking or "" for chunk in chunks)
    content = "".join(chunk.message.content or "" for chunk in chunks)
    assert thinking.strip() == "The user greets me. So do I." and content.strip() == "Good morning, human."
    if stream:
        assert not any(chunk.message.thinking and chunk.message.content for chunk in chunks)


def test_thinking_is_on_unless_switched_off(client):
    assert client.chat("thinker", HELLO).message.thinking
    off = client.chat("thinker", HELLO, think=False)
    assert not off.message.thinking and off.message.content.strip() == "Good morning, human."
    assert client.generate("thinker", "hello").thinking
    assert not client.generate("thinker", "hello", think=False).thinking
    assert client.chat("thinker", HELLO, think="high").message.thinking


def test_thinking_asked_of_a_model_that_cannot(client):
    with pytest.raises(ollama.ResponseError, match=f'"{DEMO}" does not support thinking') as error:
        client.chat(DEMO, HELLO, think=True)
    assert error.value.status_code == 400
    assert client.chat(DEMO, HELLO, think=False, options={"num_predict": 1}).done


@pytest.mark.parametrize("model", ["weather", "caller"])
@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_come_whole(client, model, stream):
    answer = client.chat(model, HELLO, tools=[WEATHER_TOOL], stream=stream)
    chunks = list(answer) if stream else [answer]
    calls = [call for chunk in chunks for call in chunk.message.tool_calls or []]
    assert [(call.function.name, call.function.arguments) for call in calls] == [("get_weather", WEATHER_ARGUMENTS)]
    assert chunks[-1].done_reason == "stop"
    assert "tool_call" not in "".join(chunk.message.content or "" for chunk in chunks)
    if model == "caller":
        assert "I should look" in "".join(chunk.message.thinking or "" for chunk in chunks)


def test_a_python_function_is_a_tool_and_its_result_goes_back(client):
    def get_weather(city: str, days: int = 1) -> str:
        """Weather of the coming days.

        Args:
          city: Which
          days: How many
        """
        return f"{days} days of rain in {city}"

    messages = list(HELLO)
    first = client.chat("weather", messages, tools=[get_weather])
    call = first.message.tool_calls[0]
    messages += [first.message, {"role": "tool", "tool_name": call.function.name, "content": get_weather(**call.function.arguments)}]
    second = client.chat("weather", messages, tools=[get_weather])
    assert second.done and second.prompt_eval_count > first.prompt_eval_count


def test_tools_of_a_model_that_cannot(client):
    with pytest.raises(ollama.ResponseError, match="does not support tools") as error:
        client.chat(DEMO, HELLO, tools=[WEATHER_TOOL])
    assert error.value.status_code == 400


class Answer(BaseModel):
    kind: bool
    paws: int


@pytest.mark.parametrize("stream", [False, True])
def test_format_schema(client, stream):
    schema = {"type": "object", "properties": {"kind": {"type": "boolean"}, "colour": {"enum": ["red", "grey"]}}, "required": ["kind", "colour"]}
    import json

    answer = client.chat(DEMO, ASK, format=schema, stream=stream, options={"num_predict": 100, "temperature": 0})
    text = "".join(chunk.message.content for chunk in answer) if stream else answer.message.content
    value = json.loads(text)
    assert isinstance(value["kind"], bool) and value["colour"] in ("red", "grey")


def test_format_json(client):
    import json

    text = client.generate("joker", "A joke, as JSON.", format="json").response
    assert json.loads(text) == {"setup": "Why do lynxes purr?", "punchline": "Nobody dares to ask."}


def test_format_that_is_none(client):
    with pytest.raises(ollama.ResponseError, match="invalid format") as error:
        client._request_raw("POST", "/api/generate", json={"model": DEMO, "prompt": "hi", "format": "yaml"})
    assert error.value.status_code in (400, 500)


def test_logprobs(client):
    answer = client.generate(DEMO, QUESTION, options=GREEDY | {"num_predict": 3}, logprobs=True, top_logprobs=2)
    assert len(answer.logprobs) == 3
    for one in answer.logprobs:
        assert one.logprob <= 0 and len(one.top_logprobs) == 2 and one.token == one.top_logprobs[0].token


def test_options_of_every_type(client):
    options = ollama.Options(
        num_ctx=512, num_batch=64, num_gpu=0, num_thread=2, num_keep=2, seed=7, num_predict=5, top_k=10, top_p=0.5, typical_p=0.9,
        repeat_last_n=8, temperature=0.3, repeat_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.1, stop=["\n\n"],
        mirostat=0, penalize_newline=True, use_mmap=True, low_vram=False,
    )
    assert client.generate(DEMO, QUESTION, options=options).eval_count <= 5
    with pytest.raises(ollama.ResponseError, match='option "num_ctx" must be of type integer') as error:
        client._request_raw("POST", "/api/generate", json={"model": DEMO, "prompt": "a", "options": {"num_ctx": "big"}})
    assert error.value.status_code == 400


def test_the_same_seed_says_the_same(client):
    say = lambda seed: client.generate(DEMO, "Tell me", options={"seed": seed, "temperature": 1.5, "num_predict": 12}).response
    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1


def test_stop_sequences_end_the_answer_and_are_not_in_it(client):
    answer = client.generate("endless", "go", options={"stop": ["tack"], "num_predict": 50})
    assert answer.response.split() == ["tick", "tock"] and answer.done_reason == "stop"
    bounded = client.generate("endless", "go", options={"num_predict": 5})
    assert bounded.done_reason == "length" and bounded.eval_count == 5


def test_embed(client):
    one = client.embed(DEMO, "a lynx")
    two = client.embed(DEMO, ["a lynx", "a borrow checker"])
    assert len(two.embeddings) == 2 and one.prompt_eval_count > 0 and one.total_duration > 0
    for vector in [*one.embeddings, *two.embeddings]:
        assert abs(sum(x * x for x in vector) - 1) < 1e-3
    same = sum(a * b for a, b in zip(one.embeddings[0], two.embeddings[0]))
    other = sum(a * b for a, b in zip(two.embeddings[0], two.embeddings[1]))
    assert same > 0.99 > other
    cut = client.embed(DEMO, "a lynx", dimensions=64).embeddings[0]
    assert len(cut) == 64 and abs(sum(x * x for x in cut) - 1) < 1e-3
    assert client.embed(DEMO, []).embeddings == []


def test_old_embeddings(client):
    vector = client.embeddings(DEMO, "a lynx").embedding
    assert len(vector) == len(client.embed(DEMO, "a lynx").embeddings[0])


def test_list(client):
    models = {model.model: model for model in client.list().models}
    demo = next(model for name, model in models.items() if name.lower() == f"{DEMO}:latest".lower())
    assert demo.size > 1_000_000 and len(demo.digest) == 64 and demo.modified_at.tzinfo
    assert demo.details.format == "gguf" and demo.details.family == "qwen3moe" and demo.details.quantization_level
    assert {"thinker:latest", "weather:latest"} <= set(models)


def test_show(client):
    shown = client.show(DEMO)
    assert shown.modelinfo["general.architecture"] == "qwen3moe" and shown.modelinfo["qwen3moe.context_length"] == 1024
    assert shown.modelinfo["qwen3moe.embedding_length"] == 512 and shown.modelinfo["general.parameter_count"] > 1e6
    assert "tokenizer.chat_template" not in shown.modelinfo and "completion" in shown.capabilities
    assert {"tools", "thinking"} <= set(client.show("caller").capabilities)
    assert "thinking" not in client.show("weather").capabilities and "tools" in client.show("weather").capabilities


def test_ps(client):
    client.generate(DEMO, QUESTION, options={"num_predict": 1})
    model = next(model for model in client.ps().models if model.name.lower() == f"{DEMO}:latest".lower())
    assert model.size > 0 and model.size_vram <= model.size and model.context_length >= 512 and model.expires_at.tzinfo


def test_copy_create_delete(client):
    client.copy("thinker", "mine")
    assert client.chat("mine", HELLO, think=False).message.content.strip() == "Good morning, human."
    statuses = [step.status for step in client.create("pirate", from_="thinker", system="Arr.", parameters={"stop": ["human"], "num_ctx": 512}, stream=True)]
    assert statuses[-1] == "success"
    assert client.show("pirate").parameters.startswith(("num_ctx", "stop")) and "Arr." in client.show("pirate").modelfile
    assert "human" not in client.chat("pirate", HELLO, think=False).message.content
    for name in ("mine", "pirate"):
        assert client.delete(name).status == "success"
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.show("mine")


def test_create_from_an_uploaded_file(client):
    import os
    from pathlib import Path

    digest = client.create_blob(Path(os.environ["HYPURA_TEST_WORK"]) / "models/weather.gguf")
    assert client.create("uploaded", files={"weather.gguf": digest}).status == "success"
    assert client.chat("uploaded", HELLO, tools=[WEATHER_TOOL]).message.tool_calls
    client.delete("uploaded")


def test_pull_of_what_is_there_and_of_what_is_not(client):
    assert client.pull("thinker").status == "success"
    assert [step.status for step in client.pull("thinker", stream=True)][-1] == "success"
    with pytest.raises(ollama.ResponseError):
        client.pull("nobody-has-this")


# As Modelfiles have them: the weights' own template, in Go's language.
GO_TEMPLATE = """{{- if or .System .Tools }}<|im_start|>system
{{ .System }}
{{- if .Tools }}

# Tools

Functions within <tools></tools>:
<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>

A call is a JSON object within <tool_call></tool_call>:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""


def test_a_template_in_go_has_tools(client):
    client.create("go-weather", from_="weather", template=GO_TEMPLATE)
    assert client.show("go-weather").template == GO_TEMPLATE and "tools" in client.show("go-weather").capabilities
    first = client.chat("go-weather", HELLO, tools=[WEATHER_TOOL]).message
    assert [(call.function.name, call.function.arguments) for call in first.tool_calls] == [("get_weather", WEATHER_ARGUMENTS)]
    result = {"role": "tool", "tool_name": "get_weather", "content": "rain"}
    second = client.chat("go-weather", [*HELLO, first, result], tools=[WEATHER_TOOL]).message
    assert second.tool_calls and not second.content
    client.delete("go-weather")


def test_pull_of_a_model_that_is_elsewhere(client):
    name = os.environ["HYPURA_TEST_REMOTE"]
    steps = list(client.pull(name, stream=True, insecure=True))
    assert steps[0].status == "pulling manifest" and steps[-1].status == "success"
    layers = [step for step in steps if step.digest]
    assert all(step.status == f"pulling {step.digest[7:19]}" and step.completed <= step.total for step in layers)
    assert {step.digest for step in layers if step.completed == step.total} == {step.digest for step in layers}
    known = name.removeprefix("http://")
    assert client.generate(known, "What is a lynx?", options={"num_predict": 4}).response
    assert client.pull(name, insecure=True).status == "success"
    client.delete(known)
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.show(known)


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_not_there(client, stream):
    for call in (
        lambda: client.generate("nobody", "hi", stream=stream),
        lambda: client.chat("nobody", HELLO, stream=stream),
        lambda: client.embed("nobody", "hi"),
        lambda: client.show("nobody"),
        lambda: client.delete("nobody"),
        lambda: client.copy("nobody", "somebody"),
    ):
        with pytest.raises(ollama.ResponseError, match="not found") as error:
            answer = call()
            list(answer) if stream else None
        assert error.value.status_code == 404


def test_a_client_that_goes_away_stops_its_work(client, idle):
    for index, _ in enumerate(client.chat("endless", HELLO, stream=True, options={"num_predict": -1, "num_ctx": 8192})):
        if index == 3:
            break
    idle()
