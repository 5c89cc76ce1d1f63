"""The mock provider's listening socket, with and without TLS.

`provider.Mock` decides what is answered, `connection.Connection` speaks HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field

from extproc.mock import Options
from extproc.mock.connection import Connection
from extproc.mock.provider import Mock

BACKLOG = 1024  # connections not yet accepted


class LateTls:
    """A listener that accepts the TCP connection, waits, and only then shakes hands.

    It accepts by itself: a transport cannot wait, as uvloop's starts to read whatever its protocol says.
    """

    def __init__(self, server: Server, options: Options, context: ssl.SSLContext) -> None:
        family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
        self.sockets = (socket.create_server((options.address, options.port), family=family, backlog=BACKLOG),)
        self.sockets[0].setblocking(False)
        self._server = server
        self._delay = options.tls_delay
        self._context = context
        self._tasks = {server.loop.create_task(self._accept())}

    async def _accept(self) -> None:
        while True:
            accepted, _ = await self._server.loop.sock_accept(self.sockets[0])
            task = self._server.loop.create_task(self._shake_hands(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await asyncio.sleep(self._delay)
            await self._server.loop.connect_accepted_socket(
                lambda: Connection(self._server), accepted, ssl=self._context
            )
        except (OSError, asyncio.CancelledError):
            accepted.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.wait(self._tasks)
        self.sockets[0].close()


@dataclass(slots=True)
class Server:
    """A mock provider that is listening."""

    mock: Mock
    body_limit: int
    scheme: str
    loop: asyncio.AbstractEventLoop
    connections: set[Connection] = field(default_factory=set)
    listener: asyncio.Server | LateTls = field(init=False)

    @property
    def port(self) -> int:
        return int(self.listener.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        host = self.listener.sockets[0].getsockname()[0]
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def close(self) -> None:
        """Stop listening and drop every connection, also in the middle of an answer."""
        self.listener.close()
        for connection in list(self.connections):
            connection.abort()
        await self.listener.wait_closed()
        while self.connections:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)


async def start(options: Options) -> Server:
    loop = asyncio.get_running_loop()
    context = _tls(options)
    server = Server(Mock(options), options.body_limit, "https" if context else "http", loop)
    if context is not None and options.tls_delay:
        server.listener = LateTls(server, options, context)
    else:
        server.listener = await loop.create_server(
            lambda: Connection(server), options.address, options.port, ssl=context, backlog=BACKLOG
        )
    return server


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context
