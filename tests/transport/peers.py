"""The other end of a connection, in plain bytes. hyperframe makes and reads the frames, hpack the headers."""

from __future__ import annotations

import struct
from dataclasses import replace

from hpack import Encoder
from hyperframe.frame import Frame

from extproc.wire.transport.connection import Connection
from extproc.wire.transport.frames import PREFACE
from extproc.wire.transport.limits import TransportLimits

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
MANY = 5_000
PATH = "/test.Service/Method"
REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "extproc"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


def frame(kind, flags, id, payload=b""):
    return struct.pack(">BHBBL", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, id) + payload


def settings(**values):
    names = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "headers": 6}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", names[name], value) for name, value in values.items()))


def begin(**values):
    return PREFACE + settings(**values)


def block(headers=REQUEST, *, sensitive=True):
    """A header block of literals, which leaves the table unchanged."""
    return Encoder().encode([(name, value, sensitive) for name, value in headers])


def request(id, *extra, end=False, path=PATH):
    headers = [(name, path if name == ":path" else value) for name, value in REQUEST]
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), id, block([*headers, *extra]))


def grpc(message, compressed=0):
    return struct.pack(">BL", compressed, len(message)) + message


def data(id, payload=b"", *, end=False):
    return frame(DATA, END_STREAM if end else 0, id, payload)


def message(id, content, *, end=False):
    return data(id, grpc(content), end=end)


def reset(id, code=8):
    return frame(RST_STREAM, 0, id, struct.pack(">L", code))


def window(id, increment):
    return frame(WINDOW_UPDATE, 0, id, struct.pack(">L", increment))


def parsed(output):
    """Frames of the server as (name, stream, content)."""
    found = []
    view = memoryview(output)
    while view:
        one, length = Frame.parse_frame_header(view[:9])
        one.parse_body(view[9 : 9 + length])
        view = view[9 + length :]
        name = type(one).__name__.removesuffix("Frame")
        what = {
            "Data": lambda one: one.data,
            "Headers": lambda one: one,
            "RstStream": lambda one: one.error_code,
            "WindowUpdate": lambda one: one.window_increment,
            "GoAway": lambda one: (one.last_stream_id, one.error_code),
            "Ping": lambda one: (one.opaque_data, "ACK" in one.flags),
            "Settings": lambda one: "ACK" if "ACK" in one.flags else dict(one.settings),
        }[name](one)
        found.append((name, one.stream_id, what))
    return found


class Talk:
    """One connection in conversation: bytes in, events and frames out. With `bytewise` each byte arrives alone, or each
    997 bytes of long input. The window of a stream is 1 MiB, unless `limits` say otherwise.
    """

    def __init__(self, limits=None, *, bytewise=False, clock=lambda: 0.0, begun=True):
        limits = limits or TransportLimits()
        if limits.stream_window == TransportLimits().stream_window:
            limits = replace(limits, stream_window=1 << 20)
        self.connection = Connection(limits, clock)
        self.bytewise = bytewise
        self.streams = {}
        if begun:
            self.tell(begin())
            self.heard()

    def tell(self, *told):
        """Feed frames. Returns the events as (kind, stream) or (kind, stream, message)."""
        given = b"".join(told)
        events = []
        size = len(given) if not self.bytewise else 1 if len(given) < MANY else 997
        for at in range(0, len(given), size or 1):
            events += self.connection.receive(given[at : at + size])
        for event in events:
            self.streams[event.stream.id] = event.stream
        return [(event.kind, event.stream.id, *([event.data] * (event.kind == "message"))) for event in events]

    def heard(self):
        return parsed(self.connection.output())

    def take(self, id):
        return self.connection.take(self.streams[id])

    def send(self, id, answer):
        self.connection.send(self.streams[id], answer)

    def end(self, id, *status):
        self.connection.end(self.streams[id], *status)

    @property
    def code(self):
        """The name of the error code that ended the connection, as GOAWAY reports it."""
        fault = self.connection.fault
        if fault is None:
            return None
        [*_, (name, _, (_, code))] = [one for one in self.heard() if one[0] == "GoAway"]
        assert (name, code) == ("GoAway", fault.code)
        return fault.code.name

    def check(self):
        """Check the invariants of the windows."""
        connection = self.connection
        assert connection._held == sum(stream.held for stream in connection.streams.values())
        assert all(stream.held >= 0 and not stream.over for stream in connection.streams.values())
        if connection.fault is None:
            assert connection._inbound + connection._held <= connection.limits.connection_window
            assert connection._inbound + connection._held > connection.limits.connection_window // 2
            for stream in connection.streams.values():
                assert stream.inbound >= 0
                assert stream.inbound + stream.held <= connection.limits.stream_window
                if not stream.busy and not stream.ended:
                    assert stream.held == 0
                    assert stream.inbound > connection.limits.stream_window // 2
