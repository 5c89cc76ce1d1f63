"""One TCP connection: bytes to requests (h11), replies to bytes, and the faults that need the socket.

Answers are written by hand: next to parsing, h11's writer would be the largest cost of the upstream of a benchmark. So
h11 only reads, one h11.Connection per request.

An answer that needs no waiting is written at once, in one write, from inside `data_received`. Everything else is played
by a task of the connection; the task is cancelled as soon as the client leaves, wherever it sleeps.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11

from extproc.mock.answers import Refused
from extproc.mock.faults import Faults
from extproc.mock.provider import Reply, Seen

if TYPE_CHECKING:
    from extproc.mock.server import Server

HEADER_LIMIT = 64 * 2**10  # of a request's head
PIPELINED = 64 * 2**10  # bytes a client may send while its answer is being played
LINGER = 2.0  # seconds in which a client that sent too much may read why it was refused

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\n".encode() for status in range(200, 600)
}


class Connection(asyncio.Protocol):
    """One connection: request after request, each answered at once or by a task."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._mock = server.mock
        self._limit = server.body_limit
        self._http = _reader()
        self._transport: asyncio.Transport
        self._request: h11.Request | None = None
        self._keep_alive = True
        self._chunked = True
        self._body: list[bytes] = []
        self._received = 0
        self._playing: asyncio.Task[None] | None = None
        self._seen: Seen | None = None  # of the answer being played
        self._closing = False  # by us: what still arrives is thrown away
        self._writable = asyncio.Event()
        self._writable.set()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._server.connections.add(self)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._seen is not None and not self._closing:
            self._seen.aborted = True
        if self._playing is not None:
            self._playing.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._http.receive_data(data)
        if self._playing is None:
            self._advance()
        elif len(self._http.trailing_data[0]) > PIPELINED:
            self.abort()

    # Requests.

    def _advance(self) -> None:
        """Go on until more bytes are needed or an answer takes time."""
        while not self._closing and self._playing is None:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._reject(Refused(error.error_status_hint, f"Bad request: {error}"))
                return
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data):
                self._collect(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
            else:  # more data is needed
                return

    def _begin(self, request: h11.Request) -> None:
        self._request, self._body, self._received = request, [], 0
        self._chunked = request.http_version == b"1.1"
        self._keep_alive = self._chunked and not any(
            name == b"connection" and b"close" in value.lower() for name, value in request.headers
        )
        declared = next((value for name, value in request.headers if name == b"content-length"), b"0")
        if int(declared) > self._limit:
            self._reject(Refused(413, f"The body is larger than {self._limit} bytes.", code="body_too_large"))
        elif self._http.they_are_waiting_for_100_continue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _collect(self, data: bytes) -> None:
        self._received += len(data)
        self._body.append(data)
        if self._received > self._limit:
            self._body.clear()
            self._reject(Refused(413, f"The body is larger than {self._limit} bytes.", code="body_too_large"))

    def _reject(self, refused: Refused) -> None:
        """Refuse what cannot be read to its end; then wait a little, as closing at once would destroy the answer."""
        self._closing = True
        self._keep_alive = False
        reply = self._mock.refuse(refused)
        self._transport.write(self._head(reply) + reply.body)
        self._server.loop.call_later(LINGER, self._transport.close)

    def _answer(self) -> None:
        assert self._request is not None
        reply = self._mock.handle(self._request, b"".join(self._body))
        self._body = []
        if reply.at_once and self._writable.is_set():
            self._transport.write(self._head(reply) + self._body_of(reply))
            self._finish()
        else:
            self._seen = reply.seen
            self._playing = self._server.loop.create_task(self._play(reply))

    def _finish(self) -> None:
        self._seen = None
        if not self._keep_alive:
            self._close()
            return
        already_received = self._http.trailing_data[0]
        self._http = _reader()
        if already_received:
            self._http.receive_data(already_received)

    # Answers.

    def _head(self, reply: Reply) -> bytes:
        lines = [STATUS_LINES[reply.status], *[b"%s: %s\r\n" % header for header in reply.headers]]
        if reply.events is not None and self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self._keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _body_of(self, reply: Reply) -> bytes:
        return b"" if self._request is not None and self._request.method == b"HEAD" else reply.body

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data

    async def _play(self, reply: Reply) -> None:
        faults = reply.faults
        if faults.hang:
            await self._server.loop.create_future()
        await asyncio.sleep(faults.delay)
        if faults.reset == 0:
            self._reset()
            return
        left_open = await (self._play_whole(reply) if reply.events is None else self._play_events(reply, reply.events))
        if left_open:
            await self._writable.wait()
            self._playing = None
            self._finish()
            self._advance()

    async def _play_whole(self, reply: Reply) -> bool:
        data = self._head(reply) + self._body_of(reply)
        faults = reply.faults
        if not faults.pause and faults.cut is None and faults.reset is None:
            self._transport.write(data)
            return True
        middle = len(data) - len(reply.body) // 2
        self._transport.write(data[:middle])
        await asyncio.sleep(faults.pause)
        if await self._broken_off(faults):
            return False
        self._transport.write(data[middle:])
        return True

    async def _play_events(self, reply: Reply, events: Iterator[bytes]) -> bool:
        faults, seen = reply.faults, reply.seen
        assert seen is not None
        compressor = zlib.compressobj(wbits=31) if faults.gzip else None
        breaks_off = faults.reset if faults.cut is None else faults.cut
        self._transport.write(self._head(reply))
        for number, event in enumerate(events):
            if number == breaks_off and await self._broken_off(faults):
                return False
            if number:
                await asyncio.sleep(faults.pace)  # also without a pace: every event is a write of its own
            if faults.pause and number == reply.length // 2:
                await asyncio.sleep(faults.pause)
            data = event
            if compressor is not None:
                data = compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH)
            if "split" in faults.sse:
                await self._write_bytewise(data)
            else:
                self._transport.write(self._chunk(data))
            seen.events += 1
            await self._writable.wait()
        if await self._broken_off(faults):  # asked for after more events than there were
            return False
        last = self._chunk(compressor.flush()) if compressor is not None else b""
        self._transport.write(last + (b"0\r\n\r\n" if self._chunked else b""))
        if faults.errorevent is not None:
            self._close()
            return False
        return True

    async def _write_bytewise(self, data: bytes) -> None:
        for at in range(len(data)):
            self._transport.write(self._chunk(data[at : at + 1]))
            await asyncio.sleep(0)

    # Ends.

    async def _broken_off(self, faults: Faults) -> bool:
        if faults.cut is None and faults.reset is None:
            return False
        await asyncio.sleep(0.01)  # what was sent is read before the connection breaks
        if faults.cut is not None:
            self._close()
        else:
            self._reset()
        return True

    def _close(self) -> None:
        self._closing = True
        self._transport.close()

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.abort()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()


def _reader() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_LIMIT)
