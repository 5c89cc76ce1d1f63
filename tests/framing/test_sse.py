import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.framing import EMPTY, OVERSIZE
from extproc.wire.framing.sse import SSE


def read(chunks, limit=1 << 20):
    framing = SSE(limit)
    events = [event for chunk in chunks for event in framing.feed(chunk)]
    return [*events, *framing.end()]


def payloads(chunks):
    return [event.data for event in read(chunks) if event.data is not None]


KEY = re.compile(rb'"[ \t]*:').search
NOTHING = re.compile(rb"[ \t]*(\{[ \t]*\}|\[[ \t]*\]|\[DONE\]|null|true|false|-?[0-9]+)?[ \t]*").fullmatch


def lines(found):
    """The data lines of payloads, but for those that carry nothing: events in a row without a key are one."""
    return [line for data in found for line in data.split(b"\n") if not NOTHING(line)]


def joined(chunks, limit=1 << 20):
    return b"".join(event.raw for event in read(chunks, limit))


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", []),
        (b"data: a\n\n", [b"a"]),
        (b'data: "a":\r\rdata: "b":\r\r', [b'"a":', b'"b":']),
        (b'data: "a":\r\n\r\ndata: "b":\r\n\r\n', [b'"a":', b'"b":']),
        (b'data: "a":\n\r\ndata: "b":\r\n\ndata: "c":\n\rdata: "d":\r\r\n', [b'"a":', b'"b":', b'"c":', b'"d":']),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data:\n\n", []),
        (b"data: {}\n\ndata:[ ]\n\ndata: null\n\ndata: -17\n\n", []),
        (b"data: {\n\n\n: b\n\ndata: c\n\n", [b"{\nc"]),
        (b'event: a\ndata: {\ndata: "b":1}\n\n', [b'{\n"b":1}']),
        (b'data:{"a" : 1}\n\n', [b'{"a" : 1}']),
        (b": comment\n\ndata: a\n\n", [b"a"]),
        (b": comment\ndata: a\n\n", [b"a"]),
        (b"event: message\nid: 1\nretry: 10\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata:b\ndata: c\n\n", [b"a\nb\nc"]),
        (b"data: a\nevent: x\ndata: b\n\n", [b"a\nb"]),
        (b'data: "a":\n\n\n\n\ndata: "b":\n\n', [b'"a":', b'"b":']),
        (b"\ndata: a\n\n", [b"a"]),
        (b"database: a\n\n", []),
        (b" data: a\n\n", []),
        (b"data: [DONE]\n\ndata: [DONE]\n\n", [b"[DONE]"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"data: a\n\ndata: b\n", [b"a", b"b"]),
        (b"data: a\n\n: bye", [b"a"]),
        (b"data: \xff\x00\n\n", [b"\xff\x00"]),
        (b'\xef\xbb\xbfdata: "a":\n\ndata: "b":\n\n', [b'"a":', b'"b":']),
        (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [b"a\nb"]),
        (b': \xc2\xbfdata: {"a":1}\n\n', []),
        (b"\xef\xbb\xbf\r\ndata: a\r\n\r\n", [b"a"]),
    ],
)
def test_payloads_are_read(stream, expected):
    assert payloads([stream]) == expected
    assert joined([stream]) == stream


def test_an_event_leaves_with_its_empty_line():
    framing = SSE()
    assert framing.feed(b"data: a\n") == []
    [event] = framing.feed(b"\ndata: b")
    assert (event.raw, event.data) == (b"data: a\n\n", b"a")
    [event] = framing.end()
    assert (event.raw, event.data) == (b"data: b", b"b")
    assert framing.end() == []


def test_a_carriage_return_at_the_end_of_a_chunk_waits_for_the_next_byte():
    framing = SSE()
    assert framing.feed(b"data: a\r\r") == []
    [event] = framing.feed(b"\n")
    assert event.raw == b"data: a\r\r\n"


def test_a_comment_has_no_data_but_leaves():
    [event] = read([b": still here\n\n"])
    assert (event.raw, event.data) == (b": still here\n\n", None)


# --- limits


def test_an_event_of_exactly_the_limit_is_read():
    stream = b"data: " + b"x" * 94
    [event] = read([stream, b"\n\n"], limit=100)
    assert event.data == b"x" * 94


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r", b""])
def test_the_limit_is_the_same_however_the_event_is_cut(newline):
    """An event that arrived whole was read, however large it was."""
    for size in range(17, 25):
        stream = b"data: " + b"x" * (size - 6) + newline * 2
        for cut in range(len(stream) + 1):
            frames = read([chunk for chunk in (stream[:cut], stream[cut:]) if chunk], limit=20)
            assert b"".join(frame.raw for frame in frames) == stream
            assert [frame.data for frame in frames if frame.data] == ([b"x" * (size - 6)] if size <= 20 else [])
            assert [frame.name for frame in frames].count(OVERSIZE) == (size > 20)
            assert (frames[-1].edges is not None) == (size > 20)


def test_an_event_over_the_limit_passes_in_pieces_without_data():
    chunks = [b"data: ", *[b"x" * 50] * 10, b"\n\n", b"data: a\n\n"]
    events = read(chunks, limit=100)
    assert b"".join(event.raw for event in events) == b"".join(chunks)
    assert [event.data for event in events if event.data is not None] == [b"a"]
    assert max(len(event.raw) for event in events) <= 100 + 50


def test_no_more_than_the_limit_is_kept():
    framing = SSE(100)
    for _ in range(1000):
        framing.feed(b"x" * 30)
        assert len(framing._held) <= 100


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_the_event_after_one_over_the_limit_is_read_however_it_is_split(newline):
    stream = b"data: " + b"x" * 40 + newline * 2 + b'data: "a":' + newline * 2 + b'data: "b":' + newline * 2
    for cut in range(30, len(stream)):  # so that the first event is over the limit at the cut
        chunks = [stream[:20], stream[20:cut], stream[cut:]]
        events = read([chunk for chunk in chunks if chunk], limit=20)
        assert b"".join(event.raw for event in events) == stream
        assert [event.data for event in events if event.data is not None][-2:] == [b'"a":', b'"b":']


# --- every split gives the same events

CHAT = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Gr\xc3\xbc\xc3\x9fe \xf0\x9f\x8c\x8d"}}]}\n\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)
RECORDED = {
    "chat": CHAT,
    "chat with crlf": CHAT.replace(b"\n", b"\r\n"),
    "chat with cr": CHAT.replace(b"\n", b"\r"),
    "mixed line ends": CHAT.replace(b"\n\n", b"\r\n\n", 2).replace(b"\n\n", b"\r\r\n", 1),
    "no space": CHAT.replace(b"data: ", b"data:"),
    "keep-alive comments": b": PROCESSING\n\n" * 3 + CHAT.replace(b"\n\n", b"\n\n: ping\n\n"),
    "named events": b"event: message_start\ndata: {}\n\nevent: ping\ndata: {}\n\nevent: stop\ndata: {}\n\n",
    "several data lines": b'data: {\ndata:  "a": 1\ndata: }\n\ndata: [DONE]\n\n',
    "no final blank line": CHAT.removesuffix(b"\n\n"),
    "two ends": CHAT + b"data: [DONE]\n\n",
    "blank lines all over": b"\n\n\r\n\r" + CHAT.replace(b"\n\n", b"\n\n\n\r\n\r\n") + b"\r\r\r",
}


@pytest.mark.parametrize("stream", RECORDED.values(), ids=RECORDED)
def test_every_split_in_two_reads_the_same(stream):
    expected = payloads([stream])
    for cut in range(len(stream) + 1):
        chunks = [stream[:cut], stream[cut:]]
        assert payloads(chunks) == expected
        assert joined(chunks) == stream


@pytest.mark.parametrize("stream", RECORDED.values(), ids=RECORDED)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_single_bytes_and_small_pieces_read_the_same(stream, size):
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert payloads(chunks) == payloads([stream])
    assert joined(chunks) == stream


NEWLINES = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.one_of(
    st.just(b""),
    st.binary(max_size=8),
    st.tuples(st.sampled_from([b"data: ", b"data:", b"id: ", b": "]), st.binary(max_size=8)).map(b"".join),
    st.sampled_from(
        [b'data: {"a":1}', b'data:"b":', b"data: {}", b"data: [DONE]", b'data: {"a" :', b': {"a":', b"event: a"]
    ),
)
STREAMS = st.lists(st.builds(lambda line, newline: line + newline, LINES, NEWLINES), max_size=20).map(b"".join)


def split(stream, cuts):
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(places)]


@given(STREAMS | st.binary(max_size=100), st.lists(st.integers(min_value=0), max_size=10))
def test_any_split_of_any_stream_gives_the_same_payloads(stream, cuts):
    assert lines(payloads(split(stream, cuts))) == lines(payloads([stream]))


@given(STREAMS | st.binary(max_size=100), st.lists(st.integers(min_value=0), max_size=10), st.integers(0, 40))
def test_the_bytes_are_unchanged_with_any_limit(stream, cuts, limit):
    assert joined(split(stream, cuts), limit) == stream


def reference(stream):
    """The specification, read naively: lines first, then events. The last event needs no empty line."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found, data = [], []
    for line in [*lines, b""]:
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif not line and data:
            found.append(b"\n".join(data))
            data = []
    return found


@given(STREAMS)
def test_events_are_those_of_the_specification(stream):
    assert lines(payloads([stream])) == lines(reference(stream))
    alone = [event.data for event in read([stream]) if event.name != EMPTY and event.data is not None]
    assert [data for data in alone if KEY(data)] == [data for data in reference(stream) if KEY(data)]
