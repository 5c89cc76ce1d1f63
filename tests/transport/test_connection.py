"""Conversations in plain bytes: fed whole, then byte by byte."""

import pytest
from hpack import Decoder

from extproc.wire.transport import TransportLimits
from extproc.wire.transport.frames import PREFACE
from tests.transport.peers import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PATH,
    PING,
    PRIORITY,
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

MIB = 1 << 20


def decoded(*frames):
    """Header blocks of received frames, read by one decoder."""
    decoder = Decoder()
    return [dict(decoder.decode(one.data)) for name, _, one in frames if name == "Headers"]


# --- the start of a connection


def test_the_server_begins_with_its_settings_and_a_large_window():
    heard = Talk(begun=False).heard()
    assert heard == [
        ("Settings", 0, {3: 100_000, 4: MIB, 5: 16_384, 6: 65_536}),
        ("WindowUpdate", 0, 16 * MIB - 65_535),
    ]


def test_settings_are_acknowledged(talk):
    one = talk(begun=False)
    one.heard()
    assert one.tell(begin(push=0, streams=100)) == []
    assert one.heard() == [("Settings", 0, "ACK")]


@pytest.mark.parametrize("wrong", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\0" * 24])
def test_another_protocol_is_refused(talk, wrong):
    one = talk(begun=False)
    assert one.tell(wrong) == []
    assert one.code == "PROTOCOL_ERROR"


@pytest.mark.parametrize("first", [request(1), frame(PING, 0, 0, b"8" * 8), frame(4, ACK, 0), data(1, b"x")])
def test_the_first_frame_has_to_be_settings(talk, first):
    one = talk(begun=False)
    one.tell(PREFACE, first)
    assert one.code == "PROTOCOL_ERROR"


# --- a call


def test_a_call_runs_from_headers_to_trailers(talk):
    one = talk()
    assert one.tell(request(1, ("x-extproc", "a"), ("x-extproc", "b"))) == [("opened", 1)]
    assert one.streams[1].path == PATH
    assert one.streams[1].metadata == {"te": "trailers", "content-type": "application/grpc", "x-extproc": "a,b"}
    assert one.tell(message(1, b"question")) == [("message", 1, b"question")]
    one.send(1, b"answer")
    head, body = one.heard()
    assert body == ("Data", 1, grpc(b"answer"))
    assert decoded(head) == [{":status": "200", "content-type": "application/grpc"}]
    assert one.take(1) is None
    assert one.tell(message(1, b"more")) == [("message", 1, b"more")]
    one.send(1, b"one")
    one.send(1, b"two")
    assert one.heard() == [("Data", 1, grpc(b"one")), ("Data", 1, grpc(b"two"))]
    assert one.take(1) is None
    assert one.tell(data(1, end=True)) == [("ended", 1)]
    one.end(1)
    [(_, _, last)] = one.heard()
    assert last.flags == {"END_STREAM", "END_HEADERS"}
    assert decoded(("Headers", 1, last)) == [{"grpc-status": "0"}]
    assert one.connection.streams == {}


def test_the_last_message_may_end_the_stream(talk):
    one = talk()
    assert one.tell(request(1), message(1, b"only", end=True)) == [("opened", 1), ("message", 1, b"only")]
    assert one.take(1) is None
    assert one.streams[1].ended


def test_the_headers_may_end_the_stream(talk):
    assert talk().tell(request(1, end=True)) == [("opened", 1), ("ended", 1)]


def test_the_end_is_reported_after_the_last_message_was_taken(talk):
    one = talk()
    one.tell(request(1), message(1, b"a"), message(1, b"b"))
    assert one.tell(data(1, end=True)) == []
    assert one.take(1) == b"b"
    assert one.take(1) is None
    assert one.streams[1].ended


def test_an_early_end_resets_the_stream(talk):
    one = talk()
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"b")
    one.end(1)
    assert [(name, id) for name, id, _ in one.heard()] == [
        ("Headers", 1),
        ("Data", 1),
        ("Headers", 1),
        ("RstStream", 1),
    ]
    assert one.tell(message(1, b"c"), window(1, 5), data(1, b"d", end=True), reset(1)) == []
    assert one.heard() == []
    assert one.connection._left == {}


def test_an_error_without_an_answer_is_headers_only(talk):
    one = talk()
    one.tell(request(1, end=True))
    one.end(1, 12, "there is no such method: 100 %\n")
    heard = one.heard()
    assert decoded(*heard) == [
        {
            ":status": "200",
            "content-type": "application/grpc",
            "grpc-status": "12",
            "grpc-message": "there is no such method: 100 %25%0A",
        }
    ]
    assert heard[0][2].flags == {"END_STREAM", "END_HEADERS"}


def test_a_long_error_message_is_one_header(talk):
    one = talk()
    one.tell(request(1, end=True))
    one.end(1, 13, "x" * 1000)
    assert decoded(*one.heard())[0]["grpc-message"] == "x" * 1000


def test_nothing_is_sent_after_the_end(talk):
    one = talk()
    one.tell(request(1, end=True))
    one.end(1)
    one.heard()
    one.send(1, b"late")
    one.end(1)
    assert one.heard() == []


def test_many_streams_run_side_by_side(talk):
    one = talk()
    ids = range(1, 41, 2)
    assert one.tell(*map(request, ids)) == [("opened", id) for id in ids]
    assert one.tell(*(message(id, b"%d" % id) for id in ids)) == [("message", id, b"%d" % id) for id in ids]
    for id in reversed(ids):
        one.send(id, b"%d" % id)
        one.end(id)
    assert [id for name, id, _ in one.heard() if name == "Data"] == list(reversed(ids))
    assert one.tell(*map(reset, ids)) == []
    assert (one.connection.streams, one.connection._left) == ({}, {})


def test_a_connection_serves_more_than_a_thousand_calls(talk):
    one = talk()
    for id in range(1, 2001, 2):
        one.tell(request(id), message(id, b"a"))
        one.send(id, b"b")
        one.end(id)
        one.tell(reset(id))
    one.heard()
    assert one.tell(request(2001)) == [("opened", 2001)]
    assert one.connection.fault is None


# --- messages in any pieces


def test_a_frame_may_hold_several_messages(talk):
    one = talk()
    one.tell(request(1))
    assert one.tell(data(1, grpc(b"a") + grpc(b"") + grpc(b"ccc"))) == [("message", 1, b"a")]
    assert [one.take(1), one.take(1), one.take(1)] == [b"", b"ccc", None]


@pytest.mark.parametrize("size", range(1, 20))
def test_a_message_may_span_several_frames(talk, size):
    one = talk()
    one.tell(request(1))
    whole = grpc(b"hello") + grpc(b"") + grpc(b"world!")
    events = one.tell(*(data(1, whole[at : at + size]) for at in range(0, len(whole), size)))
    assert events == [("message", 1, b"hello")]
    assert [one.take(1), one.take(1), one.take(1)] == [b"", b"world!", None]


def test_a_message_may_be_empty(talk):
    one = talk()
    assert one.tell(request(1), message(1, b"")) == [("opened", 1), ("message", 1, b"")]


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_is_not_part_of_a_message(talk, padding):
    one = talk()
    padded = frame(HEADERS, END_HEADERS | PADDED, 1, bytes([padding]) + block() + b"\0" * padding)
    assert one.tell(padded) == [("opened", 1)]
    assert one.tell(frame(DATA, PADDED, 1, bytes([padding]) + grpc(b"a") + b"\0" * padding)) == [("message", 1, b"a")]
    assert one.take(1) is None


def test_a_priority_in_headers_is_skipped(talk):
    flags = END_HEADERS | WITH_PRIORITY | PADDED
    assert talk().tell(frame(HEADERS, flags, 1, b"\1\0\0\0\0\x10" + block() + b"\0")) == [("opened", 1)]


def test_headers_may_continue_in_further_frames(talk):
    whole = block()
    first, second, third = whole[:3], whole[3:20], whole[20:]
    one = talk()
    assert one.tell(frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, 0, 1, second)) == []
    assert one.tell(frame(CONTINUATION, END_HEADERS, 1, third)) == [("opened", 1), ("ended", 1)]


@pytest.mark.parametrize(
    ("payload", "encoding", "status"),
    [
        (grpc(b"x", compressed=1), "gzip", 12),
        (grpc(b"x", compressed=1), "", 13),
        (grpc(b"x", compressed=1), "identity", 13),
        (grpc(b"x", compressed=7), "gzip", 13),
        (grpc(b"whole")[:-1], "", 13),
        (grpc(b"")[:3], "", 13),
    ],
)
def test_compressed_and_incomplete_messages_end_the_call(talk, payload, encoding, status):
    one = talk()
    one.tell(request(1, *([("grpc-encoding", encoding)] if encoding else [])))
    assert one.tell(data(1, payload, end=True)) == [("gone", 1)]
    assert decoded(*one.heard())[0]["grpc-status"] == str(status)
    assert one.tell(request(3)) == [("opened", 3)], "the others go on"


def test_the_rest_of_a_refused_message_is_skipped(talk):
    one = talk(TransportLimits(message=10))
    one.tell(request(1), message(1, b"0123456789"))
    assert one.take(1) is None
    assert one.tell(data(1, grpc(b"0123456789a")[:7])) == [("gone", 1)]
    assert [name for name, *_ in one.heard()] == ["Headers", "RstStream"]
    assert one.tell(data(1, b"789a"), message(1, b"b"), data(1, end=True)) == []
    assert one.heard() == []


# --- one message at a time


def test_messages_of_a_busy_stream_wait_in_order(talk):
    one = talk()
    one.tell(request(1))
    assert one.tell(message(1, b"0")) == [("message", 1, b"0")]
    assert one.tell(*(message(1, b"%d" % number) for number in range(1, 10))) == []
    assert [one.take(1) for _ in range(9)] == [b"%d" % number for number in range(1, 10)]
    assert one.take(1) is None
    assert one.tell(message(1, b"10")) == [("message", 1, b"10")]


def test_a_reset_drops_waiting_messages(talk):
    one = talk()
    one.tell(request(1), message(1, b"a"), message(1, b"b"))
    assert one.tell(reset(1)) == [("gone", 1)]
    assert one.take(1) is None
    one.send(1, b"late")
    one.end(1)
    assert one.heard() == []


def test_what_came_before_the_reset_of_an_answered_stream_is_handled(talk):
    """A client leaves when it has read the end of an answer; the usage in it waited behind its other pieces."""
    one = talk()
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"answer")
    assert one.take(1) is None
    assert one.tell(message(1, b"b"), message(1, b"c"), message(1, b"d"), reset(1)) == [
        *(("message", 1, text) for text in (b"b", b"c", b"d")),
        ("gone", 1),
    ]
    assert one.take(1) is None


def test_a_lost_connection_ends_its_streams(talk):
    one = talk()
    one.tell(request(1), request(3), message(3, b"a"), request(5, end=True))
    one.end(5)
    assert [(kind, stream.id) for kind, stream, _ in one.connection.lost()] == [("gone", 1), ("gone", 3)]
    assert one.connection.lost() == []


# --- windows, inbound


def fill(one, id, size):
    """Send `size` bytes in messages of a frame."""
    full = message(id, b"x" * (16_384 - 5))
    return one.tell(full * (size // 16_384))


def grants(heard):
    return [(id, increment) for name, id, increment in heard if name == "WindowUpdate"]


def test_an_idle_stream_gets_its_window_back_in_large_steps(talk):
    one = talk()
    one.tell(request(1))
    for _ in range(64):
        assert len(fill(one, 1, 16_384)) == 1
        assert one.take(1) is None
    assert grants(one.heard()) == [(1, MIB // 2), (1, MIB // 2)]


def test_a_busy_stream_gets_no_window_until_its_queue_has_drained(talk):
    one = talk()
    one.tell(request(1))
    fill(one, 1, MIB)
    assert grants(one.heard()) == []
    for _ in range(63):
        assert one.take(1) is not None
    assert grants(one.heard()) == []
    assert one.take(1) is None
    assert grants(one.heard()) == [(1, MIB)]
    assert len(fill(one, 1, MIB)) == 1, "the peer goes on"


def test_a_message_larger_than_the_window_arrives(talk):
    one = talk()
    one.tell(request(1))
    whole = grpc(b"m" * (3 * MIB))
    events, allowed = [], MIB
    for at in range(0, len(whole), 16_384):
        part = whole[at : at + 16_384]
        assert len(part) <= allowed, "the peer has to stop"
        events += one.tell(data(1, part))
        allowed += sum(increment for id, increment in grants(one.heard()) if id == 1) - len(part)
    assert events == [("message", 1, b"m" * (3 * MIB))]


def test_a_stream_whose_peer_ended_gets_no_window(talk):
    one = talk()
    one.tell(request(1))
    fill(one, 1, MIB)
    one.tell(data(1, end=True))
    while one.take(1) is not None:
        pass
    assert grants(one.heard()) == []


def test_a_partial_message_waits_while_its_stream_is_busy(talk):
    one = talk()
    one.tell(request(1), message(1, b"first"))
    one.tell(*(data(1, grpc(b"m" * 2 * MIB)[at : at + 16_384]) for at in range(0, MIB // 2, 16_384)))
    assert grants(one.heard()) == []
    assert one.take(1) is None
    assert grants(one.heard()) == [(1, MIB // 2 + 10)]


def test_the_connections_window_is_given_back(talk):
    limits = TransportLimits(connection_window=2 * MIB)
    one = talk(limits)
    ids = (1, 3, 5)
    one.tell(*map(request, ids))
    fill(one, 1, MIB)
    fill(one, 3, MIB // 2)
    assert one.take(3) is not None
    one.heard()
    assert one.tell(reset(1)) == [("gone", 1)]
    assert grants(one.heard()) == [(0, MIB)], "what a reset stream held is free again"


def test_the_window_of_skipped_data_is_given_back(talk):
    one = talk(TransportLimits(connection_window=MIB))
    one.tell(request(1))
    one.end(1)
    one.heard()
    full = data(1, b"x" * 16_384)
    for _ in range(4):
        assert one.tell(full * 32) == []
        assert grants(one.heard()) == [(0, MIB // 2)]


def test_padding_counts_for_the_windows(talk):
    one = talk()
    one.tell(request(1))
    padded = frame(DATA, PADDED, 1, b"\xff" + grpc(b"a") + b"\0" * 255)
    one.tell(padded)
    assert one.streams[1].inbound == MIB - 262


# --- windows, outbound


def test_an_answer_beyond_the_window_waits(talk):
    one = talk()
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"b" * 100_000)
    one.end(1)
    heard = one.heard()
    assert sum(len(content) for name, _, content in heard if name == "Data") == 65_535
    assert [name for name, *_ in heard] == ["Headers", *["Data"] * 4]
    assert one.tell(window(1, 100_000)) == []
    assert one.heard() == [], "the connection's window is used up too"
    assert one.tell(window(0, 100_000)) == []
    rest = one.heard()
    assert [name for name, *_ in rest] == ["Data", "Data", "Data", "Headers", "RstStream"]
    sent = b"".join(content for name, _, content in [*heard, *rest] if name == "Data")
    assert sent == grpc(b"b" * 100_000)


def test_the_driver_learns_when_waiting_answers_have_left(talk):
    one = talk(begun=False)
    one.tell(begin(window=10))
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"0123456789")
    assert one.streams[1].unsent
    one.heard()
    assert one.tell(window(1, 4)) == []
    assert one.heard() == [("Data", 1, b"5678")]
    assert one.tell(window(1, 4)) == [("drained", 1)]
    assert one.heard() == [("Data", 1, b"9")]
    assert not one.streams[1].unsent


def test_answers_behind_a_waiting_one_keep_their_order(talk):
    one = talk(begun=False)
    one.tell(begin(window=0))
    one.heard()
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"one")
    one.send(1, b"")
    one.send(1, b"three")
    assert [name for name, *_ in one.heard()] == ["Headers"]
    assert one.tell(window(1, 1000)) == [("drained", 1)]
    assert b"".join(content for _, _, content in one.heard()) == grpc(b"one") + grpc(b"") + grpc(b"three")


def test_an_error_does_not_wait_for_the_window(talk):
    one = talk(begun=False)
    one.tell(begin(window=0))
    one.heard()
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"never read")
    one.end(1, 13, "internal error")
    assert [name for name, *_ in one.heard()] == ["Headers", "Headers", "RstStream"]


def test_frames_after_a_waiting_end_are_skipped(talk):
    one = talk(begun=False)
    one.tell(begin(window=0))
    one.tell(request(1), message(1, b"a"), message(1, b"b"))
    one.send(1, b"answer")
    one.end(1)
    one.heard()
    assert fill(one, 1, MIB // 2) == []
    assert one.tell(message(1, b"c"), data(1, grpc(b"d", compressed=1)), data(1, grpc(b"e")[:3])) == []
    assert grants(one.heard()) == [(1, MIB // 2 + 12)]
    assert one.tell(data(1, end=True)) == []
    assert one.tell(window(1, 1000)) == []
    assert [name for name, *_ in one.heard()] == ["Data", "Headers"]


def test_a_reset_drops_a_waiting_end(talk):
    one = talk(begun=False)
    one.tell(begin(window=0))
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"answer")
    one.end(1)
    assert one.tell(reset(1)) == [("gone", 1)]
    assert one.connection._blocked == {}


def test_settings_change_the_windows_of_open_streams(talk):
    one = talk()
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"x" * 1000)  # 1,005 bytes of 65,535
    one.heard()
    assert one.tell(settings(window=500)) == []
    assert one.streams[1].outbound == 500 - 1005, "negative"
    one.send(1, b"y" * 95)
    assert one.heard() == [("Settings", 0, "ACK")]
    assert one.tell(window(1, 505)) == []
    assert one.heard() == [], "exactly nothing"
    assert one.tell(window(1, 60)) == []
    assert one.tell(settings(window=540)) == [("drained", 1)]
    heard = [content for name, _, content in one.heard() if name == "Data"]
    assert [len(content) for content in heard] == [60, 40]
    assert one.tell(request(3)) == [("opened", 3)]
    assert one.streams[3].outbound == 540


def test_frames_are_as_large_as_the_peer_allows(talk):
    one = talk(begun=False)
    one.tell(begin(frame=20_000, window=MIB))
    one.tell(request(1), message(1, b"a"))
    one.heard()
    one.send(1, b"x" * 19_995)
    one.send(1, b"x" * 19_996)
    assert [len(content) for name, _, content in one.heard() if name == "Data"] == [20_000, 20_000, 1]


def test_an_answer_larger_than_a_frame_is_split(talk):
    one = talk()
    one.tell(request(1), message(1, b"a"))
    one.send(1, b"x" * 16_379)
    one.send(1, b"x" * 16_380)
    assert [len(content) for name, _, content in one.heard() if name == "Data"] == [16_384, 16_384, 1]


def test_streams_take_turns_at_the_connections_window(talk):
    one = talk(begun=False)
    one.tell(begin(window=MIB))
    one.tell(request(1), message(1, b"a"), request(3), message(3, b"a"))
    one.send(1, b"x" * 65_530)
    one.send(1, b"y" * 995)
    one.send(3, b"z" * 995)
    one.heard()
    assert one.tell(window(0, 1500)) == [("drained", 1)]
    assert [(id, len(content)) for name, id, content in one.heard() if name == "Data"] == [(1, 1000), (3, 500)]
    assert one.tell(window(0, 500)) == [("drained", 3)]


# --- the other frames


def test_a_ping_is_answered(talk):
    one = talk()
    one.tell(frame(PING, 0, 0, b"12345678"), frame(PING, ACK, 0, b"87654321"))
    assert one.heard() == [("Ping", 0, (b"12345678", True))]


def test_frames_without_a_meaning_here_are_skipped(talk):
    one = talk()
    goaway = frame(GOAWAY, 0, 0, b"\0" * 8 + b"bye")
    assert one.tell(frame(PRIORITY, 0, 1, b"\0" * 5), frame(0x77, 0xFF, 9, b"?"), goaway, settings(table=0)) == []
    assert one.heard() == [("Settings", 0, "ACK")]
    assert one.tell(request(1)) == [("opened", 1)]


def test_an_unknown_setting_is_skipped(talk):
    one = talk()
    one.tell(frame(4, 0, 0, b"\x12\x34\xff\xff\xff\xff"))
    assert one.heard() == [("Settings", 0, "ACK")]


def test_the_first_headers_of_a_connection_do_not_use_the_table(talk):
    one = talk()
    one.tell(request(1, end=True), request(3, end=True))
    one.end(1)
    one.end(3)
    blocks = [one.data for _, _, one in one.heard()]
    assert [block[:1] for block in blocks] == [b"\x20", b"\x88"]
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    assert [dict(decoder.decode(block))["grpc-status"] for block in blocks] == ["0", "0"]


# --- the drain


def test_a_drain_is_announced_before_streams_are_refused(talk):
    one = talk()
    one.tell(request(1), message(1, b"a"))
    one.connection.drain()
    goaway, ping = one.heard()
    assert goaway == ("GoAway", 0, ((1 << 31) - 1, 0))
    assert not one.connection.drained
    assert one.tell(request(3)) == [("opened", 3)], "it had not seen it"
    one.tell(frame(PING, ACK, 0, ping[2][0]))
    assert one.heard() == [("GoAway", 0, (3, 0))]
    assert one.tell(request(5), message(5, b"b"), window(5, 9), reset(5)) == []
    one.end(1)
    assert not one.connection.drained
    assert one.tell(message(3, b"c", end=True)) == [("message", 3, b"c")]
    one.send(3, b"d")
    one.end(3)
    assert one.connection.drained
    assert [(name, id) for name, id, _ in one.heard()] == [
        ("Headers", 1),
        ("RstStream", 1),
        ("Headers", 3),
        ("Data", 3),
        ("Headers", 3),
    ]


def test_a_drain_without_streams_closes_the_connection(talk):
    one = talk()
    assert not one.connection.drained
    one.connection.drain()
    assert not one.connection.drained
    one.tell(frame(PING, ACK, 0, one.heard()[1][2][0]))
    assert one.connection.drained
