"""The answers of the doubles, read strictly as the official SDKs' types: a field that a type lacks is an error too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import cohere.types
import cohere.v2.types
import pytest
from anthropic import types as anthropic
from botocore.validate import ParamValidator
from google.genai import types as google
from openai import types as openai
from openai.types import chat, responses
from pydantic import BaseModel, TypeAdapter

from tests.doubles.answers import Question
from tests.doubles.faults import DONE, NONE
from tests.doubles.routes import find

Json = dict[str, Any]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
USER = [{"role": "user", "content": "hello there"}]
BLOCKS = [{"role": "user", "content": [{"text": "hello there"}]}]
PARTS = [{"role": "user", "parts": [{"text": "hello there"}]}]
FUNCTION = {"name": "weather", "parameters": CITY}
FORMAT = {"name": "w", "schema": CITY}
THINKING = {"type": "enabled", "budget_tokens": 1024}
EMBED = {"texts": ["a"], "input_type": "search_query", "embedding_types": ["float"], "output_dimension": 256}
ANTHROPIC = [(b"anthropic-version", b"2023-06-01")]
BEDROCK = botocore.session.get_session().get_service_model("bedrock-runtime")

# An API: its body, and what else a request may hold.
CHATS: dict[str, tuple[Json, list[Json]]] = {
    "/v1/chat/completions": (
        {"messages": USER},
        [
            {"tools": [{"type": "function", "function": FUNCTION}]},
            {"response_format": {"type": "json_schema", "json_schema": FORMAT}},
            {"logprobs": True, "top_logprobs": 2, "n": 2},
            {"reasoning_effort": "low", "max_completion_tokens": 2},
        ],
    ),
    "/v1/responses": (
        {"input": "hello there"},
        [
            {"instructions": "Be brief.", "max_output_tokens": 16},
            {"tools": [{"type": "function", **FUNCTION, "strict": True}]},
            {"text": {"format": {"type": "json_schema", **FORMAT}}},
            {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        ],
    ),
    "/v1/messages": (
        {"messages": USER, "max_tokens": 2000},
        [
            {"system": "Be brief.", "stop_sequences": [" there"]},
            {"tools": [{"name": "weather", "input_schema": CITY}]},
            {"output_config": {"format": {"type": "json_schema", "schema": CITY}}},
            {"thinking": THINKING},
        ],
    ),
    "/v2/chat": (
        {"messages": USER},
        [
            {"max_tokens": 2},
            {"tools": [{"type": "function", "function": FUNCTION}]},
            {"response_format": {"type": "json_object", "json_schema": CITY}},
            {"thinking": {"type": "enabled"}},
        ],
    ),
    "/v1beta/models/gemini-x:generateContent": (
        {"contents": PARTS},
        [
            {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "generationConfig": {"maxOutputTokens": 2}},
            {"tools": [{"functionDeclarations": [{"name": "weather", "parametersJsonSchema": CITY}]}]},
            {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": CITY}},
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True}}},
        ],
    ),
    "/model/nova/converse": (
        {"messages": BLOCKS},
        [
            {"system": [{"text": "Be brief."}], "inferenceConfig": {"maxTokens": 2}},
            {"toolConfig": {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": CITY}}}]}},
            {"additionalModelRequestFields": {"thinking": THINKING}},
        ],
    ),
}
# Fields that the APIs' references have and the SDKs' types lack. The last four stand in Cohere's `message-start`.
UNTYPED = {"store", "obfuscation", "content", "tool_plan", "tool_calls", "citations"}
PADDING = "p"  # of every event of Bedrock; botocore drops it
STREAMS = {
    "/v1beta/models/gemini-x:generateContent": "/v1beta/models/gemini-x:streamGenerateContent",
    "/model/nova/converse": "/model/nova/converse-stream",
}
TYPES: dict[str, Any] = {
    "/v1/chat/completions": (chat.ChatCompletion, chat.ChatCompletionChunk),
    "/v1/responses": (responses.Response, responses.ResponseStreamEvent),
    "/v1/messages": (anthropic.Message, anthropic.RawMessageStreamEvent),
    "/v2/chat": (cohere.v2.types.V2ChatResponse, cohere.v2.types.V2ChatStreamResponse),
    "/v1beta/models/gemini-x:generateContent": (google.GenerateContentResponse, google.GenerateContentResponse),
}
OTHERS: list[tuple[str, Json, Any]] = [
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "float"}, openai.CreateEmbeddingResponse),
    ("/v1/images/generations", {"prompt": "a cat", "model": "gpt-image-1"}, openai.ImagesResponse),
    ("/v1/moderations", {"input": "hello", "model": "omni-moderation-latest"}, openai.ModerationCreateResponse),
    ("/v1/responses/input_tokens", {"input": "hello"}, responses.InputTokenCountResponse),
    ("/v1/messages/count_tokens", {"messages": USER}, anthropic.MessageTokensCount),
    ("/v2/embed", EMBED, cohere.types.EmbedByTypeResponse),
    ("/v2/rerank", {"query": "a", "documents": ["a", "b"]}, cohere.v2.types.V2RerankResponse),
    ("/v1beta/models/gemini-x:countTokens", {"contents": PARTS}, google.CountTokensResponse),
]


def ask(path: str, body: Json) -> Any:
    endpoint, model = find(path)
    assert endpoint is not None
    body = ({} if model else {"model": "gpt-x"}) | body
    question = Question(body, "0123456789abcdef01234567", "mock", NONE, model or body["model"], ANTHROPIC)
    return endpoint.asked(question)


def read(kind: Any, data: bytes) -> None:
    """Validate JSON in strict mode. Raises for wrong types and for fields that the SDK's types lack."""
    value = TypeAdapter(kind).validate_json(data, strict=True)
    assert set(unknown(value)) <= UNTYPED


def unknown(value: Any) -> Iterator[str]:
    match value:
        case BaseModel():
            yield from value.model_extra or ()
            for name in type(value).model_fields:
                yield from unknown(getattr(value, name))
        case list():
            for each in value:
                yield from unknown(each)
        case dict():
            yield from unknown(list(value.values()))


def read_converse(operation: str, member: str | None, document: Json) -> None:
    """Validate one answer or event against the service model that botocore ships."""
    shape: Any = BEDROCK.operation_model(operation).output_shape
    shape = shape.members["stream"].members[member] if member else shape
    document = {name: value for name, value in document.items() if name != PADDING}
    report = ParamValidator().validate(document, shape)
    assert report.generate_report() == ""


CASES = [(path, body | more) for path, (body, extra) in CHATS.items() for more in [{}, *extra]]


@pytest.mark.parametrize(("path", "body"), CASES)
def test_a_plain_answer_is_what_the_sdk_expects(path, body):
    document = ask(path, body).document
    if path in TYPES:
        read(TYPES[path][0], json.dumps(document).encode())
    else:
        read_converse("Converse", None, document)


@pytest.mark.parametrize(("path", "body"), CASES)
def test_each_event_of_a_stream_is_what_the_sdk_expects(path, body):
    streamed = {} if path in STREAMS else {"stream": True}
    events = list(ask(STREAMS.get(path, path), body | streamed).events)
    assert len(events) > 1 or "google" in str(TYPES.get(path))
    for event in events:
        if path not in TYPES:
            read_converse("ConverseStream", event.name, json.loads(event.data))
        elif event is not DONE and event.name != "ping":  # the SDK drops pings before it reads events
            read(TYPES[path][1], event.data)


@pytest.mark.parametrize(("path", "body", "kind"), OTHERS, ids=[path for path, *_ in OTHERS])
def test_other_endpoints_answer_what_the_sdk_expects(path, body, kind):
    read(kind, json.dumps(ask(path, body).document).encode())
