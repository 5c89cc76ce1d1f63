"""Streamed answers of Cohere, event by event."""

import json

import pytest

from extproc.dialects import client_apis
from extproc.dialects import cohere_chat as api
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Failed, Finished, Started, Used
from tests.dialects import neutral


def event(type, index=None, message=None, **rest):
    found = {"type": type, "index": index, "delta": {"message": message} if message is not None else None, **rest}
    return {key: value for key, value in found.items() if value is not None}


def content(text, index=0, kind="text", **rest):
    return event("content-delta", index, {"content": {kind: text}}, **rest)


def begin(index=0, kind="text"):
    return event("content-start", index, {"content": {"type": kind, kind: ""}})


def call(id, name, index=0, arguments=""):
    function = {"name": name, "arguments": arguments}
    return event("tool-call-start", index, {"tool_calls": {"id": id, "type": "function", "function": function}})


def arguments(text, index=0):
    return event("tool-call-delta", index, {"tool_calls": {"function": {"arguments": text}}})


def end(reason="COMPLETE", usage=None, **delta):
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage, **delta}}


def sse(*events):
    lines = [f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def events(*sent):
    return neutral.read(api, sse(*sent))


MESSAGE = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
START = event("message-start", message=MESSAGE, id="29f1")
STARTED = Started("29f1")
USAGE = {
    "billed_units": {"input_tokens": 11, "output_tokens": 3},
    "cached_tokens": 448,
    "tokens": {"input_tokens": 506, "output_tokens": 4},
}
COUNTS = Usage(11, 3)
PLAIN = (
    [START, begin(), content("Hel"), content(""), content("lo €"), event("content-end", 0), end("MAX_TOKENS", USAGE)],
    [STARTED, Delta("text", "Hel", 0), Delta("text", "lo €", 0), Finished("length"), Used(COUNTS), Ended()],
)
THINKING = (
    [
        START,
        begin(kind="thinking"),
        content("I ", kind="thinking"),
        content("think", kind="thinking"),
        event("content-end", 0),
        begin(1),
        content("hi", 1),
        event("citation-start", 0, {"citations": {"start": 0, "end": 2, "text": "hi", "sources": []}}),
        event("citation-end", 0),
        content(" there", 1),
        event("content-end", 1),
        end(),
    ],
    [
        STARTED,
        Delta("thinking", "I ", 0),
        Delta("thinking", "think", 0),
        Delta("text", "hi", 1),
        Delta("text", " there", 1),
        Finished("stop"),
        Ended(),
    ],
)
TOOLS = (
    [
        START,
        event("tool-plan-delta", message={"tool_plan": "I will"}),
        event("tool-plan-delta", message={"tool_plan": " look."}),
        call("1", "weather", 0),
        arguments('{"city"'),
        arguments(': "Rome"}'),
        event("tool-call-end", 0),
        call("2", "now", 1),
        event("tool-call-end", 1),
        call("3", "now", 2),
        arguments("nu", 2),
        arguments("ll", 2),
        event("tool-call-end", 2),
        call("4", "now", 3, " {"),
        arguments("}", 3),
        end("TOOL_CALL", USAGE),
    ],
    [
        STARTED,
        Delta("thinking", "I will", 0),
        Delta("thinking", " look.", 0),
        Delta("tool_call", "", 1, id="1", name="weather"),
        Delta("tool_call", '{"city"', 1),
        Delta("tool_call", ': "Rome"}', 1),
        Delta("tool_call", "", 2, id="2", name="now"),
        Delta("tool_call", "{}", 2),
        Delta("tool_call", "", 3, id="3", name="now"),
        Delta("tool_call", "{}", 3),
        Delta("tool_call", "", 4, id="4", name="now"),
        Delta("tool_call", " {", 4),
        Delta("tool_call", "}", 4),
        Finished("tool_calls"),
        Used(COUNTS),
        Ended(),
    ],
)
# Recorded from older models: no indexes, and a call is not the finish reason.
UNNUMBERED = (
    [
        START,
        call("1", "a", None),
        arguments("{", None),
        arguments("}", None),
        event("tool-call-end"),
        call("2", "b", None),
        call("3", "c", None),
        arguments('{"x":1}', None),
        end(),
    ],
    [
        STARTED,
        Delta("tool_call", "", 0, id="1", name="a"),
        Delta("tool_call", "{", 0),
        Delta("tool_call", "}", 0),
        Delta("tool_call", "", 1, id="2", name="b"),
        Delta("tool_call", "", 2, id="3", name="c"),
        Delta("tool_call", '{"x":1}', 2),
        Finished("tool_calls"),
        Ended(),
    ],
)
UNNUMBERED[1].insert(5, Delta("tool_call", "{}", 1))
INTERLEAVED = (
    [
        START,
        call("1", "a", 0),
        call("2", "b", 1),
        arguments('{"x"', 1),
        arguments("{}", 0),
        arguments(":1}", 1),
        event("tool-call-end", 1),
        event("tool-call-end", 0),
        end("TOOL_CALL"),
    ],
    [
        STARTED,
        Delta("tool_call", "", 0, id="1", name="a"),
        Delta("tool_call", "", 1, id="2", name="b"),
        Delta("tool_call", '{"x"', 1),
        Delta("tool_call", "{}", 0),
        Delta("tool_call", ":1}", 1),
        Finished("tool_calls"),
        Ended(),
    ],
)
BROKEN = (
    [START, content("a"), end("ERROR", USAGE, error="The model failed."), content("b")],
    [STARTED, Delta("text", "a", 0), Used(COUNTS), Failed("The model failed.")],
)
TIMED_OUT = ([START, content("a"), end("TIMEOUT")], [STARTED, Delta("text", "a", 0), Failed("The provider broke off.")])
NAMELESS = (
    [START, content("a"), {"message": "streaming error", "id": "x"}, end()],
    [STARTED, Delta("text", "a", 0), Failed("streaming error")],
)
CUT = ([START, content("a"), event("content-end", 0)], [STARTED, Delta("text", "a", 0)])
# No start, no finish reason, usage beside the delta, and unknown events.
SPARSE = (
    [
        {"type": "debug", "prompt": "?"},
        {"x": 1},
        content("a", None),
        {"type": "message-end", "usage": USAGE},
    ],
    [Started(), Delta("text", "a", 0), Finished("stop"), Used(COUNTS), Ended()],
)
STREAMS = {
    "plain": PLAIN,
    "thinking": THINKING,
    "tools": TOOLS,
    "unnumbered": UNNUMBERED,
    "interleaved": INTERLEAVED,
    "broken": BROKEN,
    "timed out": TIMED_OUT,
    "nameless": NAMELESS,
    "cut": CUT,
    "sparse": SPARSE,
}
each = pytest.mark.parametrize(("sent", "expected"), STREAMS.values(), ids=STREAMS)


@each
def test_streams_are_read(sent, expected):
    assert events(*sent) == expected


@each
def test_a_stream_without_its_end_is_incomplete(sent, expected):
    assert Ended() not in events(*sent[:-1])


def test_a_call_without_an_id_gets_one():
    nothing = {"tool_calls": {"function": {"name": "f"}}}
    _, first, second, third, *_ = events(START, *([event("tool-call-start", message=nothing)] * 2), end())
    assert first.id.startswith("call_")
    assert second == Delta("tool_call", "{}", 0)
    assert third.id.startswith("call_")
    assert first.id != third.id


def test_logprobs_come_with_the_text():
    likely = {"text": "a", "token_ids": [1], "logprobs": [-1.0]}
    [_, found, *_] = events(START, content("a", logprobs=likely), end())
    entry = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    assert found.logprobs == {"content": [entry], "refusal": None}


def test_an_immediate_end_is_read():
    assert events(end(usage=USAGE)) == [Started(), Finished("stop"), Used(COUNTS), Ended()]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"type": "error", "message": "oh"}, "oh"),
        ({"type": "error", "error": {"message": "oh"}}, "oh"),
        ({"error": "oh"}, "oh"),
        ({"type": "error", "error": {"code": 5}}, "The provider broke off."),
    ],
)
def test_failures_are_read(error, message):
    assert events(error, end()) == [Failed(message)]


@pytest.mark.parametrize(
    "data",
    [
        b"[DONE]",
        b'{"type":7}',
        b'{"type":"content-delta"}',
        b'{"type":"content-delta","delta":{"message":{"content":[]}}}',
        b'{"type":"content-delta","delta":{"message":{"content":{"text":7}}}}',
        b'{"type":"tool-call-start"}',
        b'{"type":"tool-call-start","delta":{"message":{"tool_calls":[]}}}',
        b'{"type":"tool-call-delta","delta":{"message":{"tool_calls":{"function":{"arguments":"x"}}}}}',
        b'{"type":"tool-call-end","index":3}',
        b'{"type":"tool-plan-delta"}',
    ],
)
def test_events_without_content_are_skipped(data):
    decoder = api.decoder()
    assert list(decoder.feed(data, "")) == []
    assert list(decoder.end()) == []


@each
def test_a_stream_can_be_written_for_a_chat_client(sent, expected):
    encoder = client_apis()["openai_chat"].translation.encoder()
    assert all(isinstance(encoder.feed(found), bytes) for found in events(*sent))
