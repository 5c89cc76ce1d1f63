import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.framing.aws_eventstream import CORRUPT, AWSEventStream, encode

EVENT = {":message-type": "event", ":event-type": "contentBlockDelta", ":content-type": "application/json"}
STREAM = [
    (EVENT, b'{"delta":{"text":"Hi"}}'),
    ({":message-type": "event", ":event-type": "messageStop"}, b"{}"),
    ({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow down"}'),
    ({":message-type": "error", ":error-code": "500", ":error-message": "sorry"}, b""),
]
WHOLE = b"".join(encode(headers, payload) for headers, payload in STREAM)
NAMES = ["contentBlockDelta", "messageStop", "exception:throttlingException", "error:500"]


def read(chunks, limit=1 << 20):
    framing = AWSEventStream(limit)
    return [event for chunk in chunks for event in framing.feed(chunk)] + list(framing.end())


def test_events_have_a_name_and_a_payload():
    assert [(event.name, event.data) for event in read([WHOLE])] == [
        (name, payload) for name, (_, payload) in zip(NAMES, STREAM, strict=True)
    ]


def test_a_stream_cut_anywhere_reads_the_same():
    whole = read([WHOLE])
    assert [at for at in range(len(WHOLE) + 1) if read([WHOLE[:at], WHOLE[at:]]) != whole] == []


def test_a_stream_in_single_bytes_reads_the_same():
    assert read([bytes((byte,)) for byte in WHOLE]) == read([WHOLE])


def test_the_encoding_is_that_of_the_specification():
    headers = b"\x05:name" + b"\x07" + struct.pack(">H", 5) + b"value"
    prelude = struct.pack(">II", 16 + len(headers) + 2, len(headers))
    prelude += struct.pack(">I", crc32(prelude))
    message = prelude + headers + b"{}"
    assert encode({":name": "value"}, b"{}") == message + struct.pack(">I", crc32(message))


@pytest.mark.parametrize("at", [0, 5, 9, 14, 40, 70])
def test_a_wrong_byte_ends_the_stream(at):
    first, second = (encode(EVENT, b'{"a":1}'), encode(EVENT, b'{"b":2}'))
    broken = bytearray(second)
    broken[at] ^= 1
    events = read([first, bytes(broken), first])
    assert [event.name for event in events[:2]] == ["contentBlockDelta", CORRUPT]
    assert all(event.data is None for event in events[2:])
    assert b"".join(event.raw for event in events) == first + bytes(broken) + first


def test_a_stream_that_ends_within_a_message_is_incomplete():
    events = read([WHOLE[:-3]])
    assert [event.name for event in events] == [*NAMES[:3], CORRUPT]


def test_a_message_over_the_limit_ends_the_stream():
    assert [event.name for event in read([encode(EVENT, b"x" * 2000)], limit=1000)] == [CORRUPT]


def test_headers_of_every_type_are_skipped():
    values = [
        *(b"\x00", b"\x01", b"\x02\x00", b"\x03\x00\x00", b"\x04" + bytes(4), b"\x05" + bytes(8)),
        *(b"\x06\x00\x02ab", b"\x08" + bytes(8), b"\x09" + bytes(16)),
    ]
    headers = b"".join(b"\x01x" + value for value in values) + b"\x0b:event-type\x07\x00\x02hi"
    prelude = struct.pack(">II", 16 + len(headers), len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers
    assert [event.name for event in read([message + struct.pack(">I", crc32(message))])] == ["hi"]


@pytest.mark.parametrize("headers", [b"\x05ab", b"\x01x\x0a", b"\x01x\x07\x00\x09a", b"\x01x\x04\x00", b"\x01\xff\x00"])
def test_unreadable_headers_end_the_stream(headers):
    prelude = struct.pack(">II", 16 + len(headers), len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers
    assert [event.name for event in read([message + struct.pack(">I", crc32(message))])] == [CORRUPT]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_are_lost_and_nothing_raises(data, at):
    assert b"".join(event.raw for event in read([data[:at], data[at:]])) == data
