"""The listening socket of a double, with and without TLS, and unusual ways to write an answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from extproc.upstream.mock import connection, endpoints
from extproc.upstream.mock.faults import Faults
from tests.doubles.faults import odd


@dataclass(frozen=True)
class Options(endpoints.Options):
    """The command line as values."""

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_delay: float = 0.0  # seconds before the handshake


class Connection(connection.MockConnection):
    """A connection that can write every byte separately."""

    async def _send(self, event: bytes, faults: Faults) -> None:
        if "split" not in odd(faults).sse:
            await super()._send(event, faults)
            return
        for at in range(len(event)):
            await super()._send(event[at : at + 1], faults)
            await asyncio.sleep(0)


class LateTls:
    """A listener that accepts the TCP connection, waits, and only then starts the TLS handshake.

    It accepts connections itself. A transport cannot wait: uvloop's starts to read, whatever its protocol says.
    """

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        options = server.options
        family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
        at = (options.address, options.port)
        self.sockets = (socket.create_server(at, family=family, backlog=connection.BACKLOG),)
        self.sockets[0].setblocking(False)
        self._server = server
        self._delay = options.tls_delay
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._tasks = {self._loop.create_task(self._accept())}

    async def _accept(self) -> None:
        while True:
            accepted, _ = await self._loop.sock_accept(self.sockets[0])
            task = self._loop.create_task(self._shake_hands(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await asyncio.sleep(self._delay)
            await self._loop.connect_accepted_socket(self._protocol, accepted, ssl=self._context)
        except (OSError, asyncio.CancelledError):
            accepted.close()

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._server.answer)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.wait(self._tasks)
        self.sockets[0].close()


class Server(connection.MockServer):
    """A double that is listening."""

    connection = Connection
    options: Options

    async def listen(self) -> Self:
        options = self.options
        if options.tls_cert is None:
            return await super().listen()
        self.scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        context.set_alpn_protocols(["http/1.1"])
        if options.tls_delay:
            self.listener = cast(
                "asyncio.Server", LateTls(self, context)
            )  # has the attributes of a server that are used
        else:
            at = (options.address, options.port)
            self.listener = await asyncio.start_server(self.answer, *at, ssl=context, backlog=connection.BACKLOG)
        return self
