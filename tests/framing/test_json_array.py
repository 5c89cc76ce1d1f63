"""A stream of server-sent events as one JSON array."""

import json

import pytest

from extproc.wire.framing.json_array import JSONArray
from extproc.wire.framing.sse import SSE

EVENTS = [{"text": "a,\n]"}, {"text": "é"}, {"n": [1]}]
STREAM = (
    b": note\n\n" + b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in EVENTS) + b"data: [DONE]\n\n"
)


def written(pieces, *, limit=1 << 20, last=None):
    framing, array, out = SSE(limit), JSONArray(), []
    for piece in pieces:
        out += array.items(framing.feed(piece))
    if last is not None:
        return b"".join(out) + array.cut_off(last)
    return b"".join([*out, *array.items(framing.end()), array.end()])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_each_event_is_an_item(size):
    assert json.loads(written([STREAM[at : at + size] for at in range(0, len(STREAM), size)])) == EVENTS


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_too_long_to_be_read_are_items_too(newline):
    long = [{"text": "x" * 500}, {"text": "short"}, {"text": "y" * 300}]
    body = b"".join(b"data: %b%b%b" % (json.dumps(event).encode(), newline, newline) for event in long)
    assert json.loads(written([body[at : at + 40] for at in range(0, len(body), 40)], limit=100)) == long


def test_an_end_by_the_gateway_is_the_last_item():
    error = {"error": {"code": 503}}
    last = b"data: %b\n\n" % json.dumps(error).encode()
    assert json.loads(written([STREAM], last=last)) == [*EVENTS, error]
    assert json.loads(written([], last=last)) == [error]


def test_a_stream_without_events_is_an_empty_array():
    assert written([b": only a note\n\n"]) == b"[]"
