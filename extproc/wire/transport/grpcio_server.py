"""The official library's transport: for TCP, and for comparison with the native one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import grpc
import grpc.aio

from extproc.wire.transport import (
    LAST_WORDS,
    LOOK,
    Calls,
    GrpcCall,
    Lengthy,
    Malformed,
    PeerFaults,
    TransportLimits,
    Watched,
    goes_on,
    lasts,
)
from extproc.wire.transport.server_tls import ServerTLS
from extproc.wire.transport.unix_socket import private

log = logging.getLogger(__name__)

_LOOK_AGAIN = 0.05  # seconds between checks for calls that a stop waits for
_OPTIONS = (
    # Envoy's keepalive pings would otherwise count as abuse and end in GOAWAY.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # Bursts above grpc's defaults would lose requests before any handler; `overloaded` decides on admission.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.so_reuseport", 0),
    # Windows keep their first size: growing ones fill memory with answers that clients do not read.
    ("grpc.http2.bdp_probe", 0),
)

_ENDED = (grpc.aio.AbortError, grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError)
"""Errors of an abort: its usual end; the client has just cancelled the call (InternalError); the call has just ended
itself with an error (UsageError).
"""


class GrpcioServer:
    """Serves `calls` at the unix socket `path`, which only this user can connect to, or at `address`, host:port, with
    `tls` or without.

    `limits` gives only the size of a message.
    """

    def __init__(
        self,
        calls: Calls,
        path: str | None = None,
        address: str | None = None,
        limits: TransportLimits | None = None,
        *,
        faults: PeerFaults | None = None,
        tls: ServerTLS | None = None,
    ) -> None:
        self._faults = faults or PeerFaults()
        self._path = path
        self._address = address
        self._tls = tls
        self._endings: set[asyncio.Task[None]] = set()
        self._calls: dict[grpc.aio.ServicerContext, GrpcCall] = {}  # current calls
        most = (limits or TransportLimits()).message
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
                if self._tls is None:
                    bound = self._server.add_insecure_port(where)
                else:
                    bound = self._server.add_secure_port(where, self._tls.credentials())
            except RuntimeError as error:
                raise OSError(f"cannot listen on {where}") from error
            if bound == 0:
                raise OSError(f"cannot listen on {where}")
            await self._server.start()

    async def look(self) -> str:
        if self._path is None or os.access(self._path, os.F_OK):
            return ""
        return f"{self._path} was deleted: restart the processor"

    async def stop(self, grace: float) -> None:
        stopping = asyncio.ensure_future(self._server.stop(grace))
        while not stopping.done() and not all(map(lasts, self._calls.values())):
            await asyncio.wait([stopping], timeout=_LOOK_AGAIN)
        await asyncio.wait([stopping], timeout=LAST_WORDS)
        for context in list(self._calls):
            with contextlib.suppress(*_ENDED):
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")
        await stopping
        if self._endings:
            await asyncio.wait(self._endings)

    async def _serve(
        self,
        name: str,
        make: Callable[[Mapping[str, str]], GrpcCall],
        _messages: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext,
    ) -> None:
        if self._tls is not None and not self._tls.admits(context.auth_context()):
            named = f"{self._tls.setting}.gateways"
            self._faults.add("name", f"its certificate has no name of {named}")
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not a name of {named}")
        call: GrpcCall | None = None
        watch: asyncio.Task[None] | None = None
        try:
            call = make(dict(context.invocation_metadata() or ()))
            self._calls[context] = call
            rests, turn = asyncio.Event(), asyncio.Lock()
            if hasattr(call, "on_silence"):
                watched = cast("Watched", call)
                watch = asyncio.create_task(_watch(watched, context, rests, turn, asyncio.current_task()))
            while not call.done:
                rests.set()
                data = await context.read()
                rests.clear()
                if data is grpc.aio.EOF:
                    break
                await _write(context, await call.on_message(data), turn)
                while goes_on(call) and not call.done:
                    await asyncio.sleep(0)
                    await _write(context, await cast("Lengthy", call).go_on(), turn)
            if not call.done:
                await _write(context, await call.on_half_close(), turn)
        except asyncio.CancelledError:
            if watch is None or not watch.done() or call is None or not call.done:
                raise
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
        except Malformed as error:
            self._faults.add("message", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "malformed message")
        except grpc.aio.InternalError:
            pass  # the client cancelled the call during a write
        except Exception:
            log.exception("a call of %s failed: a bug", name)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        finally:
            self._calls.pop(context, None)
            if watch is not None:
                watch.cancel()
            if call is not None:
                ending = asyncio.get_running_loop().create_task(_ended(name, call))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
                await asyncio.shield(ending)


async def _write(context: grpc.aio.ServicerContext, answers: Sequence[bytes], turn: asyncio.Lock) -> None:
    """Write answers. A lock allows one writer at a time."""
    async with turn:
        for answer in answers:
            await context.write(answer)


async def _watch(
    call: Watched,
    context: grpc.aio.ServicerContext,
    rests: asyncio.Event,
    turn: asyncio.Lock,
    reading: asyncio.Task[Any] | None,
) -> None:
    """Write the answers that a call gives while its client is silent, until the call ends. `rests` is set while no
    method runs.
    """
    while not call.done:
        await asyncio.sleep(LOOK)
        await rests.wait()
        if not call.done and (answers := call.on_silence(time.monotonic())):
            await _write(context, answers, turn)
            if call.done and reading is not None:
                asyncio.get_running_loop().call_soon(reading.cancel)  # the call's task waits for a message
                return


async def _ended(name: str, call: GrpcCall) -> None:
    try:
        await call.on_end()
    except Exception:
        log.exception("a call of %s failed: a bug", name)
