"""Each limit, reached: one less passes, one more ends the call, the stream or the connection with its code.

A test is named after its limit.
"""

from dataclasses import fields

import pytest
from hpack import Decoder, Encoder

from extproc.wire.transport import TransportLimits
from tests.transport.peers import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PRIORITY,
    REQUEST,
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
)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def status_of(one):
    [last] = [found for name, _, found in one.heard() if name == "Headers"]
    return dict(Decoder().decode(last.data))["grpc-status"]


def test_message():
    one = Talk(TransportLimits(message=100))
    one.tell(request(1), request(3))
    assert one.tell(message(1, b"x" * 100)) == [("message", 1, b"x" * 100)]
    assert one.tell(message(3, b"x" * 101)) == [("gone", 3)]
    assert status_of(one) == "8"
    assert one.code is None


def test_queued_messages():
    one = Talk(TransportLimits(queued_messages=3))
    one.tell(request(1), message(1, b"0"), *(message(1, b"x") for _ in range(3)))
    assert one.take(1) == b"x"
    assert one.tell(message(1, b"x")) == []
    assert one.tell(message(1, b"x")) == [("gone", 1)]
    assert status_of(one) == "8"
    assert one.code is None


def test_streams():
    one = Talk(TransportLimits(streams=2))
    assert one.tell(request(1), request(3), request(5), request(7)) == [("opened", 1), ("opened", 3)]
    assert one.heard() == [("RstStream", 5, 7), ("RstStream", 7, 7)]
    assert one.tell(message(5, b"sent before it knew")) == []
    one.end(1)
    assert one.tell(request(9)) == [("opened", 9)]
    assert one.code is None


def test_refused_streams_are_decoded_too():
    one, encoder = Talk(TransportLimits(streams=1)), Encoder()
    opened = []
    for id in range(1, 12, 2):
        headers = [*REQUEST, ("x-id", str(id))]
        opened += one.tell(frame(HEADERS, END_HEADERS, id, encoder.encode(headers)))
        if id == 9:
            one.tell(reset(1))
    assert opened == [("opened", 1), ("opened", 11)]
    assert one.streams[11].metadata["x-id"] == "11"


def test_closed_streams_are_remembered_up_to_the_limit():
    one = Talk(TransportLimits(streams=3))
    for id in range(1, 12, 2):
        one.tell(request(id))
        one.end(id)
    assert list(one.connection._left) == [7, 9, 11]
    assert one.tell(data(7)) == []


BEGINS = data(1, grpc(b"x" * 200_000)[:5])
"""The start of a message whose end has not arrived."""


def test_stream_window():
    one = Talk(TransportLimits(stream_window=100_000))
    one.tell(request(1), message(1, b"busy"), BEGINS)
    one.tell(data(1, b"x" * 16_384) * 6, data(1, b"x" * (100_000 - 9 - 5 - 6 * 16_384)))
    assert one.code is None
    one.tell(data(1, b"x"))
    assert one.code == "FLOW_CONTROL_ERROR"


def test_connection_window():
    one = Talk(TransportLimits(stream_window=50_000, connection_window=100_000))
    for id in (1, 3, 5):
        one.tell(request(id), message(id, b"busy"), data(id, grpc(b"x" * 200_000)[:5]))
    for id in (1, 3):
        one.tell(data(id, b"x" * 16_384) * 3)
    one.tell(data(5, b"x" * (100_000 - 3 * 14 - 6 * 16_384)))
    assert one.code is None
    one.tell(data(5, b"x"))
    assert one.code == "FLOW_CONTROL_ERROR"


def test_frame():
    one = Talk()
    one.tell(request(1), data(1, b"x" * 16_384))
    assert one.code is None
    one.tell(frame(DATA, 0, 1, b"x" * 16_385)[:9])
    assert one.code == "FRAME_SIZE_ERROR", "by its head"


def continued(limits, pieces):
    one = Talk(limits)
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    flags = [0] * (len(pieces) - 1) + [END_HEADERS]
    return one, one.tell(*(frame(kind, flag, 1, piece) for kind, flag, piece in zip(kinds, flags, pieces, strict=True)))


@pytest.mark.parametrize(("spare", "code"), [(0, None), (-1, "ENHANCE_YOUR_CALM")])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_header_block(frames, spare, code):
    whole = block([*REQUEST, ("x-fill", "a" * 10_000)])
    size = -(-len(whole) // frames)
    limits = TransportLimits(header_block=len(whole) + spare)
    one, events = continued(limits, [whole[at : at + size] for at in range(0, len(whole), size)])
    assert one.code == code
    assert events == ([("opened", 1)] if code is None else [])


@pytest.mark.parametrize(("count", "code"), [(4, None), (5, "ENHANCE_YOUR_CALM")])
def test_continuations(count, code):
    one, _ = continued(TransportLimits(continuations=4), [block(), *[b""] * count])
    assert one.code == code


@pytest.mark.parametrize(("spare", "code"), [(0, None), (-1, "ENHANCE_YOUR_CALM")])
def test_header_list(spare, code):
    size = sum(len(name) + len(value) + 32 for name, value in REQUEST)
    one = Talk(TransportLimits(header_list=size + spare))
    one.tell(request(1))
    assert one.code == code


def flood(limits, frames, count, *, second=None):
    """Send so many frames within a second, then `second` of them later."""
    clock = Clock()
    one = Talk(limits, clock=clock)
    for index in range(count):
        one.tell(frames(index))
    if second is not None:
        clock.now += 1.0
        for index in range(count, count + second):
            one.tell(frames(index))
    return one.code


def begun_and_reset(index):
    return request(2 * index + 1) + reset(2 * index + 1)


FLOODS = {
    "resets": begun_and_reset,
    "pings": lambda _: frame(PING, 0, 0, b"12345678"),
    "empty_data": lambda index: (request(1) if index == 0 else b"") + data(1),
    "idle_frames": lambda _: frame(PRIORITY, 0, 1, b"\0" * 5),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(name):
    limits = TransportLimits(**{name: 50})
    assert flood(limits, FLOODS[name], 50) is None
    assert flood(limits, FLOODS[name], 51) == "ENHANCE_YOUR_CALM"
    assert flood(limits, FLOODS[name], 50, second=50) is None, "a second later they count anew"
    assert flood(limits, FLOODS[name], 50, second=51) == "ENHANCE_YOUR_CALM"


def test_settings():
    limits = TransportLimits(settings=10)
    assert flood(limits, lambda _: settings(window=1), 9) is None, "the first was the greeting"
    assert flood(limits, lambda _: settings(window=1), 10) == "ENHANCE_YOUR_CALM"
    assert flood(limits, lambda _: frame(4, 1, 0), 10) == "ENHANCE_YOUR_CALM", "acknowledgements too"


def test_resets_of_answered_streams_do_not_count():
    one = Talk(TransportLimits(resets=3))
    for id in range(1, 401, 4):
        one.tell(request(id), message(id, b"a"))
        one.send(id, b"b")  # in progress
        one.tell(reset(id))
        one.tell(request(id + 2), message(id + 2, b"a"))
        one.send(id + 2, b"b")
        one.end(id + 2)  # ended; Envoy resets every ended stream
        one.tell(reset(id + 2))
    assert one.code is None


def test_refused_streams_count_as_resets():
    one = Talk(TransportLimits(resets=3, streams=1))
    for id in range(1, 8, 2):
        one.tell(request(id))
    assert one.code is None
    one.tell(request(9))
    assert one.code == "ENHANCE_YOUR_CALM"


def test_skipped_headers_count_as_resets():
    one = Talk(TransportLimits(resets=3))
    one.tell(request(1))
    one.end(1)
    for _ in range(3):
        one.tell(request(1))
    assert one.code is None
    one.tell(request(1))
    assert one.code == "ENHANCE_YOUR_CALM"


def test_the_first_frames_state_the_limits_the_peer_needs():
    limits = TransportLimits(streams=7, stream_window=70_000, connection_window=90_000, frame=20_000, header_list=999)
    one = Talk(limits, begun=False)
    assert one.heard() == [
        ("Settings", 0, {3: 7, 4: 70_000, 5: 20_000, 6: 999}),
        ("WindowUpdate", 0, 90_000 - 65_535),
    ]
    one.tell(begin(), request(1), data(1, b"x" * 20_000))
    assert one.code is None


def test_every_limit_has_a_test():
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")} | set(FLOODS)
    in_the_shell = {"unread", "turn", "connections"}  # test_native.py
    assert {field.name for field in fields(TransportLimits)} <= here | in_the_shell
