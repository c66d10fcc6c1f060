"""pydantic-ai over OpenAI's two protocols and its provider for Ollama, with scripted models.

Its provider for Anthropic needs another release of Anthropic's client than the one that is tested here.
"""

import anyio
import pytest
from conftest import LONG_PROMPT
from pydantic import BaseModel
from pydantic_ai import Agent, ModelSettings, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider

GREETING = "Good morning, human."


class Joke(BaseModel):
    setup: str
    punchline: str


class Weather(BaseModel):
    """Weather of the coming days"""

    city: str
    days: int


def openai(url):
    return OpenAIProvider(base_url=f"{url}/v1", api_key="none")


MODELS = {
    "chat": lambda url, name: OpenAIChatModel(name, provider=openai(url)),
    "responses": lambda url, name: OpenAIResponsesModel(name, provider=openai(url)),
    "ollama": lambda url, name: OpenAIChatModel(name, provider=OllamaProvider(base_url=f"{url}/v1")),
}


@pytest.fixture(params=MODELS)
def model(request, url):
    """model(name) -> the model over one protocol."""
    return lambda name: MODELS[request.param](url, name)


def test_an_answer_and_a_conversation_that_goes_on(model):
    agent = Agent(model("thinker"), instructions="Be kind.")
    first = agent.run_sync("hello")
    assert first.output == GREETING
    second = agent.run_sync("again", message_history=first.all_messages())
    assert second.output == GREETING
    assert second.usage.input_tokens > first.usage.input_tokens, "what was said before is in the prompt"


def test_an_answer_that_streams(model):
    async def read():
        async with Agent(model("thinker")).run_stream("hello") as stream:
            return [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]

    pieces = anyio.run(read)
    assert "".join(pieces) == GREETING and len(pieces) > 1


def test_an_output_that_is_a_tool(model):
    """The usual way of pydantic-ai: the answer is a call that must come, whose arguments are the object."""
    agent = Agent(model("weather"), output_type=ToolOutput(Weather, name="get_weather"))
    assert agent.run_sync("hello").output == Weather(city="Paris", days=2)


@pytest.mark.parametrize("output", [NativeOutput, PromptedOutput])
def test_an_output_of_a_schema(model, output):
    joke = Agent(model("joker"), output_type=output(Joke)).run_sync("A joke").output
    assert "lynxes" in joke.setup and joke.punchline


def test_a_tool_is_called_and_its_result_is_read(model):
    asked = []
    agent = Agent(model("weather"))

    @agent.tool_plain
    def get_weather(city: str, days: int) -> str:
        asked.append((city, days))
        return "rain"

    async def two_calls():
        # The scripted model calls for ever: the second call shows that the result of the first was taken.
        async with agent.iter("hello") as run:
            async for node in run:
                if len(asked) == 2:
                    return

    anyio.run(two_calls)
    assert asked == [("Paris", 2)] * 2


def test_a_whole_first_prompt(model):
    answer = Agent(model("agent"), model_settings=ModelSettings(max_tokens=64)).run_sync(LONG_PROMPT)
    assert answer.output == "I have read all of it, human."
    assert answer.usage.input_tokens > 20_000
