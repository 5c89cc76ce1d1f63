"""Streamed answers of Converse, event by event."""

import json

import pytest

from extproc.dialects import aws_converse as api
from extproc.wire.framing.aws_eventstream import AWSEventStream, encode
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Failed, Finished, Started, Used
from tests.dialects import neutral


def frame(name, payload, kind="event"):
    names = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}
    headers = {names[kind]: name, ":content-type": "application/json", ":message-type": kind}
    return encode(headers, json.dumps(payload).encode())


def read(data):
    return neutral.read(api, data, AWSEventStream())


def start():
    return frame("messageStart", {"role": "assistant", "p": "abcdef"})


def begin(index, id, name):
    return frame(
        "contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": {"toolUseId": id, "name": name}}}
    )


def delta(index, **said):
    return frame("contentBlockDelta", {"contentBlockIndex": index, "delta": said, "p": "abc"})


def end(index):
    return frame("contentBlockStop", {"contentBlockIndex": index})


def stop(reason, **rest):
    return frame("messageStop", {"stopReason": reason, **rest})


def usage(**counts):
    return frame("metadata", {"usage": counts, "metrics": {"latencyMs": 5}})


def thought(index, **said):
    return delta(index, reasoningContent=said)


def text(more, block=0):
    return Delta("text", more, block)


COUNTS = {"inputTokens": 9, "outputTokens": 2, "totalTokens": 31, "cacheReadInputTokens": 20}
PLAIN = (
    [
        start(),
        delta(0, text="Hel"),
        delta(0, text="lo €"),
        delta(0, text=""),
        end(0),
        stop("end_turn"),
        usage(**COUNTS),
    ],
    [Started(), text("Hel"), text("lo €"), Finished("stop"), Used(Usage(29, 2, 20)), Ended()],
)
THINKING = (
    [
        start(),
        thought(0, text="I "),
        thought(0, text="think"),
        thought(0, signature="c2ln"),
        end(0),
        thought(1, redactedContent="cmVk"),
        end(1),
        delta(2, text="hi"),
        end(2),
        stop("max_tokens"),
        usage(**COUNTS),
    ],
    [
        Started(),
        Delta("thinking", "I ", 0),
        Delta("thinking", "think", 0),
        Delta("thinking", "", 0, signature="c2ln"),
        Delta("thinking", "", 1, redacted="cmVk"),
        text("hi", 2),
        Finished("length"),
        Used(Usage(29, 2, 20)),
        Ended(),
    ],
)
TOOLS = (
    [
        start(),
        delta(0, text="hm"),
        end(0),
        begin(1, "a", "weather"),
        delta(1, toolUse={"input": ""}),
        delta(1, toolUse={"input": '{"city":'}),
        delta(1, toolUse={"input": '"Rome"}'}),
        end(1),
        begin(3, "b", "now"),
        end(3),
        delta(4, toolUse={"input": "of nobody"}),
        stop("tool_use"),
    ],
    [
        Started(),
        text("hm"),
        Delta("tool_call", "", 1, id="a", name="weather"),
        Delta("tool_call", '{"city":', 1),
        Delta("tool_call", '"Rome"}', 1),
        Delta("tool_call", "", 2, id="b", name="now"),
        Delta("tool_call", "{}", 2),
        Finished("tool_calls"),
        Ended(),
    ],
)
# No start, a call that never ends, a stop reason that does not match, citations, unknown events.
ODD = (
    [
        delta(0, citation={"title": "a"}),
        delta(0, text="a"),
        frame("ofNextYear", {"a": 1}),
        begin(1, "a", "f"),
        start(),
        stop("end_turn", additionalModelResponseFields={"stop_sequence": "END"}),
        delta(2, text="late"),
        stop("max_tokens"),
    ],
    [
        Started(),
        text("a"),
        Delta("tool_call", "", 1, id="a", name="f"),
        Delta("tool_call", "{}", 1),
        Finished("tool_calls", stop_sequence="END"),
        Ended(),
    ],
)
BROKEN = (
    [start(), delta(0, text="a"), frame("throttlingException", {"message": "Slow."}, "exception"), delta(0, text="b")],
    [Started(), text("a"), Failed("Slow.", "rate_limit_error", "throttlingException")],
)
ERROR = (
    [frame("InternalFailure", {}, "error"), start()],
    [Failed("The provider broke off: InternalFailure.", "api_error", "InternalFailure")],
)
CUT = ([start(), delta(0, text="a"), end(0)], [Started(), text("a")])
STREAMS = {
    "plain": PLAIN,
    "thinking": THINKING,
    "tools": TOOLS,
    "odd": ODD,
    "broken": BROKEN,
    "error": ERROR,
    "cut": CUT,
}
each = pytest.mark.parametrize(("frames", "expected"), STREAMS.values(), ids=STREAMS)


@each
def test_streams_are_read(frames, expected):
    assert read(b"".join(frames)) == expected


@each
def test_a_stream_that_ends_too_early_has_no_end(frames, expected):
    """It may break off in the middle of a frame, or before the stop event."""
    whole = b"".join(frames)
    for place in range(1, len(whole)):
        kinds = [type(event) for event in read(whole[:place])]
        assert Ended not in kinds or Finished in kinds
        assert place in _borders(frames) or kinds[-1] is Failed


def _borders(frames):
    return {sum(map(len, frames[:count])) for count in range(len(frames))}


def test_a_damaged_frame_is_a_failure():
    whole = bytearray(b"".join(PLAIN[0]))
    whole[len(start()) + 40] ^= 1
    assert read(bytes(whole)) == [Started(), Failed("The provider broke off: corrupt.", "api_error", "corrupt")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", "rate_limit_error"),
        ("validationException", "invalid_request_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("modelStreamErrorException", "api_error"),
        ("internalServerException", "api_error"),
    ],
)
def test_exceptions_are_failures(name, kind):
    assert read(frame(name, {"message": "No.", "originalStatusCode": 500}, "exception")) == [Failed("No.", kind, name)]


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"[" * 100_000, b"\xff", b'{"delta":1,"stopReason":1}'])
@pytest.mark.parametrize("name", ["contentBlockDelta", "messageStop", "metadata", "?"])
def test_events_without_content_are_skipped(data, name):
    decoder = api.decoder()
    assert list(decoder.feed(data, name)) == []
    assert list(decoder.end()) == []
