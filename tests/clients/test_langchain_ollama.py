"""langchain-ollama under the standard suite of langchain-tests, and what the suite leaves out.

Three models take turns because no tiny one is able: the demo model talks, `magic` calls the tool that the suite offers,
`joker` writes the JSON that the suite's schemas want. What is skipped, and why, is in the table below; nothing else is.
"""

from typing import Any

import pytest
from conftest import ANSWER, DEMO, QUESTION
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from pydantic import ValidationError

# Test of the suite -> why it does not run here.
EXCLUDED = {
    "test_tool_calling_with_no_arguments": "another tool than `magic` calls: see test_a_tool_without_arguments",
    "test_unicode_tool_call_integration": "needs a model that copies text of its prompt",
    "test_agent_loop": "needs a model that answers after a tool's result instead of calling again",
    "test_structured_few_shot_examples": "its tool is not the one that `magic` calls",
    "test_bind_runnables_as_tools": "another tool than `magic` calls: see test_a_runnable_as_a_tool",
    "test_tool_choice": "Ollama's API has no tool_choice",
}


@pytest.fixture(autouse=True)
def _exclude(request):
    name = request.node.originalname
    if request.cls is not None and name in EXCLUDED:
        pytest.skip(EXCLUDED[name])


class Suite(ChatModelIntegrationTests):
    """The suite; the classes below choose which of its tests a model is for."""

    name = DEMO
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @pytest.fixture(autouse=True)
    def _chosen(self, request, url):
        type(self).base_url = url
        test = request.node.originalname
        if (self.only and not test.startswith(self.only)) or test.startswith(self.without or "-"):
            pytest.skip("run with another model")

    @pytest.fixture
    def model(self, request: Any, url: str):
        return ChatOllama(model=self.name, base_url=url, temperature=0, num_predict=120, **getattr(request, "param", {}))

    @property
    def chat_model_class(self):
        return ChatOllama

    @property
    def chat_model_params(self) -> dict:
        return {"model": self.name}

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @property
    def has_tool_choice(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return True


TOOLS = ("test_tool", "test_bind", "test_agent", "test_structured_few", "test_unicode", "test_message_with_tools")
JSON = ("test_structured_output", "test_json_mode")


class TestTalks(Suite):
    without = TOOLS + JSON

    @property
    def model_override_value(self) -> str:
        return "thinker"


class TestCallsTools(Suite):
    name = "magic"
    only = TOOLS


class TestWritesJson(Suite):
    name = "joker"
    only = JSON


class TestEmbeds(EmbeddingsIntegrationTests):
    @pytest.fixture
    def model(self, url: str):
        return OllamaEmbeddings(model=DEMO, base_url=url)

    @property
    def embeddings_class(self):
        return OllamaEmbeddings

    @property
    def embedding_model_params(self) -> dict:
        return {"model": DEMO}


def test_a_tool_without_arguments(url):
    def magic_function_no_args() -> int:
        """Calculates a magic function."""
        return 5

    answer = ChatOllama(model="noargs", base_url=url).bind_tools([magic_function_no_args]).invoke("hello")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("magic_function_no_args", {})]


def test_a_runnable_as_a_tool(url):
    runnable = RunnableLambda(lambda given: given["input"] + 2)
    tool = runnable.as_tool(name="magic_function", description="Calculates", arg_types={"input": int})
    answer = ChatOllama(model="magic", base_url=url).bind_tools([tool]).invoke("hello")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("magic_function", {"input": 3})]
    assert tool.invoke(answer.tool_calls[0]["args"]) == 5


def test_the_model_is_checked_when_asked(url):
    ChatOllama(model="thinker", base_url=url, validate_model_on_init=True)
    with pytest.raises((ValueError, ValidationError), match="not found"):
        ChatOllama(model="nobody", base_url=url, validate_model_on_init=True)


def test_reasoning_is_apart(url):
    answer = ChatOllama(model="thinker", base_url=url, reasoning=True).invoke([HumanMessage("hello")])
    assert answer.content.strip() == "Good morning, human." and "So do I" in answer.additional_kwargs["reasoning_content"]


def test_the_completion_class(url):
    model = OllamaLLM(model=DEMO, base_url=url, temperature=0, num_predict=40)
    assert ANSWER in model.invoke(QUESTION) and ANSWER in "".join(model.stream(QUESTION))
