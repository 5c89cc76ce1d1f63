"""Frames of broken or hostile peers, by section of RFC 9113, and the error code each gets."""

import struct
import tracemalloc

import pytest
from hpack import Encoder

from extproc.wire.transport import TransportLimits
from extproc.wire.transport.frames import PREFACE
from tests.transport.peers import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Talk,
    begin,
    block,
    data,
    frame,
    grpc,
    message,
    request,
    reset,
    settings,
    window,
)

OPEN = request(1)
MOST = (1 << 31) - 1


def setting(name, value):
    return frame(SETTINGS, 0, 0, struct.pack(">HL", name, value))


CASES = {
    # 4.2, 6: frames of a wrong size
    "DATA larger than SETTINGS_MAX_FRAME_SIZE": ("FRAME_SIZE_ERROR", OPEN, data(1, b"x" * 16_385)),
    "HEADERS larger than that": ("FRAME_SIZE_ERROR", frame(HEADERS, 4, 1, b"x" * 16_385)),
    "an unknown frame larger than that": ("FRAME_SIZE_ERROR", frame(0x55, 0, 0, b"x" * 16_385)),
    "the largest length there is": ("FRAME_SIZE_ERROR", b"\xff\xff\xff\0\0\0\0\0\1"),
    "RST_STREAM of 3 bytes": ("FRAME_SIZE_ERROR", OPEN, frame(RST_STREAM, 0, 1, b"\0" * 3)),
    "RST_STREAM of 5 bytes": ("FRAME_SIZE_ERROR", OPEN, frame(RST_STREAM, 0, 1, b"\0" * 5)),
    "PRIORITY of 4 bytes": ("FRAME_SIZE_ERROR", OPEN, frame(PRIORITY, 0, 1, b"\0" * 4)),
    "SETTINGS of 5 bytes": ("FRAME_SIZE_ERROR", frame(SETTINGS, 0, 0, b"\0" * 5)),
    "SETTINGS acknowledged with a payload": ("FRAME_SIZE_ERROR", frame(SETTINGS, ACK, 0, b"\0" * 6)),
    "PING of 7 bytes": ("FRAME_SIZE_ERROR", frame(PING, 0, 0, b"\0" * 7)),
    "PING of 9 bytes": ("FRAME_SIZE_ERROR", frame(PING, 0, 0, b"\0" * 9)),
    "WINDOW_UPDATE of 3 bytes": ("FRAME_SIZE_ERROR", frame(WINDOW_UPDATE, 0, 0, b"\0" * 3)),
    "WINDOW_UPDATE of 5 bytes": ("FRAME_SIZE_ERROR", OPEN, frame(WINDOW_UPDATE, 0, 1, b"\0" * 5)),
    # 4.3, 6.10: header blocks
    "another frame in a header block": ("PROTOCOL_ERROR", frame(HEADERS, 0, 1, block()), frame(PING, 0, 0, b"8" * 8)),
    "DATA in a header block": ("PROTOCOL_ERROR", frame(HEADERS, 0, 1, block()), data(1)),
    "an unknown frame in a header block": ("PROTOCOL_ERROR", frame(HEADERS, 0, 1, block()), frame(0x55, 0, 0)),
    "HEADERS in a header block": ("PROTOCOL_ERROR", frame(HEADERS, 0, 1, block()), request(1)),
    "CONTINUATION of another stream": (
        *("PROTOCOL_ERROR", frame(HEADERS, 0, 1, block())),
        frame(CONTINUATION, END_HEADERS, 3, b""),
    ),
    "CONTINUATION of nothing": ("PROTOCOL_ERROR", OPEN, frame(CONTINUATION, END_HEADERS, 1, block())),
    "CONTINUATION behind DATA": ("PROTOCOL_ERROR", OPEN, data(1), frame(CONTINUATION, END_HEADERS, 1, block())),
    "CONTINUATION first": ("PROTOCOL_ERROR", frame(CONTINUATION, END_HEADERS, 1, block())),
    "a broken header block": ("COMPRESSION_ERROR", frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")),
    "a broken block of a stream that we left": ("COMPRESSION_ERROR", frame(HEADERS, END_HEADERS, 9, b"\x80")),
    # 5.1.1: identifiers
    "an even stream": ("PROTOCOL_ERROR", request(2)),
    "a stream below the newest": ("STREAM_CLOSED", request(5), request(3)),
    "a stream again": ("STREAM_CLOSED", request(1), reset(1), request(1)),
    "headers of an open stream": ("PROTOCOL_ERROR", OPEN, request(1, end=True)),
    "headers of a half closed stream": ("STREAM_CLOSED", request(1, end=True), request(1, end=True)),
    "HEADERS on stream 0": ("PROTOCOL_ERROR", frame(HEADERS, END_HEADERS, 0, block())),
    "DATA on stream 0": ("PROTOCOL_ERROR", data(0, b"x")),
    "RST_STREAM on stream 0": ("PROTOCOL_ERROR", reset(0)),
    "PRIORITY on stream 0": ("PROTOCOL_ERROR", frame(PRIORITY, 0, 0, b"\0" * 5)),
    "CONTINUATION on stream 0": ("PROTOCOL_ERROR", frame(HEADERS, 0, 1, block()), frame(CONTINUATION, 4, 0)),
    "SETTINGS on a stream": ("PROTOCOL_ERROR", OPEN, frame(SETTINGS, 0, 1)),
    "PING on a stream": ("PROTOCOL_ERROR", OPEN, frame(PING, 0, 1, b"\0" * 8)),
    "GOAWAY on a stream": ("PROTOCOL_ERROR", OPEN, frame(GOAWAY, 0, 1, b"\0" * 8)),
    # 5.1: frames on idle, half closed and closed streams
    "DATA on an idle stream": ("PROTOCOL_ERROR", data(1, b"x")),
    "RST_STREAM on an idle stream": ("PROTOCOL_ERROR", reset(1)),
    "WINDOW_UPDATE on an idle stream": ("PROTOCOL_ERROR", window(1, 1)),
    "DATA on a half closed stream": ("STREAM_CLOSED", request(1, end=True), data(1, b"x")),
    "DATA behind its own end": ("STREAM_CLOSED", OPEN, data(1, end=True), data(1, b"x")),
    "DATA on a stream that was reset": ("STREAM_CLOSED", OPEN, reset(1), data(1, b"x")),
    "PUSH_PROMISE": ("PROTOCOL_ERROR", OPEN, frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block())),
    # 6.1, 6.2: padding
    "more padding than DATA": ("PROTOCOL_ERROR", OPEN, frame(DATA, PADDED, 1, b"\x05abcd")),
    "as much padding as DATA with its length": ("PROTOCOL_ERROR", OPEN, frame(DATA, PADDED, 1, b"\x05abcde"[:5])),
    "padded DATA without a length": ("PROTOCOL_ERROR", OPEN, frame(DATA, PADDED, 1)),
    "more padding than HEADERS": ("PROTOCOL_ERROR", frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + block())),
    "padded HEADERS without a length": ("PROTOCOL_ERROR", frame(HEADERS, END_HEADERS | PADDED, 1)),
    "HEADERS without room for a priority": ("PROTOCOL_ERROR", frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, b"\0")),
    # 6.5.2: settings
    "ENABLE_PUSH of 2": ("PROTOCOL_ERROR", setting(2, 2)),
    "INITIAL_WINDOW_SIZE beyond 2^31-1": ("FLOW_CONTROL_ERROR", setting(4, 1 << 31)),
    "MAX_FRAME_SIZE of 16,383": ("PROTOCOL_ERROR", setting(5, 16_383)),
    "MAX_FRAME_SIZE of 2^24": ("PROTOCOL_ERROR", setting(5, 1 << 24)),
    # 6.9: windows
    "a connection's window that grows by 0": ("PROTOCOL_ERROR", window(0, 0)),
    "a stream's window that grows by 0": ("PROTOCOL_ERROR", OPEN, window(1, 0)),
    "a connection's window beyond 2^31-1": ("FLOW_CONTROL_ERROR", window(0, MOST - 65_535), window(0, 1)),
    "a stream's window beyond 2^31-1": ("FLOW_CONTROL_ERROR", OPEN, window(1, MOST - 65_535), window(1, 1)),
    "that by a setting": ("FLOW_CONTROL_ERROR", OPEN, window(1, MOST - 65_535), settings(window=65_536)),
    # 8.1: requests
    **{
        f"a request with {name}": ("PROTOCOL_ERROR", frame(HEADERS, END_HEADERS, 1, block(headers)))
        for name, headers in {
            "an upper-case header": [*REQUEST, ("X-A", "1")],
            "a connection header": [*REQUEST, ("connection", "close")],
            "te of other than trailers": [*REQUEST[:4], ("te", "gzip"), REQUEST[5]],
            "two paths": [*REQUEST[:4], REQUEST[2], *REQUEST[4:]],
            "a pseudo-header behind others": [*REQUEST[:3], *REQUEST[4:], REQUEST[3]],
            "a response's pseudo-header": [(":status", "200"), *REQUEST],
            "an unknown pseudo-header": [(":test", "1"), *REQUEST],
            "no path": [REQUEST[0], REQUEST[1], *REQUEST[3:]],
            "an empty path": [*REQUEST[:2], (":path", ""), *REQUEST[3:]],
            "no method": REQUEST[1:],
            "no scheme": [REQUEST[0], *REQUEST[2:]],
            "another method": [(":method", "GET"), *REQUEST[1:]],
            "another content type": [*REQUEST[:5], ("content-type", "application/json")],
            "a line break": [*REQUEST, ("x-a", "b\nc")],
        }.items()
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_protocol_error_ends_the_connection_with_its_code(name, talk):
    code, *frames = CASES[name]
    one = talk()
    if "that we left" in name:
        one.tell(request(9))
        one.end(9)
    before = one.tell(*frames[:-1])
    assert one.connection.fault is None, "only the last frame is wrong"
    assert one.tell(frames[-1]) == []
    assert one.code == code
    assert one.tell(request(101), frame(PING, 0, 0, b"8" * 8)) == [], "nothing counts any more"
    assert one.heard() == []
    assert len(one.connection.lost()) == len({id for kind, id, *_ in before if kind == "opened"}) - sum(
        kind == "gone" for kind, *_ in before
    ), "the driver learns of every stream"


def test_the_last_goaway_names_the_newest_stream(talk):
    one = talk()
    one.tell(request(1), request(7), data(0))
    assert one.heard() == [("GoAway", 0, (7, 1))]


def test_events_before_the_error_are_delivered(talk):
    assert talk().tell(request(1), message(1, b"a"), data(0)) == [("opened", 1), ("message", 1, b"a")]


# --- floods: CVE-2019-9512, 9515, 9518, CVE-2023-44487, CVE-2024-27316; with the default limits


def until_the_end(one, frames, most=200_000):
    """The number of floods that passed before the connection ended with ENHANCE_YOUR_CALM."""
    for count in range(most):
        one.tell(frames(count))
        one.connection.output()
        if one.connection.fault is not None:
            assert one.connection.fault.code.name == "ENHANCE_YOUR_CALM"
            return count
    raise AssertionError("it went on forever")


def test_rapid_reset_ends_the_connection():
    one = Talk()
    assert until_the_end(one, lambda index: request(2 * index + 1) + reset(2 * index + 1)) == 10_000
    assert (list(one.connection.streams), one.connection._left) == ([20_001], {}), "only the one that was too many"


def test_rapid_reset_with_a_partial_message_ends_the_connection():
    one = Talk()
    assert until_the_end(one, lambda index: request(2 * index + 1) + data(2 * index + 1) + reset(2 * index + 1)) == 1000


def test_a_flood_of_continuations_ends_the_connection():
    one = Talk()
    one.tell(frame(HEADERS, 0, 1, b""))
    assert until_the_end(one, lambda _: frame(CONTINUATION, 0, 1, b"")) == 16


def test_a_flood_of_large_continuations_ends_the_connection():
    one = Talk()
    one.tell(frame(HEADERS, 0, 1, b""))
    assert until_the_end(one, lambda _: frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 3000)) == 2


@pytest.mark.parametrize(
    ("flood", "most"),
    [
        (frame(PING, 0, 0, b"8" * 8), 1000),
        (frame(PING, ACK, 0, b"8" * 8), 1000),
        (frame(SETTINGS, 0, 0), 19),
        (frame(SETTINGS, ACK, 0), 19),
        (settings(window=1), 19),
        (data(1), 1000),
        (frame(DATA, PADDED, 1, b"\xff" + b"\0" * 255), 1000),
        (frame(PRIORITY, 0, 1, b"\0" * 5), 1000),
        (frame(GOAWAY, 0, 0, b"\0" * 8), 1000),
        (frame(0x99, 0, 1), 1000),
    ],
)
def test_a_flood_of_any_frame_ends_the_connection(flood, most):
    one = Talk()
    one.tell(request(1))
    assert until_the_end(one, lambda _: flood) == most


# --- bombs


def test_a_header_bomb_is_not_unpacked():
    """4,000 bytes in the table, and then one byte for each reference to them."""
    encoder = Encoder()
    one = Talk()
    one.tell(frame(HEADERS, END_HEADERS, 1, encoder.encode([*REQUEST, ("x-bomb", "b" * 4000)])))
    assert one.connection.fault is None
    again = encoder.encode([("x-bomb", "b" * 4000)])
    assert len(again) == 1
    tracemalloc.start()
    one.tell(frame(HEADERS, END_HEADERS, 3, again * 16_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one.code == "ENHANCE_YOUR_CALM"
    assert peak < 1 << 20, "64,000,000 bytes were meant"


def test_a_header_list_that_is_too_large_is_refused():
    one = Talk()
    one.tell(frame(HEADERS, END_HEADERS, 1, block([*REQUEST, *[("a", "b")] * 2000])))
    assert one.code == "ENHANCE_YOUR_CALM"


def test_an_announced_message_takes_no_memory_until_it_comes():
    one = Talk()
    tracemalloc.start()
    for id in range(1, 401, 2):
        one.tell(request(id), data(id, struct.pack(">BL", 0, 80 << 20)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one.code is None
    assert peak < 2 << 20, "16,000 MiB were announced"


def test_a_message_in_single_bytes_takes_no_more_memory_than_its_length():
    one = Talk()
    one.tell(request(1))
    content = grpc(b"x" * 60_000)
    tracemalloc.start()
    events = []
    for at in range(0, len(content), 1000):
        events += one.tell(*(data(1, content[index : index + 1]) for index in range(at, min(at + 1000, len(content)))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert events == [("message", 1, b"x" * 60_000)]
    assert peak < 320_000


def test_tiny_windows_cost_no_more_than_the_frames_that_open_them():
    one = Talk(begun=False)
    one.tell(begin(window=0))
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"x" * 100_000)
    one.heard()
    one.tell(*(window(1, 1) for _ in range(1000)))
    assert [content for _, _, content in one.heard()] == [grpc(b"x" * 100_000)[at : at + 1] for at in range(1000)]


def test_a_peer_that_opens_no_window_holds_one_answer_for_each_stream():
    """Its further messages wait unanswered, and its own window closes."""
    one = Talk(begun=False)
    one.tell(begin(window=0))
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"x" * 100_000)
    one.heard()
    full = message(1, b"q" * (16_384 - 5))
    assert one.tell(full * 63) == []
    assert one.heard() == []
    one.tell(full * 2)
    assert one.code == "FLOW_CONTROL_ERROR"


# --- errors of one call: the connection continues


@pytest.mark.parametrize(
    "broken",
    [
        message(1, b"x" * 1001),
        data(1, struct.pack(">BL", 0, MOST)),
        data(1, grpc(b"x", compressed=1)),
        data(1, grpc(b"x")[:4], end=True),
        message(1, b"busy") * 102,
        reset(1),
    ],
)
def test_an_error_of_one_call_leaves_the_others(talk, broken):
    one = talk(TransportLimits(message=1000, queued_messages=100))
    one.tell(request(1), request(3))
    assert ("gone", 1) in one.tell(broken)
    one.heard()
    assert one.tell(message(3, b"a")) == [("message", 3, b"a")]
    one.send(3, b"b")
    assert [(name, id) for name, id, _ in one.heard()] == [("Headers", 3), ("Data", 3)]


def test_garbage_after_the_preface_ends_the_connection(talk):
    one = talk(begun=False)
    one.tell(PREFACE)
    one.tell(b"\xff" * 100)
    assert one.code == "FRAME_SIZE_ERROR"
