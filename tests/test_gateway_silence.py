"""Streams whose provider is silent: comments for the client, and the end."""

import time
from dataclasses import replace

import pytest

from extproc.dialects import client_apis
from tests.guardrails.streams import PATHS, stream
from tests.talk import STREAMED, answers, asks, sends, streams, talk

COMMENT = b": keep-alive\n\n"
EVENT_STREAM = "text/event-stream"
PROVIDER = "providers: {a: {kind: mock}}\nmodels: {m: {provider: a}}\n"
GUARDED = (
    PROVIDER + "guardrails: [{name: words, kind: regex, longest: 10, patterns: {word: CANARY}, on: [output], "
    "action: %s}]\nlimits: {first_window: %d}"
)
TEXT = [event + b"\n\n" for event in stream("openai_chat", ["Hello ", "there"]).split(b"\n\n") if event]


async def begun(gateway, *chunks, body=STREAMED, kind=EVENT_STREAM):
    """A stream of Envoy's, and our answers to the pieces of the provider's answer."""
    call = gateway.stream()
    out = [await say(call) for say in (asks(), sends(body), answers(kind=kind), *map(streams, chunks))]
    return call, out[3:]


def quiet(call, seconds):
    """What the call says when its provider has been silent for so long."""
    return call.on_silence(time.monotonic() + seconds)


async def test_a_comment_leaves_after_each_silence(world):
    call, _ = await begun(world(PROVIDER), TEXT[0])
    assert quiet(call, 14) is None
    assert (chunk := quiet(call, 16)) is not None
    assert (chunk.body, chunk.end, chunk.head) == (COMMENT, False, None)
    assert quiet(call, 30) is None, "the client heard the comment 14 s ago"
    assert quiet(call, 32).body == COMMENT
    await talk(call, streams(TEXT[1]))
    assert quiet(call, 14) is None


async def test_a_comment_does_not_count_as_a_sign_of_the_provider(world):
    call, _ = await begun(world(PROVIDER + "limits: {stream_idle: 40s}"), TEXT[0])
    assert [quiet(call, seconds).end for seconds in (16, 32, 48)] == [False, False, True]


@pytest.mark.parametrize(
    ("settings", "body", "kind", "chunks"),
    [
        ("limits: {keep_alive: 0s}", STREAMED, EVENT_STREAM, [TEXT[0]]),
        ("", STREAMED, EVENT_STREAM, []),
        ("", STREAMED, EVENT_STREAM, [b"\xef\xbb\xbfdata: {"]),
        ("", STREAMED, "application/json", [b"{"]),
        ("", {**STREAMED, "stream": False}, EVENT_STREAM, [TEXT[0]]),
        ("limits: {sse_event: 1KiB}", STREAMED, EVENT_STREAM, [b"data: " + b"x" * 2000]),
    ],
    ids=["off", "before the first bytes", "before a byte order mark", "plain", "not asked for", "within an event"],
)
async def test_there_is_no_comment_where_none_may_be(world, settings, body, kind, chunks):
    call, _ = await begun(world(PROVIDER + settings), *chunks, body=body, kind=kind)
    assert quiet(call, 60) is None


async def test_clients_of_an_api_without_comments_get_none(world, monkeypatch):
    gateway = world(PROVIDER)
    call, _ = await begun(gateway, TEXT[0])
    dialect = call._exchange.request.dialect
    monkeypatch.setattr(dialect, "answers", replace(dialect.answers, comments=False))
    assert quiet(call, 60).body == b""


async def test_a_guarded_answer_that_waits_for_its_window_begins_with_the_comment(world, monkeypatch):
    """Events that were decided leave with it. Text that may still become a match does not."""
    held = stream("openai_chat", ["Hello CAN"]).split(b"\n\n")[1] + b"\n\n"
    call, out = await begun(world(GUARDED % ("block", 128)), TEXT[0], held)
    assert [chunk.body for chunk in out] == [b"", b""]
    assert quiet(call, 60) is None, "the window is not over"
    monkeypatch.setattr("extproc.guardrails._watch.LONGEST_WAIT", 0.0)
    chunk = quiet(call, 60)
    assert (chunk.body, chunk.head.set_headers["x-ai-provider"]) == (TEXT[0] + COMMENT, "a")
    assert quiet(call, 100).body == COMMENT, "however long the provider is silent"
    assert quiet(call, 100) is None


async def test_text_held_back_for_a_mask_stays_however_long_the_silence(world):
    held = stream("openai_chat", ["Hello CAN"]).split(b"\n\n")[1] + b"\n\n"
    call, out = await begun(world(GUARDED % ("mask", 0)), TEXT[0], held)
    assert [chunk.body for chunk in out] == [TEXT[0], b""]
    assert [quiet(call, seconds).body for seconds in (20, 100, 500)] == [COMMENT] * 3


def test_clients_of_four_apis_skip_comments():
    found = {name for name, dialect in client_apis().items() if dialect.answers.comments}
    assert set(PATHS) - {"gemini_generate_content"} <= found
    assert "gemini_generate_content" not in found
