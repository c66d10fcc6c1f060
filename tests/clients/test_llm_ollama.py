"""llm with llm-ollama: models by capability, prompts, conversations, tools, schemas, embeddings."""

import asyncio

import llm
import pytest
from conftest import ANSWER, DEMO, QUESTION


@pytest.fixture(scope="module", autouse=True)
def _needs_server(url):
    pass


def test_models_are_found_with_and_without_tag():
    names = {name for model in llm.get_models() for name in [model.model_id]}
    assert {"thinker:latest", "weather:latest"} <= names
    assert llm.get_model("thinker").model_id == "thinker:latest"
    assert llm.get_model("weather").supports_tools and not llm.get_model(DEMO).supports_tools


@pytest.mark.parametrize("stream", [False, True])
def test_prompt(stream):
    answer = llm.get_model(DEMO).prompt(QUESTION, stream=stream, temperature=0, num_predict=40)
    assert ANSWER in "".join(answer) and answer.usage().input > 0


def test_prompt_of_the_async_model():
    async def talk():
        return await llm.get_async_model(DEMO).prompt(QUESTION, temperature=0, num_predict=40).text()

    assert ANSWER in asyncio.run(talk())


def test_conversation():
    conversation = llm.get_model(DEMO).conversation()
    first = conversation.prompt(QUESTION, temperature=0, num_predict=40)
    assert first.text()
    second = conversation.prompt("Who are you?", system="Be short.", temperature=0, num_predict=20)
    assert second.text() and second.usage().input > first.usage().input


def test_tools():
    def get_weather(city: str, days: int = 1) -> str:
        return f"{days} days of rain in {city}"

    answer = llm.get_model("weather").prompt("hello", tools=[llm.Tool.function(get_weather)])
    assert [(call.name, call.arguments) for call in answer.tool_calls()] == [("get_weather", {"city": "Paris", "days": 2})]
    assert answer.execute_tool_calls()[0].output == "2 days of rain in Paris"


def test_schema():
    answer = llm.get_model("joker").prompt("A joke", schema=llm.schema_dsl("setup, punchline"))
    assert "purr" in answer.text()


def test_embeddings():
    model = llm.get_embedding_model(DEMO)
    assert len(model.embed("a lynx")) == 512 and len(list(model.embed_multi(["a", "b"]))) == 2
