"""Frames in any order, whole and byte by byte: nothing raises, and the invariants of the windows hold throughout."""

import struct

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from extproc.wire.transport import TransportLimits
from tests.transport import peers
from tests.transport.peers import Talk, begin, block, data, frame, grpc, message, request, reset, window

LIMITS = TransportLimits(
    message=300,
    queued_messages=3,
    streams=4,
    stream_window=1_000,
    connection_window=70_000,
    header_block=400,
    continuations=2,
    resets=3,
    pings=3,
    settings=4,
    empty_data=3,
    idle_frames=3,
)
MOST = (1 << 31) - 1


class Peer:
    """The model to compare with: the window that the peer's own frames give the server."""

    def __init__(self):
        self.first = 65_535
        self.connection = 65_535
        self.streams = {}

    def told(self, sent):
        """Add the windows that frames open. After a frame that breaks the protocol the model no longer matters."""
        at = 0
        while len(sent) - at >= 9:
            high, low, kind, flags, id = struct.unpack_from(">BHBBL", sent, at)
            payload = sent[at + 9 : at + 9 + (high << 16 | low)]
            at += 9 + (high << 16 | low)
            id &= MOST
            if kind == peers.HEADERS:
                self.streams.setdefault(id, self.first)
            elif kind == peers.WINDOW_UPDATE and len(payload) == 4:
                increment = int.from_bytes(payload) & MOST
                if id == 0:
                    self.connection += increment
                elif id in self.streams:
                    self.streams[id] += increment
            elif kind == peers.SETTINGS and not flags & peers.ACK:
                for name, value in struct.iter_unpack(">HL", payload[: len(payload) // 6 * 6]):
                    if name == 4:
                        change, self.first = value - self.first, value
                        self.streams = {id: window + change for id, window in self.streams.items()}

    def heard(self, frames):
        for name, id, what in frames:
            if name == "Data":
                assert len(what) <= 16_384
                assert len(what) <= self.streams[id], "more than the stream's window"
                assert len(what) <= self.connection, "more than the connection's window"
                self.streams[id] -= len(what)
                self.connection -= len(what)


FRAMES = (
    lambda on, n, x: request(on),
    lambda on, n, x: request(on, end=bool(n % 2)),
    lambda on, n, x: request(on, ("x-a", x.hex()), end=bool(n % 2)),
    lambda on, n, x: message(on, x * n),
    lambda on, n, x: message(on, x, end=True),
    lambda on, n, x: data(on, grpc(x * n)[: n + 1]),
    lambda on, n, x: data(on, (grpc(x) + grpc(b"") + grpc(x))[n:], end=not n % 5),
    lambda on, n, x: data(on, x, end=bool(n % 2)),
    lambda on, n, x: data(on, b"\0" * (n * 90)),
    lambda on, n, x: frame(0, n, on, bytes([n]) + grpc(x) + b"\0" * n),
    lambda on, n, x: reset(on, n),
    lambda on, n, x: window(on, n),
    lambda on, n, x: window(0, n * 100),
    lambda on, n, x: window(on * (n % 2), MOST - n),
    lambda on, n, x: peers.settings(window=n * 50),
    lambda on, n, x: peers.settings(window=n * 50, frame=16_384 + n),
    lambda on, n, x: frame(4, n % 2, 0, x),
    lambda on, n, x: frame(6, n % 2, 0, x.ljust(8, b"\0")[:8]),
    lambda on, n, x: frame(1, n % 2, on, block()[:n]) + frame(9, 4, on, block()[n:]),
    lambda on, n, x: frame(1, n, on, x),
    lambda on, n, x: frame(9, n, on, x),
    lambda on, n, x: frame(2, 0, on, b"\0" * 5) + frame(7, 0, 0, b"\0" * 8),
    lambda on, n, x: frame(n, 0, on, x),
    lambda on, n, x: frame(n % 11, 255 & int.from_bytes(x[:1]), on, x[1:]),
    lambda on, n, x: x,
)
DRIVER = ("take", "send", "send", "end", "fail", "drain")
ACTIONS = st.tuples(
    st.integers(0, len(FRAMES) + 2 * len(DRIVER) - 1),
    st.sampled_from([1, 3, 5, 7, 9, 11, 2, 0]),
    st.integers(0, 20),
    st.binary(max_size=12),
)


def drive(one, what, id, number, blob):
    """The calls of a driver on a stream, in any order."""
    if what == "drain":
        if number == 20:
            one.connection.drain()
    elif (stream := one.streams.get(id)) is None:
        return
    elif what == "take" and stream.busy and not stream.unsent:
        one.take(id)
    elif what == "send" and stream.last is None:
        one.send(id, blob * number)
    elif what == "end" and not (stream.busy and stream.queue):
        one.end(id)
    elif what == "fail":
        one.end(id, 13, "internal error")


def converse(actions, *, bytewise):
    """Feed the frames and return every event. The invariants are checked at each step."""
    one, peer = Talk(LIMITS, bytewise=bytewise, begun=False), Peer()
    one.heard()
    found = [one.tell(begin()), one.heard()]
    for which, id, number, blob in actions:
        if which < len(FRAMES):
            sent = FRAMES[which](id, number, blob)
            if one.connection._rest:
                peer = None  # the bytes have lost their framing: they are read as other frames
            if peer is not None:
                peer.told(sent)
            found.append(one.tell(sent))
        else:
            drive(one, DRIVER[(which - len(FRAMES)) % len(DRIVER)], id, number, blob)
        heard = one.heard()
        if peer is not None:
            peer.heard(heard)
        if any(name == "GoAway" and what[0] for name, _, what in heard):
            peer = None  # it broke the protocol: the server reads its settings no longer
        found.append([(name, id, getattr(what, "data", what)) for name, id, what in heard])
        one.check()
        assert len(one.streams) <= 40
        assert len(one.connection.streams) <= LIMITS.streams
        assert sum(len(stream.queue or ()) for stream in one.connection.streams.values()) <= 12
    fault = one.connection.fault
    left = len(one.connection.streams)
    assert [event.kind for event in one.connection.lost()] == ["gone"] * left
    assert one.connection._held == 0
    return found, None if fault is None else fault.code


def holds(actions):
    assert converse(actions, bytewise=False) == converse(actions, bytewise=True)


@settings(max_examples=100)
@given(st.lists(ACTIONS, max_size=40))
@example([(0, 1, 0, b""), (3, 1, 20, b"a" * 12), (3, 1, 1, b"b"), (25, 1, 0, b""), (25, 1, 0, b"")])
def test_frames_in_any_order_break_no_invariant(actions):
    holds(actions)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(8))
@settings(max_examples=25_000, suppress_health_check=list(HealthCheck), database=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_frames_in_any_order_break_no_invariant_200_000_times(part, actions):
    holds(actions)


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_raise_nothing(garbage, begun):
    for bytewise in (False, True):
        one = Talk(LIMITS, bytewise=bytewise, begun=begun)
        one.tell(garbage)
        one.heard()
        one.check()
