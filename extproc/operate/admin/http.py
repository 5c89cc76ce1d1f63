"""HTTP servers for the HTTP thread, and the status application: metrics and health."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from email.utils import formatdate
from typing import Any

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from extproc.operate.admin.siblings import Siblings
from extproc.operate.telemetry.metrics import Telemetry

AT_ONCE = 64
"""Most requests that one address answers at the same time; a further request gets 503. Probes do not count."""
CONNECTIONS = 256
"""Most connections of one address; beyond it the oldest idle connection is closed."""
_BACKLOG = 16  # connections accepted at once; without free descriptors asyncio reports this many failures a second
_SLOWEST = 10.0  # seconds for the head of a request to arrive


def status_app(
    telemetry: Telemetry,
    alive: Callable[[], str],
    ready: Callable[[], str],
    remark: Callable[[], str] = str,
    siblings: Siblings | None = None,
) -> Starlette:
    """`/metrics`, `/healthz` (the event loop turns) and `/readyz`. `alive` and `ready` give the reason for a 503.

    `remark` is shown by `/readyz` while the process is ready. With `siblings` the answers are for all workers.
    """

    # Probes use no thread, because reports may occupy all threads. The metrics of hundreds of consumers use one,
    # because writing them takes 0.1 s.
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        registry: Any = telemetry.registry
        if siblings is not None:
            registry = await siblings.metrics(registry.collect())
        return Response(await asyncio.to_thread(encode, registry), headers={"content-type": content_type})

    async def healthz(_request: Request) -> Response:
        reason = alive()
        if siblings is not None and not reason:
            reason, _ = await siblings.health()
        return _health(reason)

    async def readyz(_request: Request) -> Response:
        _, remarks = ("", ()) if siblings is None else await siblings.health()
        return _health(ready(), *filter(None, (remark(), *remarks)))

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])


def _health(reason: str, *remarks: str) -> Response:
    lines = [reason or "ok", *remarks]
    return PlainTextResponse("\n".join(lines) + "\n", status_code=503 if reason else 200)


class Gate:
    """Answers 503 to requests beyond `limit` at once. Probes always pass."""

    def __init__(self, app: ASGIApp, limit: int = AT_ONCE, probes: Collection[str] = ("/healthz", "/readyz")) -> None:
        self._app = app
        self._left = limit
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._probes:
            await self._app(scope, receive, send)
        elif self._left <= 0:
            await PlainTextResponse("too many requests at once\n", 503, {"retry-after": "1"})(scope, receive, send)
        else:
            self._left -= 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._left += 1


class _Prompt(H11Protocol):
    """Closes a connection if no whole request arrives in time, and the oldest idle connection if there are too many, so
    that an idle connection never takes the place of a request.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self.loop.time()
        self._wait()
        if len(self.connections) > CONNECTIONS:
            idle = [other for other in self.connections if isinstance(other, _Prompt) and other.idle]
            if idle:
                min(idle, key=lambda other: other.since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._late is not None:
            self._late.cancel()

    def data_received(self, data: bytes) -> None:
        self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        super().data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.since = self.loop.time()
        self._wait()

    @property
    def idle(self) -> bool:
        """True when no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(_SLOWEST, self._check)

    def _check(self) -> None:
        if self.idle:
            self.transport.abort()


class HttpServer(uvicorn.Server):
    """Serves one address. It waits for its end without polling ten times a second."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            Gate(app),
            loop="asyncio",
            http=_Prompt,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            proxy_headers=False,  # clients could name any address in a header, but wrong tokens count by address
            timeout_graceful_shutdown=1,
            backlog=_BACKLOG,
        )
        super().__init__(config)
        self._listener = listener
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Accept no more connections. Called on the loop's thread."""
        self._ended.set()

    async def run_until_ended(self) -> None:
        await self.serve([self._listener])
        for connection in list(self.server_state.connections):  # connections with slow answers, or begun meanwhile
            connection.transport.abort()
        await asyncio.sleep(0)  # the loop closes them in its next turn

    async def main_loop(self) -> None:
        await self._ended.wait()
        # Python 3.11 does not close connections that it accepted just before their server closes.
        asyncio.get_running_loop().remove_reader(self._listener)
        await asyncio.sleep(0)
