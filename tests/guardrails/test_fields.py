"""Every string field of the official SDKs' types is searched, or on a list with a reason.

The types of events, of plain answers and of requests are walked; each string in turn is the only text of a value.
"""

import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import typing_extensions
from anthropic import types as claude
from anthropic.types import message_create_params as claude_request
from google.genai import types as gemini
from openai.types import chat, responses
from openai.types.chat import completion_create_params as chat_request
from openai.types.responses import response_create_params as responses_request
from pydantic import BaseModel

from extproc.dialects import client_apis
from extproc.words.said import ArgumentPart, Called, Piece
from tests.guardrails.test_splits import play
from tests.guardrails.test_streamed_forms import SECRET, pieces, settings, sse

WORDS = "CANARY words"
DEPTH = 9


class GeminiRequest(typing.TypedDict):
    """The body of Gemini's requests over HTTP: https://ai.google.dev/api/generate-content."""

    contents: list[gemini.Content]
    systemInstruction: gemini.Content
    tools: list[gemini.Tool]


EVENTS = {
    "openai_chat": [chat.ChatCompletionChunk, chat.ChatCompletion],
    "openai_responses": [responses.ResponseStreamEvent, responses.Response],
    "anthropic_messages": [claude.RawMessageStreamEvent, claude.Message],
    "gemini_generate_content": [gemini.GenerateContentResponse],
}
REQUESTS = {
    "openai_chat": chat_request.CompletionCreateParamsNonStreaming,
    "openai_responses": responses_request.ResponseCreateParamsNonStreaming,
    "anthropic_messages": claude_request.MessageCreateParamsNonStreaming,
    "gemini_generate_content": GeminiRequest,
}

ID, MODEL, BYTES, SEALED = "names an object", "names a model or a version", "holds bytes", "is encrypted or signed"
REASONS = {
    "openai_chat": {"id": ID, "model": MODEL, "system_fingerprint": MODEL, "data": BYTES},
    "openai_responses": {
        **dict.fromkeys(("id", "item_id", "call_id", "container_id", "file_id", "approval_request_id"), ID),
        "model": MODEL,
        "encrypted_content": SEALED,
        **dict.fromkeys(("partial_image_b64", "result"), BYTES),
        "delta": "sound in base64",
        "token": "stands beside its text, and goes with it",
        "obfuscation": "random characters",
        "type": "names a kind of error",
        "definition": "repeats the grammar of a tool of the request",
    },
    "anthropic_messages": {
        **dict.fromkeys(("id", "file_id", "skill_id", "tool_use_id"), ID),
        **dict.fromkeys(("model", "version", "inference_geo"), MODEL),
        **dict.fromkeys(("encrypted_content", "encrypted_index", "signature"), SEALED),
        "data": BYTES,
    },
    "gemini_generate_content": {
        **dict.fromkeys(("id", "responseId"), ID),
        **dict.fromkeys(("modelVersion", "mimeType", "role"), MODEL),
        "jsonPath": "names a field of arguments",
        "message": "tells about the model, not about the answer",
    },
}
"""Names of fields that are not searched in answers. In requests only `model` is not."""

ECHO = {f"Response.{name}" for name in responses.Response.model_fields} - {
    f"Response.{name}" for name in ("id", "output", "error", "incomplete_details")
}
"""Fields of a response that repeat the request."""
LOCAL = {f"GenerateContentResponse.{name}" for name in ("sdkHttpResponse", "automaticFunctionCallingHistory", "parsed")}
"""Fields that the SDK adds: they are in no answer."""


def fields(kind):
    """(name in JSON, type) of each field of a model or a typed dictionary; None for another type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [(field.alias or name, field.annotation) for name, field in kind.model_fields.items()]
    if typing_extensions.is_typeddict(kind):
        return [*typing_extensions.get_type_hints(kind).items()]
    return None


def bare(kind):
    while get_origin(kind) in (typing.Annotated, typing_extensions.Required, typing_extensions.NotRequired):
        kind = get_args(kind)[0]
    return kind


def values(kind, stack=()):
    """(path, value) for each string of a type: a value of the type in which that string alone has words. A type inside
    of itself is not walked again.
    """
    kind = bare(kind)
    origin = get_origin(kind)
    if kind in (str, Any, object):
        yield "", WORDS
    elif origin in (Union, types.UnionType):
        for each in get_args(kind):
            yield from values(each, stack)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        for path, value in values(get_args(kind)[1], stack):
            yield path, {"words": value}
    elif isinstance(origin, type) and issubclass(origin, Iterable):
        for path, value in values(get_args(kind)[0], stack):
            yield path, [value]
    elif (found := fields(kind)) is not None and kind not in stack and len(stack) < DEPTH:
        base = {name: get_args(bare(each))[0] for name, each in found if get_origin(bare(each)) is Literal}
        for name, each in found:
            here = f"{kind.__name__}.{name}"
            for path, value in () if here in ECHO | LOCAL else values(each, (*stack, kind)):
                yield (f"{here}/{path}" if path else here), {**base, name: value}


def said(dialect, event):
    """All text that guardrails get to read of an event."""
    for one in client_apis()[dialect].said(event):
        if isinstance(one, Called):
            yield f"{one.tool} {one.arguments}"
        elif isinstance(one, ArgumentPart):
            yield from (piece.value for piece in (one.tool, *(each for _, _, each in one.values)) if piece is not None)
        elif isinstance(one, Piece):
            yield one.value


def missed(walked, texts):
    found = {}
    for path, value in walked:
        if not any(WORDS in text for text in texts(value)):
            found.setdefault(path.rpartition(".")[2], path)
    return found


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_completions"])
def test_padding_of_events_is_no_text_and_hides_none(dialect):
    """`stream_options.include_obfuscation` is on at OpenAI: random characters beside the words of each event."""
    choice = {"index": 0, "delta": {"content": WORDS, "obfuscation": "a"}, "text": WORDS, "obfuscation": "a"}
    event = {"choices": [choice], "obfuscation": "x8Fk"}
    texts = [*said(dialect, event)]
    assert WORDS in texts
    assert "a" in texts
    assert "x8Fk" not in texts


@pytest.mark.parametrize("dialect", EVENTS)
def test_every_string_of_an_answer_is_searched_or_has_a_reason(dialect):
    walked = [each for kind in EVENTS[dialect] for each in values(kind)]
    assert len(walked) > 50
    found = missed(walked, lambda event: said(dialect, event))
    assert {name: path for name, path in found.items() if name not in REASONS[dialect]} == {}
    assert {*REASONS[dialect]} - {*found} == set(), "searched by now"


@pytest.mark.parametrize("dialect", REQUESTS)
def test_every_string_of_a_request_is_searched(dialect):
    walked = [*values(REQUESTS[dialect])]
    assert len(walked) > 50
    found = missed(walked, lambda body: (text.value for text in client_apis()[dialect].texts(body)))
    assert {*found} <= {"model"}


# --- texts that stand beside bytes, and apart from their event


def test_a_document_of_text_is_searched_and_one_of_bytes_is_not():
    def block(kind):
        source = {"type": kind, "media_type": "text/plain", "data": f"{SECRET} is the key."}
        content = {"type": "web_fetch_result", "content": {"type": "document", "source": source}}
        return {"type": "web_fetch_tool_result", "tool_use_id": "t", "content": content}

    for kind, masked in (("text", True), ("base64", False)):
        event = {"type": "content_block_start", "index": 0, "content_block": block(kind)}
        out, _, verdicts, _ = play("anthropic_messages", [sse([event])], settings("mask"))
        assert (SECRET.encode() not in out) is masked
        assert bool(verdicts) is masked


def tokens(words):
    return [{"token": word, "bytes": [*word.encode()], "logprob": -0.1, "top_logprobs": []} for word in words]


def of_chat(words):
    return {"choices": [{"index": 0, "delta": {"content": ""}, "logprobs": {"content": tokens(words)}}]}


def of_completions(words):
    return {"choices": [{"index": 0, "text": "", "logprobs": {"tokens": words}}]}


def of_responses(words):
    event = {"type": "response.output_text.delta", "item_id": "i", "content_index": 0, "delta": ""}
    return event | {"logprobs": tokens(words)}


def of_gemini(words):
    chosen = [{"token": word, "logProbability": -0.1} for word in words]
    return {"candidates": [{"index": 0, "logprobsResult": {"chosenCandidates": chosen}}]}


LOGPROBS = {
    "openai_chat": of_chat,
    "openai_completions": of_completions,
    "openai_responses": of_responses,
    "gemini_generate_content": of_gemini,
}


@pytest.mark.parametrize("dialect", LOGPROBS)
@pytest.mark.parametrize("size", [1, 3])
def test_log_probabilities_in_an_event_of_their_own_are_searched(dialect, size):
    words = pieces(f"The key is {SECRET}, no more.", 4)
    body = sse([LOGPROBS[dialect](words[at : at + size]) for at in range(0, len(words), size)])
    out, _, verdicts, _ = play(dialect, [body], settings("mask"))
    assert verdicts[0][1] == {"key": 1}
    left = json.dumps([json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")])
    assert "ABCD" not in left
    assert "F123" not in left
    assert str([*b"F123"])[1:-1] not in left
