"""Conversations whose budget ends a stream."""

import json

import pytest

from extproc.money.accounting.books import row_of
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from extproc.words.actions import Chunk
from tests.talk import ANSWER, CHOICE, DONE, QUESTION, STREAMED, USED, answers, asks, event, sends, streams, talk

LONG = "word " * 40
PROVIDERS = "providers: {a: {kind: %s, api_key: env:PATH}, b: {kind: mock}}\n"


def cut_settings(kind, reserve="worst"):
    budgets = (
        "{name: t, unit: tokens, limit: 500, window: hour, reserve: %s}, {name: slots, unit: concurrency, limit: 1}"
    )
    return PROVIDERS % kind + f"budgets: [{budgets % reserve}]"


def named(name, value):
    return f"event: {name}\n".encode() + event({"type": name, **value})


CLIENTS = {
    "chat": (
        *("mock", "/v1/chat/completions", STREAMED | {"max_tokens": 9}),
        event({"model": "m-1", "choices": [{"index": 0, "delta": {"content": LONG}}]}),
        lambda data: (data["error"]["code"], data["error"]["message"]),
    ),
    "completions": (
        *("openai", "/v1/completions", {"model": "m", "prompt": "Hello", "stream": True, "max_tokens": 9}),
        event({"model": "m-1", "choices": [{"index": 0, "text": LONG}]}),
        lambda data: (data["error"]["code"], data["error"]["message"]),
    ),
    "responses": (
        *("openai", "/v1/responses", {"model": "m", "input": "Hello", "stream": True, "max_output_tokens": 16}),
        named("response.output_text.delta", {"item_id": "i", "output_index": 0, "content_index": 0, "delta": LONG}),
        lambda data: (data["code"], data["message"]),
    ),
    "anthropic": (
        *("anthropic", "/v1/messages", STREAMED | {"max_tokens": 9}),
        named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": LONG}}),
        lambda data: (data["error"]["type"], data["error"]["message"]),
    ),
    "gemini": (
        *("gcp_gemini", "/v1beta/models/m:streamGenerateContent?alt=sse"),
        {"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": {"maxOutputTokens": 9}},
        event({"candidates": [{"content": {"role": "model", "parts": [{"text": LONG}]}}]}),
        lambda data: (data["error"]["details"][0]["metadata"]["code"], data["error"]["message"]),
    ),
}


@pytest.mark.parametrize("split", [0, 7, 150])
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_stream_that_its_budget_ends_gets_an_error_event_and_is_settled(world, client, split):
    kind, path, body, piece, said = CLIENTS[client]
    gateway = world(cut_settings(kind))
    stream = gateway.stream()
    for say in (asks(path), sends(body), answers(kind="text/event-stream")):
        await say(stream)
    out, sent, rest = [], 0, b""
    while not stream.done:
        assert sent < 50, "nobody ended it"
        data = rest + piece
        data, rest = (data[:-split], data[-split:]) if split else (data, b"")  # the last event comes in two parts
        out.append(await streams(data)(stream))
        sent += 1
    assert [chunk.end for chunk in out] == [False] * (sent - 1) + [True]
    *parts, last, nothing = b"".join(chunk.body for chunk in out).split(b"\n\n")
    assert nothing == b""
    assert len(parts) == sent - bool(split)
    assert all(part + b"\n\n" == piece for part in parts), "what came before is delivered"
    code, message = said(json.loads(last.split(b"data: ")[1]))
    assert code == ("rate_limit_error" if client == "anthropic" else "rate_limited")
    assert "Budget 't'" in message
    await stream.on_end()
    settled, reserved = await gateway.level("t", 3600)
    assert (reserved, set(gateway.leases)) == (0, set())
    assert settled > 0
    assert await gateway.level("slots", 0) == (0, 0)
    [entry] = gateway.log
    assert (entry["error"], entry["complete"], entry["status"]) == ("rate_limited", False, 200)
    assert entry["usage_source"] == "estimated"
    row = row_of(stream._exchange, 0.0)
    assert (row.error, row.denied_by, row.charges) == ("rate_limited", "t", {"t": settled})
    assert gateway.metric("extproc_refusals_total", code="rate_limited") == 1
    assert gateway.metric("extproc_budget_decisions_total", budget="t", verdict="cut") == 1
    assert gateway.telemetry.in_flight == 0


async def test_an_array_that_its_budget_ends_is_json_with_the_error_as_its_last_item(world):
    kind, path, body, piece, said = CLIENTS["gemini"]
    stream = world(cut_settings(kind)).stream()
    for say in (asks(path.partition("?")[0]), sends(body), answers(kind="text/event-stream")):
        await say(stream)
    out = b""
    while not stream.done:
        out += (await streams(piece)(stream)).body
    *items, last = json.loads(out)
    assert items == [json.loads(piece[6:])] * len(items)
    assert said(last)[0] == "rate_limited"
    await stream.on_end()


async def test_a_stream_continues_where_its_budget_has_room(world):
    _, path, body, piece, _ = CLIENTS["chat"]
    gateway = world(cut_settings("mock").replace("500", "100000"))
    replies = await talk(
        gateway.stream(),
        *(asks(path), sends(body), answers(kind="text/event-stream")),
        *[streams(piece)] * 30,
        streams(USED + DONE, end=True),
    )
    assert [chunk.body for chunk in replies[3:-1]] == [piece] * 30
    assert await gateway.level("t", 3600) == (10, 0)


class NoExtension(MemoryCounters):
    async def extend(self, id, holds):
        raise StoreError("down")


@pytest.mark.parametrize("failure", ["deny", "allow"])
async def test_a_stream_that_cannot_be_checked_ends_where_the_budget_demands_it(world, failure):
    _, path, body, piece, _ = CLIENTS["chat"]
    text = cut_settings("mock").replace("reserve:", f"store_failure: {failure}, reserve:")
    gateway = world(text, NoExtension())
    stream = gateway.stream()
    for say in (asks(path), sends(body), answers(kind="text/event-stream"), *[streams(piece)] * 3):
        await say(stream)
    reply = await streams(piece)(stream)
    assert reply.end == (failure == "deny")
    assert (b"store_unavailable" in reply.body) == (failure == "deny")
    await stream.on_end()
    assert (await gateway.level("t", 3600))[1] == 0


async def test_a_plain_answer_is_never_cut(world):
    gateway = world(cut_settings("mock"))
    body = json.dumps(ANSWER | {"choices": [CHOICE | {"message": {"content": LONG * 50}}]}).encode()
    *_, last = await talk(gateway.stream(), asks(), sends(QUESTION | {"max_tokens": 9}), answers(), streams(body, True))
    assert last == Chunk(body, end=True)


async def test_the_estimate_of_an_honest_answer_never_exceeds_its_reservation(world):
    """A client that disconnects early must not exhaust a budget."""
    gateway = world("budgets: [{name: t, unit: output_tokens, limit: 40, window: minute}]")
    text = event({"choices": [{"index": 0, "delta": {"content": "x" * 200}}]})
    stream = gateway.stream()
    for say in (asks(), sends(STREAMED | {"max_tokens": 40}), answers(kind="text/event-stream"), streams(text)):
        await say(stream)
    await stream.on_end()
    assert await gateway.level("t") == (26, 0), "200 letters x are 25 tokens"
