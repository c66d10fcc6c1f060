"""instructor: objects of pydantic's models, by calls, by JSON schemas and by JSON alone, with scripted models."""

import anthropic
import instructor
import openai
import pytest
from conftest import LONG_PROMPT
from pydantic import BaseModel, Field

HELLO = [{"role": "user", "content": "hello"}]
MODES = [instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA, instructor.Mode.MD_JSON]


class Joke(BaseModel):
    setup: str
    punchline: str = Field(min_length=3)


class get_weather(BaseModel):
    """Weather of the coming days"""

    city: str
    days: int


def client(url, mode):
    return instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none"), mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_an_object_of_a_schema(url, mode):
    asked = client(url, mode).chat.completions
    joke = asked.create(model="joker", messages=HELLO, response_model=Joke, max_retries=0)
    assert "lynxes" in joke.setup and joke.punchline


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT])
def test_an_object_of_a_call(url, mode):
    asked = client(url, mode).chat.completions
    weather = asked.create(model="weather", messages=HELLO, response_model=get_weather, max_retries=0)
    assert (weather.city, weather.days) == ("Paris", 2)


def test_an_object_that_grows(url):
    asked = client(url, instructor.Mode.JSON).chat.completions
    grown = list(asked.create_partial(model="joker", messages=HELLO, response_model=Joke, max_retries=0))
    assert len(grown) > 1 and "lynxes" in grown[-1].setup


def test_an_object_over_anthropics_protocol(url):
    asked = instructor.from_anthropic(anthropic.Anthropic(base_url=url, api_key="none")).messages
    weather = asked.create(model="weather", max_tokens=64, messages=HELLO, response_model=get_weather, max_retries=0)
    assert (weather.city, weather.days) == ("Paris", 2)


def test_a_whole_first_prompt(url):
    prompt = [{"role": "user", "content": LONG_PROMPT}]
    asked = client(url, instructor.Mode.JSON_SCHEMA).chat.completions
    joke, raw = asked.create_with_completion(model="scribe", messages=prompt, response_model=Joke, max_retries=0)
    assert "lynxes" in joke.setup and raw.usage.prompt_tokens > 20_000
