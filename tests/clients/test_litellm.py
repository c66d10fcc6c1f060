"""litellm: its two Ollama providers, its OpenAI provider, embeddings and model facts (what aider uses)."""

import json

import litellm
import pytest
from conftest import ANSWER, DEMO, QUESTION, WEATHER_ARGUMENTS, WEATHER_TOOL

ASK = [{"role": "user", "content": QUESTION}]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(params=["ollama", "ollama_chat", "openai"])
def call(request, url):
    base = f"{url}/v1" if request.param == "openai" else url

    def completion(model, messages, **more):
        return litellm.completion(
            model=f"{request.param}/{model}", messages=messages, api_base=base, api_key="ollama", num_retries=0, **more
        )

    completion.provider = request.param
    return completion


def test_completion(call):
    answer = call(DEMO, ASK, temperature=0, max_tokens=40)
    assert ANSWER in answer.choices[0].message.content and answer.usage.prompt_tokens > 0


def test_completion_streams(call):
    chunks = list(call(DEMO, ASK, temperature=0, max_tokens=40, stream=True))
    assert ANSWER in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert any(chunk.choices[0].finish_reason for chunk in chunks)


def test_tools(call):
    if call.provider == "ollama":
        pytest.skip("litellm itself writes the tools into the prompt of this provider and never sends them")
    call_made = call("weather", HELLO, tools=[WEATHER_TOOL]).choices[0].message.tool_calls[0]
    assert call_made.function.name == "get_weather" and json.loads(call_made.function.arguments) == WEATHER_ARGUMENTS


def test_a_context_that_changes_each_turn_as_aider_sends_it(call):
    if call.provider == "openai":
        pytest.skip("num_ctx is an option of Ollama")
    for num_ctx in (300, 512, 700):
        assert ANSWER in call(DEMO, ASK, temperature=0, max_tokens=40, num_ctx=num_ctx).choices[0].message.content


def test_embedding(url):
    answer = litellm.embedding(model=f"ollama/{DEMO}", input=["a lynx", "a boot"], api_base=url)
    assert len(answer.data) == 2 and len(answer.data[0]["embedding"]) == 512


def test_model_facts(url, monkeypatch):
    monkeypatch.setenv("OLLAMA_API_BASE", url)
    assert litellm.get_model_info(f"ollama/{DEMO}")["max_tokens"] == 1024
    assert litellm.supports_function_calling("ollama/weather")


def test_a_model_that_is_not_there(call):
    with pytest.raises(Exception, match="not found"):
        call("nobody", ASK)
