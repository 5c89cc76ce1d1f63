"""The server's half of HTTP/2 with gRPC messages, without input or output.

`receive` takes the bytes that arrived and returns events. `send` and `end` take answers. `output` returns the bytes to
write. The one peer is Envoy on a unix socket: no TLS, no priorities, no push, no compression. A peer that breaks the
protocol loses its connection. A limit on a call ends the call alone.

States of a stream, and the effect of the peer's frames in them (`_RULES`; a frame without a rule is a fault):

                 HEADERS        DATA           with END_STREAM   RST_STREAM     WINDOW_UPDATE
    idle         ► open         fault          ► half closed     fault          fault
    open         fault          taken          ► half closed     ► closed       taken
    half closed  fault          fault                            ► closed       taken
    left         passed over    passed over    ► closed          ► closed       passed over
    closed       fault          fault                            passed over    passed over

The peer ends its half with END_STREAM, the server ends its own with trailers: then a half closed stream is closed. An
open stream becomes left: RST_STREAM behind the trailers stops a peer that still sends. Envoy resets every stream of
ext_proc, even after the server's end; its reset removes a left stream. Every header block is decoded, even a refused
stream's: HPACK's table depends on all of them.

A stream is busy from the event with its message until `take` finds no other message. Messages for a busy stream wait in
its queue, so a handler gets one message at a time and in order. The peer's end (the event `ended`, or `stream.ended`
after `take`) is reported when the queue is empty, so no call ends before every message was answered. A reset of an
answered stream returns all queued messages before the event `gone`: a client leaves once it has read the end of an
answer, and a queued message may have the usage. The driver drops them if the handler still works on an earlier message.

Windows, inbound. Data is held from its arrival until its stream is at rest: not busy, and without a queue. The peer is
then granted as many bytes again. So a slow handler slows the peer, an empty queue lets it send, and a message larger
than the window can arrive. An invariant holds for each stream, and for the connection over all streams: bytes the peer
may send + bytes held + bytes to be granted = the window.

Windows, outbound. Data beyond the peer's windows waits in `stream.unsent`, with trailers behind it. WINDOW_UPDATE or
SETTINGS release it (the event `drained`). SETTINGS may also make the window of a stream negative.

Frames that cost this side more than the peer are counted by the second, see `TransportLimits`. A reset counts only for
an unanswered stream: Envoy often resets answered ones, while an attack resets streams at once.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from extproc.wire.transport import frames
from extproc.wire.transport.frames import HEAD, MESSAGE_HEAD, PREFIX, ErrorCode, Fault
from extproc.wire.transport.headers import BEGIN, NO_TABLE, CallHead, HeaderReader, trailers
from extproc.wire.transport.limits import TransportLimits
from extproc.wire.transport.messages import INTERNAL, OK, RESOURCE_EXHAUSTED, Assembly, RefusedMessage

_TAKE, _PASS = True, False
_RULES: Mapping[str, Mapping[int, bool]] = {
    "idle": {frames.HEADERS: _TAKE},
    "open": dict.fromkeys((frames.DATA, frames.RST_STREAM, frames.WINDOW_UPDATE), _TAKE),
    "half closed": dict.fromkeys((frames.RST_STREAM, frames.WINDOW_UPDATE), _TAKE),
    "left": dict.fromkeys((frames.HEADERS, frames.DATA, frames.RST_STREAM, frames.WINDOW_UPDATE), _PASS),
    "closed": dict.fromkeys((frames.RST_STREAM, frames.WINDOW_UPDATE), _PASS),
}
_SIZES = {frames.PRIORITY: 5, frames.RST_STREAM: 4, frames.PING: 8, frames.WINDOW_UPDATE: 4}
_OF_STREAMS = (frames.HEADERS, frames.PRIORITY, frames.RST_STREAM, frames.CONTINUATION, frames.DATA)
_OF_CONNECTIONS = (frames.SETTINGS, frames.PING, frames.GOAWAY)
_DRAINING = b"draining"
"""Payload of the PING behind the first GOAWAY. Its acknowledgement shows that the peer has seen the GOAWAY."""


@dataclass(slots=True, eq=False)
class Stream:
    """One call. `call`, `task` and `closing` belong to the connection's driver, which only reads the other fields."""

    id: int
    path: str
    metadata: Mapping[str, str]
    inbound: int  # bytes the peer may send
    outbound: int  # bytes this side may send
    ended: bool  # the peer ended its half
    begun: bool = False  # True: an answer was begun
    over: bool = False  # True: the stream is closed for sending
    busy: bool = False
    held: int = 0  # bytes that arrived and are not granted again yet
    assembly: Assembly | None = None
    queue: deque[bytes | memoryview] | None = None
    unsent: deque[memoryview] | None = None
    last: bytes | None = None  # trailers that wait behind `unsent`
    call: Any = None
    task: Any = None
    closing: bool = False


class StreamEvent(NamedTuple):
    """An event of a stream. `opened`; `message`: one arrived while the stream was at rest; `ended`: the peer ended its
    half and every message was taken; `drained`: all unsent data was sent; `gone`: the stream was reset, or ended for a
    limit.
    """

    kind: Literal["opened", "message", "ended", "drained", "gone"]
    stream: Stream
    data: bytes | memoryview = b""


class Connection:
    """One connection. A fault of the peer raises no exception: it sets `fault`. `clock` is in seconds."""

    def __init__(
        self,
        limits: TransportLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        admits: Callable[[Stream, int], bool] = lambda _stream, _size: True,
    ) -> None:
        self._admits = admits  # decides about large messages, see `Assembly`
        self.limits = limits = limits or TransportLimits()
        self.fault: Fault | None = None
        self.streams: dict[int, Stream] = {}  # open and half closed streams, by id
        self._left: dict[int, None] = {}  # left streams, oldest first; the oldest are forgotten
        self._newest = 0  # highest id of a stream that the peer began
        self._final = frames.ANY_STREAM  # streams with a higher id are passed over
        self._reader = HeaderReader(limits)
        self._greeted = self._configured = False  # True: the preface arrived; SETTINGS arrived
        self._rest = b""  # bytes of an incomplete frame
        self._block: tuple[int, bool, bytearray] | None = None  # incomplete headers: stream, END_STREAM, block
        self._continued = 0  # count of CONTINUATION frames
        self._events: list[StreamEvent] = []
        self._counts: Counter[str] = Counter()
        self._clock, self._since = clock, clock()
        self._inbound, self._held = limits.connection_window, 0
        self._outbound = self._first_outbound = frames.WINDOW  # windows of the connection, and of a new stream
        self._frame = frames.LEAST_FRAME  # the peer's limit of a frame
        self._blocked: dict[int, Stream] = {}
        self._table = NO_TABLE  # size update in front of the first header block; empty later
        self._handlers = {
            frames.HEADERS: self._on_headers,
            frames.CONTINUATION: self._on_continuation,
            frames.RST_STREAM: self._on_rst_stream,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
        }
        ours = {
            frames.MAX_CONCURRENT_STREAMS: limits.streams,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_FRAME_SIZE: limits.frame,
            frames.MAX_HEADER_LIST_SIZE: limits.header_list,
        }
        self._out: list[bytes | memoryview] = [
            frames.frame(frames.SETTINGS, 0, 0, b"".join(frames.SETTING.pack(*item) for item in ours.items())),
            frames.number_frame(frames.WINDOW_UPDATE, 0, limits.connection_window - frames.WINDOW),
        ]

    # --- in

    def receive(self, data: bytes) -> Sequence[StreamEvent]:
        """Events of the arrived bytes, in order. Empty after a fault."""
        if self.fault is None:
            data = self._rest + data if self._rest else data
            try:
                self._rest = data[self._read(data) :]
            except Fault as fault:
                self.fault = fault
                self._out.append(frames.goaway(self._newest, fault.code, fault.reason))
        events, self._events = self._events, []  # a reference kept here would keep a large message in memory
        return events

    def take(self, stream: Stream) -> bytes | memoryview | None:
        """The next message of a busy stream. None when no message waits: the stream is then at rest."""
        if stream.queue:
            return stream.queue.popleft()
        stream.busy = False
        self._grant(stream)
        return None

    def lost(self) -> Sequence[StreamEvent]:
        """Events of streams whose connection is lost."""
        for stream in (streams := list(self.streams.values())):
            self._drop(stream)
        return [StreamEvent("gone", stream) for stream in streams]

    def _read(self, data: bytes) -> int:
        """Handle every complete frame. Returns the offset of the remaining bytes."""
        at, size, unpack = 0, len(data), HEAD.unpack_from
        if not self._greeted:
            at = len(frames.PREFACE)
            if data[:at] != frames.PREFACE[:size]:
                raise Fault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
            if size < at:
                return 0
            self._greeted = True
        while size - at >= HEAD.size:
            high, low, kind, flags, id = unpack(data, at)
            length = high << 16 | low
            if length > self.limits.frame:
                raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = at + HEAD.size
            if start + length > size:
                break
            at = start + length
            id &= frames.ANY_STREAM
            if kind == frames.DATA and id and self._configured and self._block is None:
                self._on_data(flags, id, data, start, at)
            else:
                self._dispatch(kind, flags, id, data[start:at])
        return at

    def _dispatch(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if not self._configured and (kind != frames.SETTINGS or flags & frames.ACK):
            raise Fault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if (self._block is not None) != (kind == frames.CONTINUATION):
            raise Fault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted, or none goes on")
        if kind == frames.PUSH_PROMISE or (kind in _OF_CONNECTIONS if id else kind in _OF_STREAMS):
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"frame {kind} on stream {id}")
        if len(payload) != _SIZES.get(kind, len(payload)):
            raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"frame {kind} of {len(payload)} bytes")
        if (handler := self._handlers.get(kind)) is None:
            self._count("idle_frames")
        else:
            handler(flags, id, payload)

    def _permits(self, kind: int, id: int) -> bool:
        """True when a frame is handled, False when it is passed over. Raises Fault when the stream's state allows
        neither.
        """
        if (stream := self.streams.get(id)) is not None:
            state = "half closed" if stream.ended else "open"
        elif id in self._left or id > self._final:
            state = "left"
        else:
            state = "idle" if id > self._newest else "closed"
        if (rule := _RULES[state].get(kind)) is None:
            code = ErrorCode.STREAM_CLOSED if "closed" in state else ErrorCode.PROTOCOL_ERROR
            raise Fault(code, f"frame {kind} on a stream that is {state}")
        return rule

    def _count(self, what: str) -> None:
        """Count an action of the peer that has a limit per second. Raises Fault above it."""
        self._counts[what] += 1
        if self._counts[what] > getattr(self.limits, what):
            if (now := self._clock()) - self._since < 1.0:
                raise Fault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")
            self._since = now
            self._counts = Counter((what,))

    # --- DATA

    def _on_data(self, flags: int, id: int, data: bytes, start: int, end: int) -> None:
        size = end - start
        self._inbound -= size
        stream = self.streams.get(id)
        if stream is None or stream.ended:
            self._permits(frames.DATA, id)
            if flags & frames.END_STREAM:
                self._left.pop(id, None)
            self._grant_connection()
            return
        stream.inbound -= size
        if stream.inbound < 0 or self._inbound < 0:
            raise Fault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window")
        stream.held += size
        self._held += size
        if flags & frames.PADDED:
            data = frames.unpadded(flags, data[start:end])
            start, end = 0, len(data)
        if start == end and not flags & frames.END_STREAM:
            self._count("empty_data")
        try:
            if stream.last is None:
                self._gather(stream, data, start, end)
            if flags & frames.END_STREAM:
                self._half_close(stream)
        except RefusedMessage as refused:
            self.end(stream, refused.status, refused.text)
            self._events.append(StreamEvent("gone", stream))
        if not stream.busy:
            self._grant(stream)

    def _gather(self, stream: Stream, data: bytes, start: int, end: int) -> None:
        limits = self.limits
        if stream.assembly is None:
            if end - start >= PREFIX.size:  # usually one frame is one complete message
                compressed, size = PREFIX.unpack_from(data, start)
                if size == end - start - PREFIX.size and not compressed and size <= limits.message:
                    self._arrived(stream, data[start + PREFIX.size : end])
                    return
            encoding = stream.metadata.get("grpc-encoding", "")
            stream.assembly = Assembly(limits.message, encoding, partial(self._admits, stream))
        for message in stream.assembly.feed(data[start:end]):
            self._arrived(stream, message)
        if stream.assembly.empty:
            stream.assembly = None

    def _arrived(self, stream: Stream, message: bytes | memoryview) -> None:
        if not stream.busy:
            stream.busy = True
            self._events.append(StreamEvent("message", stream, message))
            return
        if stream.queue is None:
            stream.queue = deque()
        if len(stream.queue) >= self.limits.queued_messages:
            raise RefusedMessage(RESOURCE_EXHAUSTED, "too many messages wait")
        stream.queue.append(message)

    def _half_close(self, stream: Stream) -> None:
        """End the peer's half. Raises RefusedMessage in the middle of a message."""
        stream.ended = True
        if stream.assembly is not None:
            raise RefusedMessage(INTERNAL, "the last message is not whole")
        if not stream.busy and stream.last is None:
            self._events.append(StreamEvent("ended", stream))

    # --- HEADERS

    def _on_headers(self, flags: int, id: int, payload: bytes) -> None:
        payload = frames.unpadded(flags, payload)
        if flags & frames.HAS_PRIORITY:
            payload = payload[5:]
        if id % 2 == 0:
            raise Fault(ErrorCode.PROTOCOL_ERROR, "clients begin odd streams")
        self._block, self._continued = (id, bool(flags & frames.END_STREAM), bytearray()), -1
        self._on_continuation(flags, id, payload)

    def _on_continuation(self, flags: int, id: int, payload: bytes) -> None:
        assert self._block is not None
        first, ended, block = self._block
        if id != first:
            raise Fault(ErrorCode.PROTOCOL_ERROR, "a header block goes on in another stream")
        block += payload
        self._continued += 1
        if self._continued > self.limits.continuations or len(block) > self.limits.header_block:
            raise Fault(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too long")
        if flags & frames.END_HEADERS:
            self._block = None
            request = self._reader.read(bytes(block))
            if self._permits(frames.HEADERS, id):
                self._open(id, request, ended=ended)
                return
            self._count("resets")
            if ended:
                self._left.pop(id, None)

    def _open(self, id: int, request: CallHead, *, ended: bool) -> None:
        self._newest = id
        if request.problem:
            raise Fault(ErrorCode.PROTOCOL_ERROR, request.problem)
        if len(self.streams) >= self.limits.streams:
            self._count("resets")
            self._leave(id, ErrorCode.REFUSED_STREAM)
            return
        window = self.limits.stream_window
        stream = Stream(id, request.path, request.metadata, window, self._first_outbound, ended)
        self.streams[id] = stream
        self._events.append(StreamEvent("opened", stream))
        if ended:
            self._events.append(StreamEvent("ended", stream))

    # --- the other frames

    def _on_rst_stream(self, _flags: int, id: int, _payload: bytes) -> None:
        if not self._permits(frames.RST_STREAM, id):
            self._left.pop(id, None)
            return
        stream = self.streams[id]
        waiting = stream.queue or ()
        if not stream.begun:
            self._count("resets")
            waiting = ()
        self._drop(stream)
        self._events += [StreamEvent("message", stream, message) for message in waiting]
        self._events.append(StreamEvent("gone", stream))

    def _on_window_update(self, _flags: int, id: int, payload: bytes) -> None:
        increment = int.from_bytes(payload) & frames.MOST_WINDOW
        if not increment:
            raise Fault(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
        if id == 0:
            self._outbound = _enlarged(self._outbound, increment)
            self._pump_blocked()
        elif self._permits(frames.WINDOW_UPDATE, id):
            stream = self.streams[id]
            stream.outbound = _enlarged(stream.outbound, increment)
            if stream.unsent:
                self._pump(stream)

    def _on_settings(self, flags: int, _id: int, payload: bytes) -> None:
        self._count("settings")
        if len(payload) % frames.SETTING.size or (flags & frames.ACK and payload):
            raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        if flags & frames.ACK:
            return
        self._configured = True
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        for name, value in frames.SETTING.iter_unpack(payload):
            least, most = frames.ALLOWED.get(name, (0, value))
            if not least <= value <= most:
                code = ErrorCode.FLOW_CONTROL_ERROR if name == frames.INITIAL_WINDOW_SIZE else ErrorCode.PROTOCOL_ERROR
                raise Fault(code, f"setting {name} of {value}")
            if name == frames.MAX_FRAME_SIZE:
                self._frame = value
            elif name == frames.INITIAL_WINDOW_SIZE:
                change, self._first_outbound = value - self._first_outbound, value
                for stream in self.streams.values():
                    stream.outbound = _enlarged(stream.outbound, change)
                self._pump_blocked()

    def _on_ping(self, flags: int, _id: int, payload: bytes) -> None:
        self._count("pings")
        if not flags & frames.ACK:
            self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAINING and self._final == frames.ANY_STREAM:
            self._final = self._newest
            self._out.append(frames.goaway(self._final, ErrorCode.NO_ERROR))

    # --- windows, inbound

    def _grant(self, stream: Stream) -> None:
        """Grant the peer of a stream at rest the bytes it used, in few large steps."""
        self._held -= stream.held
        stream.held = 0
        window = self.limits.stream_window
        if stream.inbound <= window // 2 and not stream.ended and not stream.over:
            self._out.append(frames.number_frame(frames.WINDOW_UPDATE, stream.id, window - stream.inbound))
            stream.inbound = window
        self._grant_connection()

    def _grant_connection(self) -> None:
        window = self.limits.connection_window
        grant = window - self._inbound - self._held
        if grant >= window // 2:
            self._out.append(frames.number_frame(frames.WINDOW_UPDATE, 0, grant))
            self._inbound += grant

    # --- out

    def output(self) -> bytes:
        """Bytes to write now; each call returns new ones."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def send(self, stream: Stream, message: bytes) -> None:
        """Send one answer, now or when the peer's windows allow."""
        if stream.over:
            return
        if not stream.begun:
            stream.begun = True
            self._head(stream, frames.END_HEADERS, BEGIN)
        size = len(message) + PREFIX.size
        if size <= self._outbound and size <= stream.outbound and size <= self._frame:  # then `unsent` is empty
            self._outbound -= size
            stream.outbound -= size
            self._out.append(MESSAGE_HEAD.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, stream.id, 0, len(message)))
            self._out.append(message)
            return
        if stream.unsent is None:
            stream.unsent = deque()
        first = self._frame - PREFIX.size  # saves a copy of a large message for its prefix
        stream.unsent.append(memoryview(PREFIX.pack(0, len(message)) + message[:first]))
        if len(message) > first:
            stream.unsent.append(memoryview(message)[first:])
        self._pump(stream)

    def end(self, stream: Stream, status: int = OK, text: str = "") -> None:
        """End the call. Status 0 is sent behind all answers, another status at once."""
        if stream.over or stream.last is not None:
            return
        stream.last = trailers(status, text) if stream.begun else BEGIN + trailers(status, text)
        if status != OK or not stream.unsent:
            self._finish(stream)
        else:  # later frames of the peer are passed over
            stream.busy, stream.queue, stream.assembly = False, None, None
            self._grant(stream)

    def drain(self) -> None:
        """Announce that no more streams are accepted. The peer may begin streams until it has seen the announcement."""
        self._out.append(frames.goaway(frames.ANY_STREAM, ErrorCode.NO_ERROR))
        self._out.append(frames.frame(frames.PING, 0, 0, _DRAINING))

    @property
    def announced(self) -> bool:
        """True when the peer has seen that no more streams are accepted."""
        return self._final != frames.ANY_STREAM

    @property
    def drained(self) -> bool:
        """True when the peer has seen the announcement, and no stream is left."""
        return self.announced and not self.streams

    def _head(self, stream: Stream, flags: int, block: bytes) -> None:
        self._out.append(frames.frame(frames.HEADERS, flags, stream.id, self._table + block))
        self._table = b""

    def _pump_blocked(self) -> None:
        for stream in list(self._blocked.values()):
            if self._outbound <= 0:
                break
            self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Send as much of `unsent` as the peer's windows allow."""
        unsent = stream.unsent
        while unsent:
            part = unsent[0]
            size = min(len(part), self._frame, self._outbound, stream.outbound)
            if size <= 0:
                self._blocked[stream.id] = stream
                return
            self._outbound -= size
            stream.outbound -= size
            self._out.append(HEAD.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, stream.id))
            self._out.append(part[:size])
            if size < len(part):
                unsent[0] = part[size:]
            else:
                unsent.popleft()
        if self._blocked.pop(stream.id, None) is None:
            return
        if stream.last is not None:
            self._finish(stream)
        else:
            self._events.append(StreamEvent("drained", stream))

    def _finish(self, stream: Stream) -> None:
        assert stream.last is not None
        self._head(stream, frames.END_HEADERS | frames.END_STREAM, stream.last)
        if not stream.ended:
            self._leave(stream.id, ErrorCode.NO_ERROR)
        self._drop(stream)

    def _leave(self, id: int, code: ErrorCode) -> None:
        self._out.append(frames.number_frame(frames.RST_STREAM, id, code))
        self._left[id] = None
        if len(self._left) > self.limits.streams:
            del self._left[next(iter(self._left))]

    def _drop(self, stream: Stream) -> None:
        del self.streams[stream.id]
        self._blocked.pop(stream.id, None)
        stream.over = True
        stream.queue = stream.unsent = stream.assembly = None
        self._held -= stream.held
        stream.held = 0
        self._grant_connection()


def _enlarged(window: int, change: int) -> int:
    """An outbound window after `change`. Raises Fault above HTTP/2's maximum."""
    if window + change > frames.MOST_WINDOW:
        raise Fault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
    return window + change
