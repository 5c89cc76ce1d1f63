"""The thread that serves HTTP, and the status door: metrics and health."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from extproc.telemetry import Telemetry


def status_app(telemetry: Telemetry, ready: Callable[[], str]) -> Starlette:
    """`/metrics`, `/healthz` (the process lives) and `/readyz` (`ready()` gives the reason when it is not)."""

    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(telemetry.registry), headers={"content-type": content_type})

    def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_request: Request) -> Response:
        reason = ready()
        return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])


class HTTPThread:
    """Serves applications, each on its own address, from one thread with its own event loop."""

    def __init__(self) -> None:
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def add(self, app: ASGIApp, host: str, port: int) -> int:
        """Serve `app` there; returns the port. Raises OSError at once when the port cannot be had."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=64,
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
