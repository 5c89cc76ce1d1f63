"""One TCP connection: bytes to requests (h11), replies to bytes, and the faults that need the socket.

h11 parses requests. Replies are written without h11, because its writer would be the second largest cost of a
benchmark's upstream. Every event of a stream is a separate write.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine, Iterator
from http import HTTPStatus
from typing import Any, Self

import h11

from extproc.upstream.mock.endpoints import Options, Refused
from extproc.upstream.mock.faults import Faults
from extproc.upstream.mock.provider import Mock, Reply
from extproc.words.urls import host_port

BACKLOG = 1024  # most connections not yet accepted
MOST = 64 * 2**10  # most bytes of a request's head, of one read, and of a client's data before its answer is complete
LINGER = 2.0  # seconds for which a client that sent too much may read the refusal

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\n".encode() for status in range(200, 600)
}


class MockConnection:
    """One connection: each request is answered to its end before the next is read."""

    def __init__(self, server: MockServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._early = b""  # bytes of the next request
        self._open = self._chunked = True
        self._bodiless = False

    async def run(self) -> None:
        """Answer requests until the client or a fault ends the connection."""
        try:
            while self._open:
                await self._exchange()
        except ConnectionError:
            pass  # the client left
        except Refused as refused:
            await self._reject(refused)
        finally:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
            self._server.connections.discard(self)

    def abort(self) -> None:
        self._open = False
        self._writer.transport.abort()

    # --- requests

    async def _exchange(self) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST)
        if self._early:
            http.receive_data(self._early)
        request = await self._next(http)
        if not isinstance(request, h11.Request):
            raise ConnectionResetError
        self._bodiless = request.method == b"HEAD"
        self._chunked = request.http_version == b"1.1"
        closing = any(name == b"connection" and b"close" in value.lower() for name, value in request.headers)
        self._open = self._chunked and not closing
        if http.they_are_waiting_for_100_continue:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, limit = bytearray(), self._server.options.body_limit
        while isinstance(event := await self._next(http), h11.Data):
            body += event.data
            if len(body) > limit:
                raise Refused(413, f"The body is larger than {limit} bytes.", code="body_too_large")
        self._early = http.trailing_data[0]
        reply = self._server.mock.handle(request, bytes(body))
        if reply.at_once:
            self._writer.write(self._whole(reply))
            await self._writer.drain()
        else:
            await self._play_watched(reply)

    async def _next(self, http: h11.Connection) -> object:
        """The next event of a request. Raises Refused for a bad one, and ConnectionError when the client leaves."""
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                if not (data := await self._reader.read(MOST)):
                    raise ConnectionResetError
                http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, f"Bad request: {error}") from None
        return event

    async def _reject(self, refused: Refused) -> None:
        """Refuse an unreadable request. Then keep reading briefly, because closing at once would destroy the answer."""
        self._open = False
        self._writer.write(self._whole(self._server.mock.refuse(refused)))
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LINGER):
                while await self._reader.read(MOST):
                    pass

    # --- answers

    def _head(self, reply: Reply) -> bytes:
        lines = [STATUS_LINES[reply.status], *[b"%s: %s\r\n" % header for header in reply.headers]]
        if reply.events is not None and self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self._open:
            lines.append(b"connection: close\r\n")
        return b"".join((*lines, b"\r\n"))

    def _whole(self, reply: Reply) -> bytes:
        return self._head(reply) + (b"" if self._bodiless else reply.body)

    async def _play_watched(self, reply: Reply) -> None:
        """Play a reply that takes time, until the client leaves. Raises ConnectionError then."""
        playing, leaving = asyncio.create_task(self._play(reply)), asyncio.create_task(self._watch())
        await asyncio.wait((playing, leaving), return_when=asyncio.FIRST_COMPLETED)
        for task in (playing, leaving):
            task.cancel()
        await asyncio.wait((playing, leaving))
        if playing.cancelled() or isinstance(playing.exception(), ConnectionError):
            if reply.seen is not None:
                reply.seen.aborted = True
            raise ConnectionResetError
        playing.result()

    async def _watch(self) -> None:
        """Wait until the client leaves, or sends too much before its answer is complete."""
        with contextlib.suppress(ConnectionError):
            while len(self._early) <= MOST and (data := await self._reader.read(MOST)):
                self._early += data

    async def _play(self, reply: Reply) -> None:
        faults = reply.faults
        if faults.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(faults.delay)
        if faults.reset == 0:
            self._reset()
        elif reply.events is None:
            await self._play_whole(reply)
        else:
            await self._play_events(reply, reply.events)

    async def _play_whole(self, reply: Reply) -> None:
        data, faults = self._whole(reply), reply.faults
        middle = len(data) - len(reply.body) // 2
        if faults.pause or faults.cut is not None or faults.reset is not None:
            self._writer.write(data[:middle])
            data = data[middle:]
            await asyncio.sleep(faults.pause)
            if await self._broken_off(faults):
                return
        self._writer.write(data)
        await self._writer.drain()

    async def _play_events(self, reply: Reply, events: Iterator[bytes]) -> None:
        faults, seen = reply.faults, reply.seen
        assert seen is not None
        breaks_off = faults.reset if faults.cut is None else faults.cut
        self._writer.write(self._head(reply))
        for number, event in enumerate(events):
            if number == breaks_off and await self._broken_off(faults):
                return
            if number:
                await asyncio.sleep(faults.pace)  # sleeps even without a pace: every event is a write of its own
            if faults.pause and number == reply.length // 2:
                await asyncio.sleep(faults.pause)
            await self._send(event, faults)
            seen.events += 1
            await self._writer.drain()
        if await self._broken_off(faults):  # a fault after more events than the answer had
            return
        self._writer.write(b"0\r\n\r\n" if self._chunked else b"")

    async def _send(self, event: bytes, _faults: Faults) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(event), event) if self._chunked else event)

    # --- faults

    async def _broken_off(self, faults: Faults) -> bool:
        if faults.cut is None and faults.reset is None:
            return False
        await asyncio.sleep(0.01)  # the bytes sent are read before the connection breaks
        self._reset() if faults.cut is None else self._close()
        return True

    def _close(self) -> None:
        self._open = False
        self._writer.close()

    def _reset(self) -> None:
        at_once = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.get_extra_info("socket").setsockopt(*at_once)
        self.abort()


class MockServer:
    """A mock provider that is listening."""

    scheme = "http"
    connection = MockConnection
    listener: asyncio.Server

    def __init__(self, mock: Mock, options: Options) -> None:
        self.mock = mock
        self.options = options
        self.connections: set[MockConnection] = set()

    async def listen(self) -> Self:
        """Accept connections from now on. Raises OSError."""
        at = (self.options.address, self.options.port)
        self.listener = await asyncio.start_server(self.answer, *at, backlog=BACKLOG)
        return self

    def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Coroutine[Any, Any, None]:
        self.connections.add(connection := self.connection(self, reader, writer))
        return connection.run()

    @property
    def port(self) -> int:
        return int(self.listener.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"{self.scheme}://{host_port(self.listener.sockets[0].getsockname()[0], self.port)}"

    async def close(self) -> None:
        """Stop listening and drop every connection, also in the middle of an answer."""
        self.listener.close()
        for connection in list(self.connections):
            connection.abort()
        await self.listener.wait_closed()
        while self.connections:  # noqa: ASYNC110 - takes a few turns of the loop
            await asyncio.sleep(0)
