"""The processor as an endpoint picker: it names the endpoint of each request that another proxy asks about.

The protocol is that of the Gateway API Inference Extension (docs/proposals/004-endpoint-picker-protocol, 1.0.0), over
ext_proc with FULL_DUPLEX_STREAMED bodies:

    request     the answer to its headers comes once the whole body is read: header and metadata name the endpoint, and
                `serve_fallbacks` further ones for retries; then the body, unchanged
    subset      `envoy.lb.subset_hint` limits the choice; without an endpoint that is left the answer is 503
    full        429 after the pool's `wait`, at once for objectives of a priority below 0
    answer      passes unchanged; `envoy.lb` names the endpoint that served
    health      services `liveness` and `readiness`, and that of ext_proc, which is as ready as `readiness`
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from extproc.dialects import Finder, client_apis
from extproc.envoy.server import answers, wire
from extproc.routing.pools.endpoint import Endpoint
from extproc.routing.pools.picker import Choice, Facts
from extproc.routing.pools.placing import wait_for_room
from extproc.routing.pools.pool import Pool
from extproc.routing.pools.prefixes import chain
from extproc.routing.prefix import digest_of
from extproc.settings.limits import LimitsSettings
from extproc.upstream.providers import ServeTLSSettings
from extproc.wire.framing.json import InvalidJSON, parse
from extproc.wire.outbound.certificate import misfit
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport import Calls, GrpcCall, Malformed
from extproc.wire.transport.grpcio_server import GrpcioServer
from extproc.wire.transport.server_tls import MutualTLS, ServerTLS
from extproc.words import contract

log = logging.getLogger(__name__)

_HEALTH = "grpc.health.v1.Health"
_OBJECTIVE = "x-gateway-inference-objective"  # request header: name whose priority counts
_FAIRNESS = "x-gateway-inference-fairness-id"  # request header: requests of one id take turns with those of others
_SUBSET_NAMESPACE, _SUBSET = "envoy.lb.subset_hint", f"{contract.DESTINATION}-subset"
_CHOICES = 3
_MOST_READ = 1 << 20  # bytes of a body that is read for its prefix; a larger one is placed by load alone
_NODES = 20_000  # values in such a body
_PIECE = 62_000  # bytes; Envoy drops larger pieces of a FULL_DUPLEX_STREAMED body
_AGAIN = 2.0  # seconds between attempts to listen
_GRACE = 5.0


async def serve(pool: Pool, limits: Callable[[], LimitsSettings]) -> None:
    """Serve the picker of a pool until cancelled. `limits` gives those for a new request."""
    settings, told = pool.settings, ""
    assert settings.serve is not None, "its picker is served"
    while True:
        tls = None if settings.serve_tls is None else _tls(f"providers.{pool.name}.pool.serve_tls", settings.serve_tls)
        server = GrpcioServer(calls(pool, limits), None, settings.serve, tls=tls)
        try:
            await server.start()
            log.info("pool %s: its endpoint picker listens on %s", pool.name, settings.serve)
            await asyncio.Event().wait()
        except OSError as error:
            if str(error) != told:
                log.error("pool %s: no endpoint picker: %s", pool.name, error)  # noqa: TRY400 - no bug
                told = str(error)
            await asyncio.sleep(_AGAIN)
        finally:
            await server.stop(_GRACE)


def _tls(name: str, settings: ServeTLSSettings) -> ServerTLS:
    if settings.client_ca is None:
        return ServerTLS(name, *settings.files, misfit)
    return MutualTLS(name, (*settings.files, settings.client_ca.removeprefix("file:")), settings.gateways, misfit)


def calls(pool: Pool, limits: Callable[[], LimitsSettings]) -> Calls:
    """The calls that proxies make."""
    finder = Finder(client_apis().values())
    return {
        f"/{wire.SERVICE}/{wire.METHOD}": lambda _metadata: PickCall(pool, finder, limits()),
        f"/{_HEALTH}/Check": lambda _metadata: _Health(pool),
        f"/{_HEALTH}/Watch": lambda _metadata: _Watch(pool),
    }


class _RefusedError(Exception):
    """The request gets no endpoint: `status` 413, 429 or 503."""

    def __init__(self, status: int) -> None:
        self.status = status


class PickCall(GrpcCall):
    """One request of a proxy: the choice of its endpoint, and its end."""

    def __init__(self, pool: Pool, finder: Finder, limits: LimitsSettings) -> None:
        self._pool = pool
        self._finder = finder
        self._limits = limits
        self._refused = False
        self._head: Mapping[str, str] = {}
        self._subset: Sequence[str] | None = None  # addresses that the proxy allows
        self._body = bytearray()
        self._facts = Facts(0.0)
        self._endpoint: Endpoint | None = None  # counts the request

    @property
    def done(self) -> bool:
        return self._refused

    async def on_message(self, data: bytes | memoryview) -> Sequence[bytes]:
        message = wire.parsed(pb.ProcessingRequest, data)
        phase = message.WhichOneof("request")
        try:
            if phase == "request_headers":
                self._head = wire.read_headers(message.request_headers)
                self._subset = _subset(message)
                return [await self._choose()] if message.request_headers.end_of_stream else ()
            if phase == "request_body":
                self._body += message.request_body.body
                if len(self._body) > self._limits.request_body:
                    raise _RefusedError(413)
                return [await self._choose(), *self._pieces(end=True)] if message.request_body.end_of_stream else ()
            if phase == "request_trailers":
                trailers = pb.ProcessingResponse(request_trailers={}).SerializeToString()
                return [await self._choose(), *self._pieces(end=False), trailers]
        except _RefusedError as refused:
            self._refused = True
            headers = {"set_headers": [_header("retry-after", "1")]} if refused.status != 413 else {}
            return [_message(immediate_response={"status": {"code": refused.status}, "headers": headers})]
        if phase == "response_headers":
            self._answered(message)
            return [answers.UNCHANGED[phase]]
        if phase == "response_body":
            part = message.response_body
            return _split("response_body", part.body, end=part.end_of_stream)
        return [answers.TRAILERS_UNCHANGED]

    async def on_end(self) -> None:
        if self._endpoint is not None:
            self._pool.end("", self._endpoint)

    async def _choose(self) -> bytes:
        """The answer that names the endpoints. Raises _RefusedError."""
        pool = self._pool
        if self._endpoint is not None:
            raise Malformed("a request goes on after its end")
        self._facts = self._read()
        chosen = self._choices()
        if chosen[0].full or len(pool.queue):
            priority = pool.priority(self._head.get(_OBJECTIVE, ""), "")
            fairness, wait = self._head.get(_FAIRNESS, ""), pool.settings.wait
            if priority < 0 or not wait or not await wait_for_room(pool, fairness, priority, wait):
                raise _RefusedError(429)
            pool.took_turn()
            self._facts.now = pool.clock()
            chosen = self._choices()
        self._endpoint = chosen[0].endpoint
        pool.begin(self._endpoint, self._facts)
        value = ",".join([choice.endpoint.address for choice in chosen[: 1 + pool.settings.serve_fallbacks]])
        mutation = {"set_headers": [_header(contract.DESTINATION, value)]}
        message = pb.ProcessingResponse(
            request_headers={"response": {"header_mutation": mutation, "clear_route_cache": True}}
        )
        message.dynamic_metadata.update({contract.LB_NAMESPACE: {contract.DESTINATION: value}})
        return message.SerializeToString()

    def _choices(self) -> Sequence[Choice]:
        endpoints = [*self._pool.endpoints.values()]
        if self._subset is not None:
            endpoints = [each for each in endpoints if each.address in self._subset]
        if not (
            chosen := self._pool.picker.choose(
                endpoints, self._facts, max(_CHOICES, 1 + self._pool.settings.serve_fallbacks)
            )
        ):
            raise _RefusedError(503)
        return chosen

    def _read(self) -> Facts:
        """Facts of the request. One that the gateway cannot read is placed by load alone: its server refuses it."""
        facts = Facts(self._pool.clock())
        found = self._finder.find(self._head.get(":path", "").partition("?")[0], self._head)
        if found is None or not self._body or len(self._body) > _MOST_READ:
            return facts
        dialect = found[0]
        try:
            body = parse(bytes(self._body), self._limits.json_depth, _NODES)
        except InvalidJSON:
            return facts
        if isinstance(body, dict):
            model = body.get("model")
            facts.adapter = model if isinstance(model, str) else ""
            facts.blocks = chain((text.value for text in dialect.texts(body)), facts.adapter)
            facts.digest = int.from_bytes(digest_of(dialect, body)[:8])
        return facts

    def _pieces(self, *, end: bool) -> Sequence[bytes]:
        body, self._body = bytes(self._body), bytearray()
        return _split("request_body", body, end=end)

    def _answered(self, message: pb.ProcessingRequest) -> None:
        """Note the endpoint that answered, which is another one after a retry of the proxy."""
        pool, now = self._pool, self._pool.clock()
        if self._endpoint is None:
            return
        told = message.metadata_context.filter_metadata[contract.LB_NAMESPACE].fields
        address = told[contract.SERVED].string_value if contract.SERVED in told else ""
        served = pool.endpoints.get(address)
        if served is not None and served is not self._endpoint:
            self._endpoint.failed(now, connected=True)
            pool.end("", self._endpoint)
            self._endpoint = served
            pool.begin(served, self._facts)
        status = wire.read_headers(message.response_headers).get(":status", "")
        if status.startswith("5"):
            self._endpoint.failed(now, connected=True)
        else:
            self._endpoint.answered(now - self._facts.now)


class _Health(GrpcCall):
    """A health check."""

    done = False

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._service = ""
        self._told = b""

    async def on_message(self, data: bytes | memoryview) -> Sequence[bytes]:
        self._service = wire.parsed(pb.HealthCheckRequest, data).service
        self._told = self._status()
        return (self._told,)

    async def on_end(self) -> None:
        """No work at the end of a health check."""

    def _status(self) -> bytes:
        kinds = pb.HealthCheckResponse
        now = self._pool.clock()
        ready = any(each.ready(now) for each in self._pool.endpoints.values())
        if self._service not in ("", "liveness", "readiness", wire.SERVICE):
            status = kinds.SERVICE_UNKNOWN
        else:
            status = kinds.SERVING if ready or self._service == "liveness" else kinds.NOT_SERVING
        return kinds(status=status).SerializeToString()


class _Watch(_Health):
    """A health check that also answers changes."""

    lasts = True

    def on_silence(self, _now: float) -> Sequence[bytes]:
        """See `transport.Watched`."""
        if self._told in (b"", status := self._status()):
            return ()
        self._told = status
        return (status,)

    async def on_half_close(self) -> Sequence[bytes]:
        while (status := self._status()) == self._told:  # noqa: ASYNC110 - readiness is a fact of many endpoints
            await asyncio.sleep(1)
        return (status,)


def _subset(message: pb.ProcessingRequest) -> Sequence[str] | None:
    """Addresses that the proxy allows; None: all of the pool."""
    hints = message.metadata_context.filter_metadata
    if _SUBSET_NAMESPACE not in hints or _SUBSET not in (fields := hints[_SUBSET_NAMESPACE].fields):
        return None
    value = fields[_SUBSET]
    if value.WhichOneof("kind") == "list_value":
        return [each.string_value for each in value.list_value.values]
    return [part.strip() for part in value.string_value.split(",") if part.strip()]


def _header(name: str, value: str) -> pb.HeaderValueOption:
    action = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return pb.HeaderValueOption(header={"key": name, "raw_value": value.encode()}, append_action=action)


def _split(phase: str, body: bytes, *, end: bool) -> Sequence[bytes]:
    """A body in pieces that Envoy takes."""
    parts = [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)] or ([b""] if end else [])
    return [
        _message(
            **{phase: {"response": {"body_mutation": {"streamed_response": {"body": part, "end_of_stream": last}}}}}
        )
        for part, last in ((part, end and number == len(parts)) for number, part in enumerate(parts, 1))
    ]


def _message(**fields: object) -> bytes:
    return pb.ProcessingResponse(**fields).SerializeToString()  # type: ignore[arg-type]
