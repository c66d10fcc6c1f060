"""anthropic-python: messages streamed and not, tools, thinking, count_tokens, errors."""

import anthropic
import pytest
from conftest import ANSWER, DEMO, QUESTION, WEATHER_ARGUMENTS, WEATHER_TOOL

ASK = [{"role": "user", "content": QUESTION}]
HELLO = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
TOOL = {"name": "get_weather", "description": "Weather", "input_schema": WEATHER_TOOL["function"]["parameters"]}
THINK = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(scope="module")
def client(url):
    return anthropic.Anthropic(base_url=url, api_key="ollama", max_retries=0, timeout=60)


def create(client, **more):
    # The package's typed arguments change faster than the protocol: what it does not name goes as is.
    sampling = {name: more.pop(name) for name in ("temperature",) if name in more}
    return client.messages.create(max_tokens=more.pop("max_tokens", 100), extra_body=sampling, **more)


def test_messages(client):
    answer = create(client, model=DEMO, messages=ASK, temperature=0, system="Be short.")
    assert answer.type == "message" and answer.role == "assistant" and answer.id.startswith("msg_")
    assert "".join(block.text for block in answer.content if block.type == "text").strip()
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.usage.input_tokens > 0 < answer.usage.output_tokens
    assert ANSWER in create(client, model=DEMO, messages=ASK, temperature=0).content[0].text


def test_messages_stream(client):
    with client.messages.stream(model=DEMO, max_tokens=60, messages=ASK, extra_body={"temperature": 0}) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert ANSWER in text and final.content[0].text == text and final.usage.output_tokens > 0
    kinds = [event.type for event in create(client, model=DEMO, messages=ASK, stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and kinds[-2] == "message_delta"


def test_stop_reasons(client):
    assert create(client, model="endless", messages=HELLO, max_tokens=3).stop_reason == "max_tokens"
    stopped = create(client, model="endless", messages=HELLO, stop_sequences=["tack"])
    assert stopped.stop_reason == "stop_sequence" and stopped.content[0].text.split() == ["tick", "tock"]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    arguments = {"model": "weather", "max_tokens": 100, "messages": HELLO, "tools": [TOOL]}
    if stream:
        with client.messages.stream(**arguments) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**arguments)
    block = next(block for block in answer.content if block.type == "tool_use")
    assert answer.stop_reason == "tool_use" and block.name == "get_weather" and block.input == WEATHER_ARGUMENTS
    result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "rain"}]}
    arguments["messages"] = HELLO + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(**arguments).usage.input_tokens > answer.usage.input_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(client, stream):
    arguments = {"model": "thinker", "max_tokens": 100, "messages": HELLO, "extra_body": {"thinking": THINK}}
    if stream:
        with client.messages.stream(**arguments) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**arguments)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert "So do I" in answer.content[0].thinking and answer.content[1].text.strip() == "Good morning, human."


def test_thinking_asked_of_a_model_that_cannot_is_dropped(client):
    answer = client.messages.create(model=DEMO, max_tokens=5, messages=ASK, extra_body={"thinking": THINK})
    assert answer.content[0].type == "text"


def test_count_tokens(client):
    short = client.messages.count_tokens(model=DEMO, messages=ASK).input_tokens
    assert 0 < short < client.messages.count_tokens(model=DEMO, messages=ASK, system="Be short.").input_tokens
    assert short == create(client, model=DEMO, messages=ASK, max_tokens=1).usage.input_tokens


def test_errors(client):
    with pytest.raises(anthropic.NotFoundError, match="not found") as error:
        create(client, model="nobody", messages=ASK)
    assert error.value.body["type"] == "error" and error.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as error:
        create(client, model=DEMO, messages=ASK, max_tokens=0)
    assert error.value.body["error"]["type"] == "invalid_request_error"


def test_a_client_that_goes_away_stops_its_work(client, idle):
    stream = create(client, model="endless", messages=HELLO, max_tokens=100_000, stream=True)
    for index, _ in enumerate(stream):
        if index == 3:
            break
    stream.close()
    idle()
