"""openai-python: chat, completions, embeddings (base64, as the package asks by default), models, responses."""

import base64
import json
import struct

import openai
import pytest
from conftest import ANSWER, DEMO, QUESTION, WEATHER_ARGUMENTS, WEATHER_TOOL
from pydantic import BaseModel

ASK = [{"role": "user", "content": QUESTION}]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="ollama", max_retries=0, timeout=60)


def test_chat(client):
    answer = client.chat.completions.create(model=DEMO, messages=ASK, temperature=0, max_tokens=40)
    assert ANSWER in answer.choices[0].message.content and answer.object == "chat.completion"
    assert answer.choices[0].finish_reason in ("stop", "length") and answer.choices[0].message.role == "assistant"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.prompt_tokens > 0


def test_chat_streams(client):
    whole = client.chat.completions.create(model=DEMO, messages=ASK, temperature=0, max_completion_tokens=40)
    stream = client.chat.completions.create(
        model=DEMO, messages=ASK, temperature=0, max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant" and len({chunk.created for chunk in chunks}) == 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert finishes == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_content_in_parts_and_developer_messages(client):
    messages = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    assert client.chat.completions.create(model=DEMO, messages=messages, max_tokens=2).choices[0].message.content


def test_length_and_stop(client):
    short = client.chat.completions.create(model="endless", messages=HELLO, max_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3
    for stop in ("tack", ["tack", "never"]):
        answer = client.chat.completions.create(model="endless", messages=HELLO, stop=stop, max_tokens=50)
        assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content.split() == ["tick", "tock"]


@pytest.mark.parametrize("model", ["weather", "caller"])
def test_tools(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, tools=[WEATHER_TOOL])
    choice = answer.choices[0]
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls" and call.type == "function" and call.id
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == WEATHER_ARGUMENTS
    history = HELLO + [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = client.chat.completions.create(model=model, messages=history, tools=[WEATHER_TOOL])
    assert second.usage.prompt_tokens > answer.usage.prompt_tokens


def test_tools_stream(client):
    calls: dict[int, list[str]] = {}
    finish = None
    for chunk in client.chat.completions.create(model="caller", messages=HELLO, tools=[WEATHER_TOOL], stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            entry = calls.setdefault(call.index, ["", ""])
            entry[0] += call.function.name or ""
            entry[1] += call.function.arguments or ""
        finish = chunk.choices[0].finish_reason or finish
    assert finish == "tool_calls" and calls[0][0] == "get_weather" and json.loads(calls[0][1]) == WEATHER_ARGUMENTS


def test_tool_choice_none(client):
    answer = client.chat.completions.create(model="weather", messages=HELLO, tools=[WEATHER_TOOL], tool_choice="none", max_tokens=20)
    assert not answer.choices[0].message.tool_calls


def test_reasoning_is_apart(client):
    message = client.chat.completions.create(model="thinker", messages=HELLO).choices[0].message
    assert message.content.strip() == "Good morning, human." and "So do I" in message.reasoning
    off = client.chat.completions.create(model="thinker", messages=HELLO, reasoning_effort="none").choices[0].message
    assert not getattr(off, "reasoning", None) and off.content.strip() == "Good morning, human."
    pieces = [chunk.choices[0].delta for chunk in client.chat.completions.create(model="thinker", messages=HELLO, stream=True)]
    assert "".join(getattr(piece, "reasoning", None) or "" for piece in pieces).strip() == message.reasoning.strip()
    assert "think>" not in "".join(piece.content or "" for piece in pieces)


class Joke(BaseModel):
    setup: str
    punchline: str


def test_structured_output(client):
    joke = client.chat.completions.parse(model="joker", messages=HELLO, response_format=Joke).choices[0].message.parsed
    assert joke == Joke(setup="Why do lynxes purr?", punchline="Nobody dares to ask.")
    answer = client.chat.completions.create(model="joker", messages=HELLO, response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content)["setup"]


def test_logprobs(client):
    answer = client.chat.completions.create(model=DEMO, messages=ASK, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert len(content) == 3 and all(one.logprob <= 0 and len(one.top_logprobs) == 2 for one in content)


def test_completions(client):
    answer = client.completions.create(model=DEMO, prompt="A lynx is", max_tokens=5, temperature=0)
    assert answer.object == "text_completion" and answer.choices[0].text and answer.usage.completion_tokens <= 5
    stream = client.completions.create(model=DEMO, prompt="A lynx is", max_tokens=5, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == answer.choices[0].text


def test_embeddings(client, ask):
    answer = client.embeddings.create(model=DEMO, input=["a lynx", "a borrow checker"])
    assert [one.index for one in answer.data] == [0, 1] and answer.usage.prompt_tokens > 0
    floats = client.embeddings.create(model=DEMO, input=["a lynx", "a borrow checker"], encoding_format="float")
    for one, other in zip(answer.data, floats.data):
        assert len(one.embedding) == 512 and max(abs(a - b) for a, b in zip(one.embedding, other.embedding)) < 1e-5
    # What the package asked for by default, seen raw.
    _, _, text = ask("POST", "/v1/embeddings", {"model": DEMO, "input": "a lynx", "encoding_format": "base64"})
    raw = base64.b64decode(json.loads(text)["data"][0]["embedding"])
    assert abs(struct.unpack("<f", raw[:4])[0] - floats.data[0].embedding[0]) < 1e-5
    assert len(client.embeddings.create(model=DEMO, input="a", dimensions=32).data[0].embedding) == 32
    with pytest.raises(openai.BadRequestError, match="invalid input"):
        client.embeddings.create(model=DEMO, input=[])


def test_models(client):
    models = {model.id: model for model in client.models.list()}
    assert "thinker:latest" in models and models["thinker:latest"].object == "model" and models["thinker:latest"].created > 1e9
    assert client.models.retrieve("thinker:latest").id.startswith("thinker")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_errors(client):
    with pytest.raises(openai.NotFoundError, match="not found") as error:
        client.chat.completions.create(model="nobody", messages=ASK)
    assert error.value.body["type"] == "not_found_error"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=DEMO, messages=[])
    assert error.value.body["type"] == "invalid_request_error"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=DEMO, messages=ASK, reasoning_effort="enormous")


def test_responses(client):
    answer = client.responses.create(model=DEMO, input=QUESTION, temperature=0, max_output_tokens=40)
    assert ANSWER in answer.output_text and answer.status in ("completed", "incomplete") and answer.usage.input_tokens > 0
    call = next(item for item in client.responses.create(
        model="weather", input="hello", tools=[{"type": "function", **WEATHER_TOOL["function"]}]).output if item.type == "function_call")
    assert call.name == "get_weather" and json.loads(call.arguments) == WEATHER_ARGUMENTS and call.call_id


def test_responses_stream(client):
    events = list(client.responses.create(model="thinker", input="hello", stream=True))
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text.strip() == "Good morning, human." == events[-1].response.output_text.strip()
    assert any(event.type == "response.reasoning_summary_text.delta" for event in events)
    with client.responses.stream(model=DEMO, input=QUESTION, temperature=0, max_output_tokens=60) as stream:
        assert ANSWER in stream.get_final_response().output_text
    # An answer that was cut is incomplete, as with OpenAI.
    cut = list(client.responses.create(model="endless", input="hello", max_output_tokens=5, stream=True))
    assert cut[-1].type == "response.incomplete" and cut[-1].response.incomplete_details.reason == "max_output_tokens"


def test_a_client_that_goes_away_stops_its_work(client, idle):
    stream = client.chat.completions.create(model="endless", messages=HELLO, stream=True)
    for index, _ in enumerate(stream):
        if index == 3:
            break
    stream.close()
    idle()
