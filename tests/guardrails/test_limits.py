"""The sizes of requests in every client API."""

import pytest
from pydantic import ValidationError

from extproc.guardrails import GuardInput
from extproc.guardrails.limits import _NAMES, RequestLimitsSettings
from extproc.words.errors import Refusal

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
CHAT = {
    "model": "m",
    "n": 2,
    "max_tokens": 50,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": PNG}}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "It is blue, and longer than the others."},
        {"role": "user", "content": "Go on"},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}],
}
RESPONSES = {
    "model": "m",
    "max_output_tokens": 50,
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Look"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "blue"},
    ],
    "tools": [{"type": "function", "name": "f"}],
}
MESSAGES = {
    "model": "m",
    "max_tokens": 50,
    "messages": [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "blue"}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
}
SIZES = [
    (CHAT, "/v1/chat/completions", {"messages": 5, "turns": 2, "tools": 2, "results": 1, "images": 1, "choices": 2}),
    (CHAT, "/v1/chat/completions", {"image_bytes": len(PNG), "output_tokens": 50, "text_characters": 39}),
    (RESPONSES, "/v1/responses", {"messages": 3, "turns": 1, "tools": 1, "results": 1, "output_tokens": 50}),
    (RESPONSES | {"input": "Hello"}, "/v1/responses", {"turns": 1}),
    (MESSAGES, "/v1/messages", {"messages": 3, "turns": 2, "tools": 1, "results": 1, "output_tokens": 50}),
    ({"model": "m", "prompt": "x" * 90}, "/v1/completions", {"text_characters": 90}),
    ({"model": "m", "input": ["a", "b" * 30]}, "/v1/embeddings", {"text_characters": 30}),
]


async def verdict(exchange, **settings):
    told = []
    guard = GuardInput([RequestLimitsSettings(name="sizes", kind="limits", **settings)], told.append)
    try:
        await guard(exchange)
    except Refusal as refusal:
        return refusal, told
    return None, told


@pytest.mark.parametrize(("body", "path", "sizes"), SIZES)
async def test_a_request_beyond_a_limit_is_refused(exchange, body, path, sizes):
    for name, size in sizes.items():
        assert await verdict(exchange(body, path=path), **{name: size}) == (None, [])
        refused, [told] = await verdict(exchange(body, path=path), **{name: size - 1})
        assert (refused.kind.status, refused.kind.code) == (400, "guardrail_blocked")
        assert f"{name.replace('_', ' ')}: {size} of at most {size - 1}." in refused.message
        assert (told.action, told.kinds) == ("block", {name: 1})


async def test_characters_and_tokens_grow_with_the_text(exchange):
    for name in ("characters", "input_tokens"):
        limits = {name: 1000}
        for size, beyond in ((100, False), (5000, True), (500_000, True)):
            body = {"model": "m", "messages": [{"role": "user", "content": "x" * size}]}
            refused, _ = await verdict(exchange(body), **limits)
            assert (refused is not None) is beyond


async def test_audit_tells_every_limit_and_refuses_nothing(exchange):
    refused, [told] = await verdict(exchange(CHAT), action="audit", messages=1, images=0, tools=5)
    assert refused is None
    assert (told.action, told.kinds) == ("audit", {"messages": 1, "images": 1})


def test_some_limit_has_to_be_given():
    with pytest.raises(ValidationError, match="give one of"):
        RequestLimitsSettings(name="g", kind="limits")
    assert {*_NAMES} >= {"turns", "choices"}
