"""The transport of the official library: for TCP, and for comparison with the native one. The only file that knows
grpc.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio

from extproc.transport import Call, Calls, Limits
from extproc.transport.unix_socket import private

log = logging.getLogger(__name__)

_OPTIONS = (
    # Envoy's keepalive pings would otherwise be taken for abuse and end in GOAWAY.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # Bursts beyond the defaults lose requests before any handler. Admission is the application's: `overloaded`.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.so_reuseport", 0),
)


class GrpcioServer:
    """Serves `calls` at the unix socket `path`, which only this user can connect to, or at `address`, host:port.

    It reads only the size of a message from `limits`.
    """

    def __init__(
        self, calls: Calls, path: str | None = None, address: str | None = None, limits: Limits | None = None
    ) -> None:
        self._path = path
        self._address = address
        self._endings: set[asyncio.Task[None]] = set()
        most = (limits or Limits()).message
        sizes = (("grpc.max_receive_message_length", most), ("grpc.max_send_message_length", most))
        self._server = grpc.aio.server(options=(*sizes, *_OPTIONS))
        services: dict[str, dict[str, Any]] = {}
        for name, make in calls.items():
            _, service, method = name.split("/")
            handler = grpc.stream_stream_rpc_method_handler(partial(self._serve, name, make))
            services.setdefault(service, {})[method] = handler
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items())
        )

    async def start(self) -> None:
        with contextlib.nullcontext() if self._path is None else private(self._path):
            where = self._address if self._path is None else f"unix:{self._path}"
            try:
                bound = self._server.add_insecure_port(where)
            except RuntimeError as error:
                raise OSError(f"cannot listen on {where}") from error
            if bound == 0:
                raise OSError(f"cannot listen on {where}")
            await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)
        if self._endings:
            await asyncio.wait(self._endings)

    async def _serve(
        self,
        name: str,
        make: Callable[[Mapping[str, str]], Call],
        _messages: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext,
    ) -> None:
        call: Call | None = None
        try:
            call = make(dict(context.invocation_metadata() or ()))
            while not call.done and (data := await context.read()) is not grpc.aio.EOF:
                for answer in await call.on_message(data):
                    await context.write(answer)
            if not call.done:
                for answer in await call.on_half_close():
                    await context.write(answer)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a call of %s failed: a bug", name)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        finally:
            if call is not None:
                ending = asyncio.get_running_loop().create_task(_ended(name, call))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
                await asyncio.shield(ending)


async def _ended(name: str, call: Call) -> None:
    try:
        await call.on_end()
    except Exception:
        log.exception("a call of %s failed: a bug", name)
