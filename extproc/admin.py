"""HTTP for people and probes, on a thread of its own so that a slow scraper never delays a request.

Two doors: `status` (metrics and health, no token) and `admin` (recent exchanges, providers; a token off loopback).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import threading
from collections.abc import Callable, Mapping

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from extproc.telemetry import Telemetry

_MAX_LISTED = 1000


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


def admin_app(
    telemetry: Telemetry, token: str | None, places: Callable[[], Mapping[str, Mapping[str, float]]] = dict
) -> Starlette:
    """`/exchanges?limit=100`: the latest ones first, as they are logged; `/exchanges/{id}`: one of them; `/providers`:
    what tries taught about each model at a provider.
    """

    def refused(request: Request) -> Response | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            return JSONResponse({"error": "send 'Authorization: Bearer <admin token>'"}, status_code=401)
        return None

    def exchanges(request: Request) -> Response:
        if (answer := refused(request)) is not None:
            return answer
        limit = request.query_params.get("limit", "100")
        if not limit.isdecimal() or len(limit) > len(str(_MAX_LISTED)) or not 1 <= int(limit) <= _MAX_LISTED:
            return JSONResponse({"error": f"limit is a number from 1 to {_MAX_LISTED}"}, status_code=400)
        latest = list(telemetry.recent)[-int(limit) :]
        return JSONResponse({"data": latest[::-1]})

    def exchange(request: Request) -> Response:
        if (answer := refused(request)) is not None:
            return answer
        wanted = request.path_params["id"]
        found = next((entry for entry in list(telemetry.recent) if wanted in (entry["id"], entry["request_id"])), None)
        return JSONResponse(found or {"error": "no recent exchange has that id"}, status_code=200 if found else 404)

    def providers(request: Request) -> Response:
        return refused(request) or JSONResponse({"data": places()})

    return Starlette(
        routes=[
            Route("/exchanges", exchanges),
            Route("/exchanges/{id}", exchange),
            Route("/providers", providers),
        ]
    )


class HTTPThread:
    """Serves applications, each on its own address, from one thread with its own event loop."""

    def __init__(self) -> None:
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def add(self, app: Starlette, host: str, port: int) -> None:
        """Serve `app` there. Raises OSError at once when the port cannot be had."""
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
