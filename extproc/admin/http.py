"""The thread that serves HTTP, and the status door: metrics and health."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Collection

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from extproc.telemetry.metrics import Telemetry

AT_ONCE = 64
"""Requests that one address answers at the same time; one more gets 503. Probes do not count."""
CONNECTIONS = 256
"""Connections of one address; beyond them the oldest idle one is closed."""
_SLOWEST = 10.0  # seconds for the head of a request to arrive
_SILENT = 20_000  # milliseconds that a client may take nothing of its answer


def status_app(
    telemetry: Telemetry, alive: Callable[[], str], ready: Callable[[], str], remark: Callable[[], str] = str
) -> Starlette:
    """`/metrics`, `/healthz` (the event loop turns) and `/readyz`: `alive` and `ready` give the reason when not.

    `remark` is shown by `/readyz` while the process is ready.
    """

    # Probes take no thread: reports may have them all, and a probe must not wait for those.
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(telemetry.registry), headers={"content-type": content_type})

    async def healthz(_request: Request) -> Response:
        return _health(alive())

    async def readyz(_request: Request) -> Response:
        return _health(ready(), remark())

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])


def _health(reason: str, remark: str = "") -> Response:
    lines = [reason or "ok", *([remark] if remark else [])]
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
    """Closes a connection on which no whole request arrives in time, and the oldest idle one when there are too many:
    so an idle connection never takes the place of a request.
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


class HTTPThread:
    """Serves applications, each on its own address, from one thread with its own event loop."""

    def __init__(self) -> None:
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def add(self, app: ASGIApp, host: str, port: int) -> int:
        """Serve `app` there; returns the port. Raises OSError at once when the port is not available."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT)
        config = uvicorn.Config(
            Gate(app),
            loop="asyncio",
            http=_Prompt,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._servers.append((uvicorn.Server(config), listener))
        bound: int = listener.getsockname()[1]
        return bound

    def start(self) -> None:
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._thread.start()

    def stop(self) -> None:
        for server, _ in self._servers:
            server.should_exit = True
        self._thread.join(timeout=5)
        for _, listener in self._servers:
            listener.close()

    def _run(self) -> None:
        async def serve() -> None:
            await asyncio.gather(*(server.serve([listener]) for server, listener in self._servers))

        asyncio.run(serve())
