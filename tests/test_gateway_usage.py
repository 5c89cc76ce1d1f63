"""Conversations in which a provider reports its usage late or in an unusual place: the usage is still charged."""

import json
from base64 import b64encode
from random import Random

import pytest

from tests.talk import QUESTION, STREAMED, TOKENS, USAGE, answers, asks, event, sends, streams, talk

SMALL = "limits: {buffered_response: 4KiB, sse_event: 4KiB}\n" + TOKENS
SSE = "text/event-stream"
PICTURE = b64encode(Random(1).randbytes(300_000)).decode()


def charged(gateway):
    [entry] = gateway.log
    return entry["input_tokens"], entry["output_tokens"], entry["usage_source"]


def pieces(body, size=60_000):
    """As Envoy hands over a body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = [streams(data[start : start + size]) for start in range(0, len(data), size)]
    return [*found, streams(b"", end=True)]


# --- answers too long to be read whole

VECTORS = [{"object": "embedding", "index": index, "embedding": [0.0123, -0.456] * 700} for index in range(40)]
EMBEDDED = {"prompt_tokens": 900, "total_tokens": 900}
EMBED = {"model": "m", "input": ["text"] * 40}
LONG = {
    "usage at the end": {"object": "list", "data": VECTORS, "model": "m", "usage": EMBEDDED},
    "usage at the end, and more": {"data": VECTORS, "usage": EMBEDDED, "meta": {"x": [1, {"y": "}"}]}},
    "usage first": {"model": "m", "object": "list", "usage": EMBEDDED, "data": VECTORS},
}


@pytest.mark.parametrize("name", LONG)
async def test_a_long_answer_is_charged_its_reported_usage(world, name):
    gateway = world(SMALL)
    said = asks("/v1/embeddings"), sends(EMBED), answers()
    replies = await talk(gateway.stream(), *said, *pieces(LONG[name]))
    assert b"".join(chunk.body for chunk in replies[3:]) == json.dumps(LONG[name]).encode()
    assert charged(gateway) == (900, 0, "provider")
    assert await gateway.level("t") == (900, 0)


async def test_vectors_are_not_counted_as_output(world):
    gateway = world(SMALL)
    said = asks("/v1/embeddings"), sends(EMBED), answers()
    await talk(gateway.stream(), *said, *pieces({"data": VECTORS}))
    input_tokens, output_tokens, source = charged(gateway)
    assert (output_tokens, source) == (0, "estimated")
    assert 40 <= input_tokens <= len(json.dumps(EMBED))


async def test_a_models_text_is_not_read_as_usage(world):
    """In a string, and in the input of a tool."""
    lie = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 1, "output_tokens": 1}}
    long = "word " * 20_000
    message = {"content": long + json.dumps(lie)}
    gateway = world(SMALL)
    body = {"choices": [{"index": 0, "message": message}], "usage": USAGE, "x": json.dumps(lie)}
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), *pieces(body))
    assert charged(gateway) == (7, 3, "provider")
    gateway = world(SMALL)
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"text": long, **lie}}
    for rest in ({"usage": {"input_tokens": 7, "output_tokens": 3}}, {}):
        gateway = world(SMALL + "\nproviders: {a: {kind: anthropic, api_key: env:PATH}, b: {kind: mock}}")
        ask = QUESTION | {"max_tokens": 30_000}
        said = asks("/v1/messages"), sends(ask), answers()
        await talk(gateway.stream(), *said, *pieces({"type": "message", "content": [call], **rest}))
        assert charged(gateway)[2] == ("provider" if rest else "estimated")
        assert charged(gateway)[1] == 3 if rest else charged(gateway)[1] > 10_000


# --- pictures


DRAWN = {"input_tokens": 50, "output_tokens": 4200}


def drawn(usage=DRAWN):
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PICTURE}
    response = {"id": "r", "model": "m", "status": "completed", "output": [item], "usage": usage, "user": None}
    partial = {"type": "response.image_generation_call.partial_image", "partial_image_b64": PICTURE}
    done = {"type": "response.completed", "response": response}
    return b"".join(
        b"event: %b\n" % data["type"].encode() + event(data)
        for data in (partial, {"type": "response.output_item.done", "item": item}, done)
    )


@pytest.mark.parametrize("limit", ["4KiB", "4MiB"])
async def test_a_streamed_image_is_charged_its_reported_usage(world, limit):
    gateway = world(f"limits: {{sse_event: {limit}}}\n{OPENAI}{TOKENS}")
    said = asks("/v1/responses"), sends(DRAW), answers(kind=SSE)
    replies = await talk(gateway.stream(), *said, *pieces(drawn()))
    assert b"".join(chunk.body for chunk in replies[3:]) == drawn(), "it is not ended for its length either"
    assert charged(gateway) == (50, 4200, "provider")


@pytest.mark.parametrize("limit", ["4KiB", "4MiB"])
async def test_base64_is_never_counted_as_text(world, limit):
    gateway = world(f"limits: {{sse_event: {limit}}}\n{OPENAI}{TOKENS}")
    await talk(gateway.stream(), asks("/v1/responses"), sends(DRAW), answers(kind=SSE), *pieces(drawn(None)))
    _, output_tokens, source = charged(gateway)
    assert source == "estimated"
    assert output_tokens < 1_000


OPENAI = "providers: {a: {kind: openai, api_key: env:PATH}, b: {kind: mock}}\n"
DRAW = {"model": "m", "input": "Draw a cat", "stream": True, "max_output_tokens": 5_000}


async def test_an_image_in_a_chat_is_not_counted_as_text(world):
    gateway = world(SMALL)
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    delta = {"choices": [{"index": 0, "delta": {"images": [url]}}]}
    used = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1290}}
    body = event(delta) + event(used) + b"data: [DONE]\n\n"
    await talk(gateway.stream(), asks(), sends(STREAMED), answers(kind=SSE), *pieces(body))
    assert charged(gateway) == (7, 1290, "provider")
