"""The gRPC server Envoy talks to: streams, access logs, health, drain. The only file that knows grpc.

A handler never returns while Envoy still waits for an answer: Envoy would take that for "nothing to object to". So
every way out of it has either answered, or raises, and then Envoy answers 500.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket as sockets
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio

from extproc.attempt import AttemptStream
from extproc.gateway import GatewayStream
from extproc.pb import extproc_pb2 as pb
from extproc.pipeline import Pipeline
from extproc.server import access_log, wire
from extproc.telemetry.metrics import Telemetry
from extproc.words import contract
from extproc.words.actions import Attachment
from extproc.words.tries import Try

log = logging.getLogger(__name__)

_OPTIONS = (
    # A buffered body is one message; headers and framing come on top of the largest one the settings allow.
    ("grpc.max_receive_message_length", 80 << 20),
    ("grpc.max_send_message_length", 80 << 20),
    # Envoy's keepalive pings would otherwise be taken for abuse and end in GOAWAY.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # Bursts beyond the defaults lose requests that no handler ever sees. Admission is the application's: `overloaded`.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.so_reuseport", 0),
)


class Server:
    """Serves one address. `pipeline` is asked for anew at every stream, so that a reload binds from the next one."""

    def __init__(self, pipeline: Callable[[], Pipeline], telemetry: Telemetry) -> None:
        self._pipeline = pipeline
        self._telemetry = telemetry
        self._serving = True
        self._health_changed = asyncio.Event()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    wire.SERVICE, {wire.METHOD: grpc.stream_stream_rpc_method_handler(self._process)}
                ),
                grpc.method_handlers_generic_handler(
                    access_log.SERVICE, {access_log.METHOD: grpc.stream_unary_rpc_method_handler(self._access_log)}
                ),
                grpc.method_handlers_generic_handler(
                    "grpc.health.v1.Health",
                    {
                        "Check": grpc.unary_unary_rpc_method_handler(self._check),
                        "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
                    },
                ),
            )
        )

    async def start(self, *, socket: str | None = None, address: str | None = None) -> None:
        """Listen on a unix socket of mode 0600, or on `host:port`. Raises OSError when that cannot be had."""
        if address is not None:
            self._bind(address)
            await self._server.start()
            return
        assert socket is not None
        path = Path(socket)
        _make_room(path)
        before = os.umask(0o177)  # from its first moment nobody else can connect
        try:
            self._bind(f"unix:{socket}")
            await self._server.start()
        finally:
            os.umask(before)

    async def drain(self, notice: float, grace: float) -> None:
        """Say NOT_SERVING, give Envoy `notice` seconds to see it, and streams up to `grace` seconds to end."""
        self._serving = False
        self._health_changed.set()
        await asyncio.sleep(notice)
        await self._server.stop(grace)

    @property
    def serving(self) -> bool:
        return self._serving

    def _bind(self, address: str) -> None:
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        if bound == 0:
            raise OSError(f"cannot listen on {address}")

    async def _process(self, _messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        attachment = self._attachment(context)
        self._telemetry.streams.inc()
        try:
            while not attachment.done and (data := await context.read()) is not grpc.aio.EOF:
                for reply in await wire.converse(attachment, data):
                    await context.write(reply)
        except asyncio.CancelledError:
            raise
        except Exception:
            where = type(attachment).__name__
            self._telemetry.internal_error(where)
            log.exception("%s failed; Envoy answers 500", where)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        finally:
            self._telemetry.streams.dec()
            await attachment.on_end()

    def _attachment(self, context: grpc.aio.ServicerContext) -> Attachment:
        metadata = dict(context.invocation_metadata() or ())
        kind = metadata.get(contract.ATTACHMENT, contract.ATTACH)
        if kind == contract.ATTEMPT:
            return AttemptStream(self._pipeline().settings.limits)
        return GatewayStream(self._pipeline(), attached=kind == contract.ATTACH)

    async def _access_log(self, messages: AsyncIterator[bytes], _context: grpc.aio.ServicerContext) -> bytes:
        name = ""
        async for data in messages:
            name, entries = access_log.read(data, name)
            for entry in entries:
                if isinstance(entry, Try):
                    self._pipeline().learn(entry)
                else:
                    self._telemetry.downstream_end(entry.reason)
        return b""

    async def _check(self, _request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return self._health()

    async def _watch(self, _request: bytes, context: grpc.aio.ServicerContext) -> None:
        await context.write(self._health())
        await self._health_changed.wait()
        await context.write(self._health())

    def _health(self) -> bytes:
        status = pb.HealthCheckResponse.SERVING if self._serving else pb.HealthCheckResponse.NOT_SERVING
        return pb.HealthCheckResponse(status=status).SerializeToString()


def _make_room(path: Path) -> None:
    """Remove a socket that a killed process left behind. Raises OSError when it is anything else, or in use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(f"{path} exists and is no socket")
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.settimeout(1)
            if probe.connect_ex(str(path)) == 0:
                raise OSError(f"another process serves {path}")
        path.unlink()
