"""LangChain's OpenAI classes; only their base URL is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from tests.e2e.conftest import KEY, Gateway


class City(BaseModel):
    """A city."""

    name: str
    population: int


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.fixture
def settings(demo: Gateway) -> Iterator[dict[str, Any]]:
    with httpx.Client(verify=False) as http:
        yield {"model": "stub", "base_url": demo.base_url, "api_key": KEY, "max_retries": 0, "http_client": http}


@pytest.fixture
def chat(settings: dict[str, Any]) -> ChatOpenAI:
    return ChatOpenAI(**settings)


def test_a_plain_chat_is_answered(chat: ChatOpenAI):
    answer = chat.invoke("Hello")
    assert answer.content == "You said: Hello"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 4


def test_a_virtual_model_is_answered(settings: dict[str, Any]):
    assert ChatOpenAI(**settings | {"model": "assistant"}).invoke("Hello").content == "You said: Hello"


def test_a_chat_is_streamed(chat: ChatOpenAI):
    chunks = list(chat.stream("Hello"))
    assert len(chunks) > 3
    assert "".join(str(chunk.content) for chunk in chunks) == "You said: Hello"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tool_is_called(settings: dict[str, Any], streaming: bool):
    chat = ChatOpenAI(**settings, streaming=streaming).bind_tools([weather])
    question = chat.invoke("What is the weather?")
    assert [(call["name"], call["args"]) for call in question.tool_calls] == [("weather", {"city": "stub"})]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_parsed(chat: ChatOpenAI, method: Any):
    assert chat.with_structured_output(City, method=method).invoke("Rome") == City(name="stub", population=1)


def test_embeddings_are_returned(settings: dict[str, Any]):
    # Otherwise LangChain sends tokens instead of text, which no guardrail can read.
    embeddings = OpenAIEmbeddings(**settings, check_embedding_ctx_length=False)
    first, second = embeddings.embed_documents(["one", "two"])
    assert len(first) == len(second) == 8
    assert embeddings.embed_query("one") == first
