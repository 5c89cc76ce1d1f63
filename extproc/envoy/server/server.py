"""gRPC services for Envoy: ext_proc, access logs, health, and the drain of all three. Any transport serves them.

A call never ends with status 0 while Envoy waits for an answer, because Envoy would let the request pass. Either every
message was answered, or the call fails, and Envoy answers 500.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from extproc.envoy.server import access_log, answers, wire
from extproc.envoy.server.discovery import Discovery
from extproc.exchange.attempt import AttemptStream
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.pipeline import Pipeline
from extproc.operate.telemetry.metrics import Telemetry
from extproc.operate.telemetry.otlp import context
from extproc.operate.telemetry.traces import TRACE
from extproc.settings.processor import ProcessorTLSSettings
from extproc.wire.outbound.certificate import misfit
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport import Calls, GrpcCall, Malformed, PeerFaults, Transport
from extproc.wire.transport.native import NativeServer
from extproc.words import contract
from extproc.words.actions import Attachment
from extproc.words.exchange import LONG_WAIT, Features
from extproc.words.tries import Try

HEALTH = "grpc.health.v1.Health"


class Server:
    """Serves one address. `pipeline` is called for every stream, so that a reload applies to the next stream. With
    several workers, `mark` begins the ids of exchanges.
    """

    def __init__(
        self,
        pipeline: Callable[[], Pipeline],
        telemetry: Telemetry,
        mark: str = "",
        discovery: Discovery | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._telemetry = telemetry
        self._mark = mark
        self._discovery = discovery or Discovery()
        self._health = _Health()
        self._transport: Transport | None = None
        self._away = ""  # the reason why Envoy could not connect

    async def start(
        self,
        *,
        socket: str | None = None,
        address: str | None = None,
        tls: ProcessorTLSSettings | None = None,
        transport: str = "native",
    ) -> None:
        """Listen on a unix socket of mode 0600, or on `host:port`, which only grpcio serves. With `tls` only Envoys of
        attach mode are served. Raises OSError when the address is not available.
        """
        faults = PeerFaults(self._telemetry.peer_fault)
        if address is None and transport == "native":
            assert socket is not None
            self._transport = NativeServer(self._calls(), socket, faults=faults)
        else:
            from extproc.wire.transport.grpcio_server import GrpcioServer  # noqa: PLC0415 - grpc takes 8 MB
            from extproc.wire.transport.server_tls import MutualTLS  # noqa: PLC0415

            calls = self._calls() if tls is None else self._calls_from_afar()
            path = socket if address is None else None
            secured = None if tls is None else MutualTLS("processor.tls", tls.paths, tls.gateways, misfit)
            self._transport = GrpcioServer(calls, path, address, faults=faults, tls=secured)
        await self._transport.start()

    async def drain(self, notice: float, grace: float) -> None:
        """Report NOT_SERVING, wait `notice` seconds until Envoy sees it, and give streams up to `grace` seconds to
        end.
        """
        self._health.leave()
        self._discovery.leave()
        await asyncio.sleep(notice)
        if self._transport is not None:
            await self._transport.stop(grace)

    async def look(self) -> None:
        """Check the socket."""
        if self._transport is not None:
            self._away = await self._transport.look()

    @property
    def unready(self) -> str:
        """The reason why Envoy should not, or cannot, send requests here; empty without one."""
        return self._away if self._health.serving else "draining"

    def _calls(self) -> Calls:
        return {
            f"/{wire.SERVICE}/{wire.METHOD}": self._process,
            f"/{access_log.SERVICE}/{access_log.METHOD}": lambda _metadata: _AccessLog(self._pipeline, self._telemetry),
            f"/{HEALTH}/Check": lambda _metadata: _Check(self._health),
            f"/{HEALTH}/Watch": lambda _metadata: _Watch(self._health),
            **self._discovery.calls(),
        }

    def _calls_from_afar(self) -> Calls:
        """The calls that an Envoy of another team may make: no resources, which have the providers' keys, and no other
        attachment than that of attach mode.
        """
        attached = {contract.ATTACHMENT: contract.ATTACH}
        own = self._discovery.calls()
        calls = {name: make for name, make in self._calls().items() if name not in own}
        return calls | {f"/{wire.SERVICE}/{wire.METHOD}": lambda metadata: self._process({**metadata, **attached})}

    def _process(self, metadata: Mapping[str, str]) -> _Process:
        kind = metadata.get(contract.ATTACHMENT, contract.ATTACH)
        pipeline = self._pipeline()
        if kind == contract.ATTEMPT:
            attempt = AttemptStream(pipeline.settings.limits, pipeline.services.in_flight, pipeline.renewed)
            return _Process(attempt, self._telemetry)
        features = cast("Features", {})
        if pipeline.settings.telemetry.traces is not None and (trace := context(metadata.get("traceparent", ""))):
            features[TRACE] = trace
        long_wait = asyncio.Event() if pipeline.longest_wait else None
        if long_wait is not None:
            features[LONG_WAIT] = long_wait.set
        stream = GatewayStream(pipeline, attached=kind == contract.ATTACH, mark=self._mark, features=features)
        return _Process(stream, self._telemetry, long_wait, pipeline.longest_wait)


class _Process(GrpcCall):
    """An ext_proc stream: messages between Envoy and one attachment."""

    def __init__(
        self,
        attachment: Attachment,
        telemetry: Telemetry,
        long_wait: asyncio.Event | None = None,
        longest_wait: float = 0.0,
    ) -> None:
        self._attachment = attachment
        self._telemetry = telemetry
        self._long_wait = long_wait  # set when the request waits up to `longest_wait` seconds; None: Envoy knows
        self._longest_wait = longest_wait
        self._waiting: asyncio.Task[Sequence[bytes]] | None = None  # step of the request that waits
        self._order = wire.Order()
        self._dropped = False  # True: the request's body was dropped for lack of room
        telemetry.streams += 1

    @property
    def done(self) -> bool:
        return self._attachment.done

    def admits(self, size: int) -> bool:
        self._dropped = not self._attachment.admits(size)
        return not self._dropped

    @property
    def more(self) -> bool:
        """See `transport.Lengthy`."""
        return self._waiting is not None or self._attachment.more

    async def on_message(self, data: bytes | memoryview) -> Sequence[bytes]:
        if self._dropped:
            return await self._take_step(wire.refuse(self._attachment))
        step = wire.converse(self._attachment, data, self._order)
        del data  # frees a large message as soon as it was read
        return await self._take_step(step)

    async def go_on(self) -> Sequence[bytes]:
        """See `transport.Lengthy`."""
        if (waiting := self._waiting) is not None:
            self._waiting = None
            return await self._take_step(waiting)
        if (pause := self._attachment.pause) > 0.0:
            await asyncio.sleep(pause)
        return await self._take_step(wire.go_on(self._attachment))

    async def _take_step(self, step: Awaitable[Sequence[bytes]]) -> Sequence[bytes]:
        try:
            if self._long_wait is None or not self._order.of_request:
                return await step
            return await self._answer_or_wait(step, self._long_wait)
        except Malformed:
            raise
        except Exception:
            self._telemetry.internal_error(type(self._attachment).__name__)
            raise

    async def _answer_or_wait(self, step: Awaitable[Sequence[bytes]], wait: asyncio.Event) -> Sequence[bytes]:
        """The step's messages; or, once the request waits, a word to Envoy that they take longer."""
        answered, waits = asyncio.ensure_future(step), asyncio.ensure_future(wait.wait())
        try:
            await asyncio.wait((answered, waits), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(answered)
            raise
        finally:
            waits.cancel()
        if answered.done():
            return answered.result()
        self._long_wait, self._waiting = None, answered  # Envoy takes the word once
        return (answers.more_time(self._longest_wait),)

    def on_silence(self, now: float) -> Sequence[bytes]:
        """See `transport.Watched`."""
        return wire.silence(self._attachment, now)

    async def on_end(self) -> None:
        self._telemetry.streams -= 1
        if self._waiting is not None:
            await _end(self._waiting)
        await self._attachment.on_end()


async def _end(step: asyncio.Future[Any]) -> None:
    step.cancel()
    await asyncio.wait((step,))


class _AccessLog(GrpcCall):
    """A stream of Envoy's access log."""

    done = False
    lasts = True

    def __init__(self, pipeline: Callable[[], Pipeline], telemetry: Telemetry) -> None:
        self._pipeline = pipeline
        self._telemetry = telemetry
        self._name = ""

    async def on_message(self, data: bytes | memoryview) -> Sequence[bytes]:
        self._name, entries = access_log.read(bytes(data), self._name)
        for entry in entries:
            if isinstance(entry, Try):
                self._pipeline().learn(entry)
            else:
                self._telemetry.downstream_end(entry.reason)
                if (failed := self._pipeline().services.failed) is not None:
                    failed.tell_end(entry)
        return ()

    async def on_half_close(self) -> Sequence[bytes]:
        return (b"",)

    async def on_end(self) -> None:
        """No work at the end of a log stream."""


class _Health:
    """Health of this process: serving or draining."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    @property
    def serving(self) -> bool:
        return not self.left.is_set()

    def leave(self) -> None:
        self.left.set()

    def message(self) -> bytes:
        status = pb.HealthCheckResponse.SERVING if self.serving else pb.HealthCheckResponse.NOT_SERVING
        return pb.HealthCheckResponse(status=status).SerializeToString()


class _Check(GrpcCall):
    """One health check call."""

    done = False

    def __init__(self, health: _Health) -> None:
        self._health = health

    async def on_message(self, _data: bytes | memoryview) -> Sequence[bytes]:
        return (self._health.message(),)

    async def on_end(self) -> None:
        """No work at the end of a health check."""


class _Watch(_Check):
    """A health check call that also answers changes of the health."""

    async def on_half_close(self) -> Sequence[bytes]:
        if self._health.serving:
            await self._health.left.wait()
        return (self._health.message(),)
