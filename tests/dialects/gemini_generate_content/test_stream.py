"""Streamed answers of Gemini, event by event."""

import json

import pytest

from extproc.dialects import gemini_generate_content as api
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Failed, Finished, Started, Used
from tests.dialects import neutral


def candidate(*parts, finish=None, index=None, **rest):
    found = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, "index": index, **rest}
    return {key: value for key, value in found.items() if value is not None}


def said(*parts, finish=None, **rest):
    return {"candidates": [candidate(*parts, finish=finish)], **rest}


def sse(*chunks):
    return "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks).encode()


def events(*sent):
    return neutral.read(api, sse(*sent))


def text(more, block=0, choice=0, **rest):
    return Delta("text", more, block, choice, **rest)


def thinking(more, block=0, signature="", choice=0):
    return Delta("thinking", more, block, choice, signature=signature)


META = {"modelVersion": "gemini-3.8-flash", "responseId": "abc"}
START = Started("abc", "gemini-3.8-flash", proves_late=True)
PLAIN = (
    [
        said({"text": "Hel"}, usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 1}, **META),
        said({"text": "lo €"}, usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 1}, **META),
        said({"text": ""}, finish="STOP", usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 2}, **META),
    ],
    [
        Started("abc", "gemini-3.8-flash", usage=Usage(5, 1), proves_late=True),
        text("Hel"),
        Used(Usage(5, 1)),
        text("lo €"),
        Used(Usage(5, 2)),
        Finished("stop"),
        Ended(),
    ],
)
THINKING = (
    [
        said({"text": "I ", "thought": True}, usageMetadata={"trafficType": "ON_DEMAND"}, **META),
        said({"text": "think", "thought": True}),
        said({"text": "", "thought": True}, {"text": "hi"}),
        said({"text": " there", "thoughtSignature": "YQ=="}),
        said(
            {"text": ""},
            finish="MAX_TOKENS",
            usageMetadata={
                "promptTokenCount": 5,
                "candidatesTokenCount": 2,
                "thoughtsTokenCount": 7,
                "totalTokenCount": 14,
            },
        ),
    ],
    [
        START,
        thinking("I "),
        thinking("think"),
        text("hi", 1),
        text(" there", 1),
        thinking("", 2, "gemini:YQ=="),
        Used(Usage(5, 9, reasoning_tokens=7)),
        Finished("length"),
        Ended(),
    ],
)
TOOLS = (
    [
        said({"text": "hm", "thought": True}, **META),
        said(
            {"functionCall": {"id": "1", "name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "c2ln"},
            {"functionCall": {"id": "2", "name": "now", "args": {}}},
        ),
        said({"text": "", "thoughtSignature": "Yg=="}, {"text": "so"}),
        said({"functionCall": {"id": "3", "name": "now"}}),
        {"candidates": [{"finishReason": "STOP"}]},
    ],
    [
        START,
        thinking("hm"),
        Delta("tool_call", '{"city":"Rome"}', 1, id="1", name="weather", signature="c2ln"),
        Delta("tool_call", "{}", 2, id="2", name="now"),
        thinking("", 3, "gemini:Yg=="),
        text("so", 4),
        Delta("tool_call", "{}", 5, id="3", name="now"),
        Finished("tool_calls"),
        Ended(),
    ],
)
CHOICES = (
    [
        {"candidates": [candidate({"text": "a"}), candidate({"text": "b"}, index=1)], **META},
        {"candidates": [candidate({"text": "B"}, finish="STOP", index=1)]},
        {"candidates": [candidate({"text": "A"}, finish="SAFETY", index=0)]},
    ],
    [
        START,
        text("a"),
        text("b", choice=1),
        text("B", choice=1),
        text("A"),
        Finished("content_filter"),
        Finished("stop", 1),
        Ended(),
    ],
)
# As older models do: a finish reason in every event.
EAGER = (
    [said({"text": "a"}, finish="STOP", **META), said({"text": "b"}, finish="STOP"), said(finish="MAX_TOKENS")],
    [START, text("a"), text("b"), Finished("length"), Ended()],
)
BLOCKED = (
    [{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}, **META}],
    [
        Started("abc", "gemini-3.8-flash", usage=Usage(5), proves_late=True),
        Used(Usage(5)),
        Finished("content_filter"),
        Ended(),
    ],
)
BROKEN = (
    [
        said({"text": "a"}, **META),
        {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}},
        said({"text": "b"}, finish="STOP"),
    ],
    [START, text("a"), Failed("The model is overloaded.", "overloaded_error", "unavailable")],
)
CUT = ([said({"text": "a"}, **META), said({"text": "b"})], [START, text("a"), text("b")])
CUT_CHOICE = (
    [{"candidates": [candidate({"text": "a"}, finish="STOP"), candidate({"text": "b"}, index=1)], **META}],
    [START, text("a"), text("b", choice=1)],
)
STREAMS = {
    "plain": PLAIN,
    "thinking": THINKING,
    "tools": TOOLS,
    "choices": CHOICES,
    "eager": EAGER,
    "blocked": BLOCKED,
    "broken": BROKEN,
    "cut": CUT,
    "cut choice": CUT_CHOICE,
}
each = pytest.mark.parametrize(("chunks", "expected"), STREAMS.values(), ids=STREAMS)


@each
def test_streams_are_read(chunks, expected):
    assert events(*chunks) == expected


@each
def test_a_cut_stream_has_no_end(chunks, expected):
    if Ended() not in expected or chunks is BLOCKED[0] or chunks is EAGER[0]:
        return
    assert Ended() not in events(*chunks[:-1])
    assert Ended() in events(*chunks)


def test_calls_without_ids_get_one():
    calls = {"functionCall": {"name": "f"}}
    _, first, second, *_ = events(said(calls, calls, finish="STOP", **META))
    assert first.id.startswith("call_")
    assert second.id.startswith("call_")
    assert first.id != second.id


def test_logprobs_come_with_the_text():
    likely = {"chosenCandidates": [{"token": "a", "logProbability": -1}]}
    chunk = {"candidates": [candidate({"text": "a"}, {"text": "b"}, finish="STOP", logprobsResult=likely)], **META}
    content = [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}]
    assert events(chunk)[1:3] == [text("a", logprobs={"content": content, "refusal": None}), text("b")]


def test_a_block_mid_stream_is_read():
    assert events(said({"text": "a"}, **META), {"promptFeedback": {"blockReason": "SAFETY"}}) == [
        START,
        text("a"),
        Finished("content_filter"),
        Ended(),
    ]


def test_the_time_is_read():
    assert events(said(createTime="2026-01-02T03:04:05Z"))[0] == Started(created=1767323045)


@pytest.mark.parametrize(
    "data",
    [
        b"[DONE]",
        b'{"candidates":[]}',
        b'{"candidates":[{"content":{"parts":[{"text":1}]}}]}',
        b'{"usageMetadata":{"trafficType":"ON_DEMAND"}}',
    ],
)
def test_events_without_content_are_skipped(data):
    decoder = api.decoder()
    assert list(decoder.feed(data, "")) == []
    assert list(decoder.end()) == []


def test_candidates_beyond_the_bound_are_left_out():
    decoder = api.decoder()
    for index in (-1, 128, 2**70):
        body = json.dumps({"candidates": [candidate({"text": "a"}, index=index)]}).encode()
        assert not any(isinstance(event, Delta) for event in decoder.feed(body, ""))


def test_an_immediate_failure_is_read():
    assert events({"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED"}}) == [
        Failed("Slow.", "rate_limit_error", "resource_exhausted")
    ]
    assert events({"error": "?"}) == [Failed("?")]


def test_the_end_comes_once():
    decoder = api.decoder()
    decoder.feed(json.dumps(said({"text": "a"}, finish="STOP")).encode(), "")
    assert list(decoder.end()) == [Finished("stop"), Ended()]
    assert list(decoder.end()) == []
