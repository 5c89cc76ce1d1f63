"""Conversations: answers as Envoy sends them to the gateway attachment, and the answers that leave for the client."""

import asyncio
import gzip
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.words.actions import CONTINUE, Chunk, Continue
from tests.talk import (
    ANSWER,
    DONE,
    QUESTION,
    STOP,
    STREAMED,
    TEXT,
    TOKENS,
    USAGE,
    USED,
    answers,
    asks,
    error,
    event,
    sends,
    streams,
    talk,
)


async def test_a_plain_answer_is_counted_and_passes(world):
    gateway = world(TOKENS)
    body = json.dumps(ANSWER).encode()
    headers, onward, told, first, last = await talk(
        gateway.stream(), asks(), sends(QUESTION), answers(), streams(body[:20]), streams(body[20:], end=True)
    )
    assert headers == CONTINUE
    assert onward.reroute
    assert onward.order == ("try-a",)
    rates = {"x-ratelimit-limit-tokens": "100000", "x-ratelimit-remaining-tokens": "95838"}
    rates["x-ratelimit-reset-tokens"] = "60s"
    assert told == Continue({"x-ai-provider": "a", "x-ai-model": "m", "x-ai-attempts": "1"} | rates, read_answer=True)
    assert (first, last) == (Chunk(b""), Chunk(body, end=True))
    assert await gateway.level("t") == (10, 0)
    [entry] = gateway.log
    assert (entry["status"], entry["error"], entry["complete"]) == (200, "", True)
    assert (entry["input_tokens"], entry["output_tokens"], entry["usage_source"]) == (7, 3, "provider")
    assert (entry["response_model"], entry["finish_reasons"], entry["provider"]) == ("m-1", ["stop"], "a")


async def test_the_rate_headers_of_the_providers_account_are_replaced_by_the_clients(world):
    theirs = {"x_ratelimit_limit_requests": "9999", "x_ratelimit_remaining_requests": "9998"}
    *_, told = await talk(world(TOKENS).stream(), asks(), sends(QUESTION), answers(end=True, **theirs))
    assert set(told.remove_headers) == {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"}
    *_, told = await talk(world().stream(), asks(), sends(QUESTION), answers(end=True, **theirs))
    assert told.remove_headers == ()


@pytest.mark.parametrize(("model", "served"), [("m2", True), ("n", False)])
async def test_a_request_that_refers_to_a_conversation_is_downgraded_only_at_its_provider(world, model, served):
    budget = "name: b, unit: tokens, limit: 1, window: day, match: {model: m}, on_exceed: downgrade"
    models = "models: {m: {provider: a, context: 9000}, m2: {provider: a}, n: {provider: b}}"
    keyless = "kind: openai, base_url: 'http://127.0.0.1:8090/v1'"
    providers = f"providers: {{a: {{{keyless}}}, b: {{{keyless}}}}}"
    gateway = world(f"{providers}\n{models}\nbudgets: [{{{budget}, downgrade_to: {model}}}]")
    body = {"model": "m", "input": "Hello", "previous_response_id": "resp_1"}
    [_, onward] = await talk(gateway.stream(), asks("/v1/responses"), sends(body))
    assert isinstance(onward, Continue) is served
    if served:
        assert json.loads(onward.body)["model"] == model
    else:
        assert error(onward)[:2] == (402, "budget_exceeded")


async def test_the_usage_event_is_hidden_from_a_client_that_did_not_ask(world):
    gateway = world(TOKENS)
    replies = await talk(
        gateway.stream(),
        asks(),
        sends(STREAMED),
        answers(kind="text/event-stream; charset=utf-8"),
        *(streams(chunk) for chunk in (TEXT, STOP, USED, DONE)),
        streams(b"", end=True),
    )
    assert json.loads(replies[1].body)["stream_options"] == {"include_usage": True}
    assert replies[3:] == [Chunk(TEXT), Chunk(STOP), Chunk(b""), Chunk(DONE), Chunk(b"", end=True)]
    assert await gateway.level("t") == (10, 0)


async def test_the_usage_event_reaches_a_client_that_asked(world):
    body = STREAMED | {"stream_options": {"include_usage": True}, "max_tokens": 5}
    _, onward, *_, last = await talk(
        world(TOKENS).stream(),
        asks(),
        sends(body),
        answers(kind="text/event-stream"),
        streams(TEXT + STOP + USED + DONE, end=True),
    )
    assert onward.body is None
    assert last == Chunk(TEXT + STOP + USED + DONE, end=True)


async def test_a_stream_without_usage_is_counted_from_its_text(world):
    gateway = world(TOKENS)
    text = event({"choices": [{"index": 0, "delta": {"content": "word " * 60}}]})
    await talk(
        gateway.stream(), asks(), sends(STREAMED), answers(kind="text/event-stream"), streams(text + DONE, end=True)
    )
    [entry] = gateway.log
    assert (entry["usage_source"], entry["output_tokens"]) == ("estimated", 64), (
        "61 tokens of o200k_base, and a twentieth for an unknown model"
    )


async def test_usage_in_the_last_text_event_is_counted_and_passes(world):
    gateway = world(TOKENS)
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    *_, chunk = await talk(
        gateway.stream(), asks(), sends(STREAMED), answers(kind="text/event-stream"), streams(TEXT + last, end=True)
    )
    assert chunk.body == TEXT + last
    assert await gateway.level("t") == (10, 0)


async def test_a_plain_answer_to_a_request_for_a_stream_passes(world):
    body = json.dumps(ANSWER).encode()
    *_, chunk = await talk(world().stream(), asks(), sends(STREAMED), answers(), streams(body, end=True))
    assert chunk == Chunk(body, end=True)


async def test_a_plain_answer_is_never_hidden(world):
    body = json.dumps({"choices": [], "usage": USAGE}).encode()
    *_, chunk = await talk(world().stream(), asks(), sends(STREAMED), answers(), streams(body, end=True))
    assert chunk == Chunk(body, end=True)


async def test_an_error_event_is_never_hidden(world):
    failed = event({"error": {"message": "overloaded"}, "usage": USAGE})
    *_, chunk = await talk(
        world().stream(), asks(), sends(STREAMED), answers(kind="text/event-stream"), streams(failed, end=True)
    )
    assert chunk == Chunk(failed, end=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"kind": "audio/mpeg"},
        {"kind": ""},
        {"kind": "text/plain"},
        {"kind": "application/vnd.amazon.eventstream"},
        {"kind": "text/event-stream", "content_encoding": "br"},
        {"kind": "application/json", "content_encoding": "br"},
    ],
)
async def test_an_answer_of_an_unknown_type_passes_and_is_charged_in_full(world, headers):
    gateway = world(TOKENS)
    body = QUESTION | {"max_tokens": 100}
    *_, told = await talk(gateway.stream(), asks(), sends(body), answers(**headers))
    assert not told.read_answer
    [entry] = gateway.log
    assert (entry["usage_source"], entry["output_tokens"], entry["complete"]) == ("estimated", 100, True)


async def test_a_web_page_is_a_bad_answer(world):
    gateway = world(TOKENS)
    *_, refused = await talk(gateway.stream(), asks(), sends(QUESTION), answers(kind="text/html; charset=utf-8"))
    assert (refused.status, refused.reason, refused.headers["x-ai-error-origin"]) == (
        502,
        "provider_bad_answer",
        "provider",
    )
    assert await gateway.level("t") == (0, 0)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_compressed_answer_leaves_unchanged(world, whole):
    body = gzip.compress(json.dumps(ANSWER).encode())
    gateway = world()
    pieces = [body] if whole else [body[:20], body[20:]]
    *first, last = [streams(piece) for piece in pieces[:-1]] + [streams(pieces[-1], end=True)]
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(content_encoding="gzip"), *first, last)
    assert (json.loads(told.body), told.end) == (ANSWER, True)
    assert gateway.log[0]["usage_source"] == "provider"


async def test_a_compressed_answer_that_is_corrupt_is_cut(world):
    gateway = world()
    *_, last = await talk(
        gateway.stream(), asks(), sends(QUESTION), answers(content_encoding="gzip"), streams(b"no gzip", end=True)
    )
    assert (last, gateway.log[0]["error"]) == (Chunk(b"", end=True), "provider_bad_answer")


async def test_bytes_falsely_labelled_as_gzip_pass_unchanged(world):
    body = gzip.compress(json.dumps(ANSWER).encode())
    *_, chunk = await talk(world().stream(), asks(), sends(QUESTION), answers(), streams(body, end=True))
    assert chunk == Chunk(body, end=True)


async def test_an_answer_over_the_limit_passes_and_is_charged_by_its_size(world):
    gateway = world("limits: {buffered_response: 1KiB}\n" + TOKENS)
    chunks = [b"x " * 400, b"y " * 400, b"z " * 400]
    *_, first, second, third, last = await talk(
        gateway.stream(), asks(), sends(QUESTION), answers(), *map(streams, chunks), streams(b"", end=True)
    )
    assert [first, second, third] == [Chunk(b""), Chunk(chunks[0] + chunks[1]), Chunk(chunks[2])]
    assert last == Chunk(b"", end=True)
    assert gateway.log[0]["output_tokens"] == 800


async def test_an_answer_without_a_body_passes(world):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(204, end=True))
    assert not told.read_answer
    assert await gateway.level("t") != (0, 0)


@given(cuts=st.lists(st.integers(min_value=0), max_size=12), newline=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_an_unedited_stream_leaves_unchanged_however_it_is_split(world, cuts, newline):
    stream = (b": ping\n\n" + TEXT * 3 + STOP + USED + DONE + b"\n").replace(b"\n", newline)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    body = STREAMED | {"stream_options": {"include_usage": True}}
    gateway = world()
    *replies, last = asyncio.run(
        talk(
            gateway.stream(),
            asks(),
            sends(body),
            answers(kind="text/event-stream"),
            *map(streams, chunks),
            streams(b"", end=True),
        )
    )
    assert b"".join(chunk.body for chunk in [*replies[3:], last]) == stream
    assert gateway.log[0]["output_tokens"] == 3


@given(cuts=st.lists(st.integers(min_value=0), max_size=12))
def test_the_usage_event_stays_hidden_however_the_stream_is_split(world, cuts):
    stream = TEXT + STOP + USED + DONE
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    *replies, last = asyncio.run(
        talk(
            world().stream(),
            asks(),
            sends(STREAMED),
            answers(kind="text/event-stream"),
            *map(streams, chunks),
            streams(b"", end=True),
        )
    )
    assert b"".join(chunk.body for chunk in [*replies[3:], last]) == TEXT + STOP + DONE
