"""The mock provider's HTTP server.

`Mock` decides what is answered and remembers what was asked; it does no I/O. `Connection` is one TCP connection: bytes
to requests (h11), replies to bytes, and the faults that need the socket. `Server` is the listening socket.

Answers are written by hand: next to parsing, h11's writer would be the largest cost of the upstream of a benchmark. So
h11 only reads, one h11.Connection per request.

An answer that needs no waiting is written at once, in one write, from inside `data_received`. Everything else is played
by a task of the connection; the task is cancelled as soon as the client leaves, wherever it sleeps.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import socket
import ssl
import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import chain, islice
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import h11
import msgspec

from extproc.mock import Options, answers
from extproc.mock.answers import Answer, Json, Question, Refused
from extproc.mock.faults import NO_PLAN, NONE, Event, FaultError, Faults, of_model, padded, parse, sse

HEADER_LIMIT = 64 * 2**10  # of a request's head
LOGGED_BODY = 64 * 2**10  # a larger body is kept as its length only
PIPELINED = 64 * 2**10  # bytes a client may send while its answer is being played
COUNTED_MODELS = 1000  # models with every= or first= whose requests are counted
AT_ONCE = 32 * 2**10  # a body up to this size fits the socket buffer: there is nothing to wait for
BACKLOG = 1024  # connections not yet accepted
LINGER = 2.0  # seconds in which a client that sent too much may read why it was refused

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\n".encode() for status in range(200, 600)
}
JSON = (b"content-type", b"application/json")
HTML = (b"content-type", b"text/html; charset=utf-8")
EVENT_STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
FORGED = ((b"x-extproc-origin", b"hop"), (b"x-ai-provider", b"forged"), (b"x-envoy-overloaded", b"true"))
GARBAGE = b"<!doctype html><html><body><h1>It works!</h1></body></html>\n"
BAD_JSON = b'{"id":"chatcmpl-mock","object":"chat.completion","choices":[{"index":0,"message":{"role":"assi'


class Endpoint(NamedTuple):
    """One POST endpoint of a dialect: how it answers, and the shape of its errors."""

    answer: Callable[[Question], Answer]
    error: Callable[[Refused], Json]


# The next dialect is a file beside answers.py, and its endpoints here.
ENDPOINTS = {
    "/v1/chat/completions": Endpoint(answers.chat, answers.error),
    "/v1/embeddings": Endpoint(answers.embeddings, answers.error),
}

OWN_PATHS = frozenset({"/healthz", "/requests", "/control"})  # not the provider's: no faults, no key, not in the log


@dataclass(slots=True)
class Seen:
    """A request in the log, and what became of its answer."""

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    body_length: int
    status: int = 0
    events: int = 0
    aborted: bool = False  # the client left before the end of the answer

    def shown(self) -> Json:
        return {
            "method": self.method,
            "path": self.path,
            "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers],
            "body": _json_or_none(self.body),
            "body_length": self.body_length,
            "status": self.status,
            "events": self.events,
            "aborted": self.aborted,
        }


@dataclass(frozen=True, slots=True)
class Reply:
    """What a connection has to play. `events` are already framed; without them the body is sent whole."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    events: Iterator[bytes] | None = None
    length: int = 0  # how many events there are
    faults: Faults = NONE
    seen: Seen | None = None

    @property
    def at_once(self) -> bool:
        faults = self.faults
        waits = faults.delay or faults.hang or faults.pause or faults.cut is not None or faults.reset is not None
        return self.events is None and not waits and len(self.body) <= AT_ONCE


class Mock:
    """One provider: its settings, its fault of the moment, and the log of what it was asked."""

    def __init__(self, options: Options) -> None:
        self._name = options.name
        self._keys = _accepted(options.api_key) if options.api_key else None
        self._log: deque[Seen] = deque(maxlen=options.log_size)
        self._by_model: OrderedDict[str, int] = OrderedDict()
        self._answered = 0  # numbers x-request-id, never reset
        self.clear()
        self._fault = parse(options.fault)

    def clear(self) -> None:
        """Forget the log, the counters and the fault."""
        self._log.clear()
        self._by_model.clear()
        self._total = 0
        self._fault = NO_PLAN
        self._fault_total = 0

    def refuse(self, refused: Refused) -> Reply:
        """Answer what never became a request."""
        return self._reply(answers.error(refused), status=refused.status)

    def handle(self, request: h11.Request, body: bytes) -> Reply:
        target = request.target.decode("latin-1")
        path, _, query = target.partition("?")
        method = request.method.decode()
        if path in OWN_PATHS:
            return self._own(method, path, query, body)
        kept = body if len(body) <= LOGGED_BODY else b""
        seen = Seen(method, target, request.headers, kept, len(body))
        self._total += 1
        self._log.append(seen)
        reply = self._serve(seen, path, body)
        seen.status = reply.status
        return reply

    # The provider's own API.

    def _serve(self, seen: Seen, path: str, body: bytes) -> Reply:
        endpoint = ENDPOINTS.get(path)
        self._fault_total += 1
        values = self._fault.due(self._fault_total)
        faults = Faults(**values) if values else NONE
        try:
            document = _decoded(body) if endpoint and seen.method == "POST" else None
            if document is not None and "+" in document["model"]:
                faults = replace(faults, **self._of_model(document["model"]))
            self._admit(seen, faults)
            if endpoint is None or document is None:
                listing = _listing(seen.method, path, known=endpoint is not None)
                return self._reply(listing, seen=seen, faults=faults)
            return self._answer(endpoint, Question(document, _digest(body), self._name, faults), seen)
        except Refused as refused:
            shape = endpoint.error if endpoint else answers.error
            return self._reply(shape(refused), status=refused.status, seen=seen, faults=faults)

    def _of_model(self, model: str) -> Mapping[str, Any]:
        try:
            plan = of_model(model)
        except FaultError as error:
            raise Refused(400, str(error), param="model", code="unknown_fault") from None
        if not plan.counts:
            return plan.faults
        nth = self._by_model.pop(model, 0) + 1
        self._by_model[model] = nth
        if len(self._by_model) > COUNTED_MODELS:
            self._by_model.popitem(last=False)
        return plan.due(nth)

    def _admit(self, seen: Seen, faults: Faults) -> None:
        if faults.status is not None:
            raise Refused(faults.status, f"A fault was asked for: status={faults.status}.", code="mock_fault")
        if self._keys is None:
            return
        for name, value in seen.headers:
            wanted = self._keys.get(name)
            if wanted is not None and hmac.compare_digest(wanted, value):
                return
        raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")

    def _answer(self, endpoint: Endpoint, question: Question, seen: Seen) -> Reply:
        answer = endpoint.answer(question)
        faults = question.faults
        if answer.events is None or faults.garbage or faults.badjson:
            return self._reply(answer.document, seen=seen, faults=faults)
        events, length = answer.events, answer.length
        if faults.errorevent is not None:
            refused = Refused(500, "A fault was asked for: errorevent.", code="mock_fault")
            document = msgspec.json.encode(endpoint.error(refused))
            events = chain(islice(events, faults.errorevent), [Event(document)])
        headers = self._headers(faults, *EVENT_STREAM)
        return Reply(200, headers, events=sse(events, faults.sse), length=length, faults=faults, seen=seen)

    def _reply(self, document: Any, *, status: int = 200, seen: Seen | None = None, faults: Faults = NONE) -> Reply:
        content_type = JSON
        if faults.garbage:
            body, content_type = GARBAGE, HTML
        elif faults.badjson:
            body = BAD_JSON
        else:
            body = msgspec.json.encode(document)
            body = padded(body, faults.size) if faults.size else body
        body = gzip.compress(body, mtime=0) if faults.gzip else body
        headers = self._headers(faults, content_type)
        headers.append((b"content-length", b"%d" % len(body)))
        return Reply(status, headers, body, faults=faults, seen=seen)

    def _headers(self, faults: Faults, *first: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        self._answered += 1
        headers = [*first, (b"x-mock-name", self._name.encode()), (b"x-request-id", b"mock-%d" % self._answered)]
        if faults is NONE:
            return headers
        if faults.retry_after is not None:
            headers.append((b"retry-after", b"%d" % faults.retry_after))
        if faults.gzip:
            headers.append((b"content-encoding", b"gzip"))
        if faults.forge:
            headers += FORGED
        headers += [(b"x-mock-extra-%d" % index, b"%d" % index) for index in range(faults.headers)]
        return headers

    # What tests ask the mock itself.

    def _own(self, method: str, path: str, query: str, body: bytes) -> Reply:
        match method, path:
            case "GET", "/healthz":
                return self._reply({"status": "ok", "name": self._name})
            case "GET", "/requests" if query == "count":
                return self._reply({"count": self._total})
            case "GET", "/requests":
                return self._reply([seen.shown() for seen in self._log])
            case "PUT", "/control":
                return self._control(body)
            case "DELETE", "/control":
                self.clear()
                return self._reply({"fault": ""})
            case _:
                return self.refuse(Refused(405, f"{path} does not take {method}.", code="method_not_allowed"))

    def _control(self, body: bytes) -> Reply:
        document = _json_or_none(body)
        fault = document.get("fault") if isinstance(document, dict) else None
        if not isinstance(fault, str):
            return self.refuse(Refused(400, 'Send JSON such as {"fault": "status=503"}.', param="fault"))
        try:
            self._fault = parse(fault)
        except FaultError as error:
            return self.refuse(Refused(400, str(error), param="fault", code="unknown_fault"))
        self._fault_total = 0
        return self._reply({"fault": fault})


def _accepted(key: str) -> dict[bytes, bytes]:
    raw = key.encode()
    return {b"authorization": b"Bearer " + raw, b"x-api-key": raw, b"api-key": raw}


def _json_or_none(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decoded(body: bytes) -> Json:
    document = _json_or_none(body)
    if not isinstance(document, dict):
        raise Refused(400, "The body is not a JSON object.", code="invalid_json")
    if not isinstance(document.get("model"), str) or not document["model"]:
        raise Refused(400, "You must provide a model parameter.", param="model")
    return document


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12).hexdigest()


def _listing(method: str, path: str, *, known: bool) -> Json:
    """Answer the GET endpoints, and refuse what is left."""
    is_model = path.startswith("/v1/models/") and path != "/v1/models/"
    if not known and not is_model and path != "/v1/models":
        raise Refused(404, f"Invalid URL ({method} {path})", code="unknown_url")
    if known or method != "GET":
        raise Refused(405, f"Not allowed to {method} on {path}.", code="method_not_allowed")
    return answers.model(unquote(path.removeprefix("/v1/models/"))) if is_model else answers.models()


class Connection(asyncio.Protocol):
    """One connection: request after request, each answered at once or by a task."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._mock = server.mock
        self._limit = server.body_limit
        self._http = _reader()
        self._transport: asyncio.Transport
        self._request: h11.Request | None = None
        self._keep_alive = True
        self._chunked = True
        self._body: list[bytes] = []
        self._received = 0
        self._playing: asyncio.Task[None] | None = None
        self._seen: Seen | None = None  # of the answer being played
        self._closing = False  # by us: what still arrives is thrown away
        self._writable = asyncio.Event()
        self._writable.set()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._server.connections.add(self)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._seen is not None and not self._closing:
            self._seen.aborted = True
        if self._playing is not None:
            self._playing.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._http.receive_data(data)
        if self._playing is None:
            self._advance()
        elif len(self._http.trailing_data[0]) > PIPELINED:
            self.abort()

    # Requests.

    def _advance(self) -> None:
        """Go on until more bytes are needed or an answer takes time."""
        while not self._closing and self._playing is None:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._reject(Refused(error.error_status_hint, f"Bad request: {error}"))
                return
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data):
                self._collect(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
            else:  # more data is needed
                return

    def _begin(self, request: h11.Request) -> None:
        self._request, self._body, self._received = request, [], 0
        self._chunked = request.http_version == b"1.1"
        self._keep_alive = self._chunked and not any(
            name == b"connection" and b"close" in value.lower() for name, value in request.headers
        )
        declared = next((value for name, value in request.headers if name == b"content-length"), b"0")
        if int(declared) > self._limit:
            self._reject(Refused(413, f"The body is larger than {self._limit} bytes.", code="body_too_large"))
        elif self._http.they_are_waiting_for_100_continue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _collect(self, data: bytes) -> None:
        self._received += len(data)
        self._body.append(data)
        if self._received > self._limit:
            self._body.clear()
            self._reject(Refused(413, f"The body is larger than {self._limit} bytes.", code="body_too_large"))

    def _reject(self, refused: Refused) -> None:
        """Refuse what cannot be read to its end; then wait a little, as closing at once would destroy the answer."""
        self._closing = True
        self._keep_alive = False
        reply = self._mock.refuse(refused)
        self._transport.write(self._head(reply) + reply.body)
        self._server.loop.call_later(LINGER, self._transport.close)

    def _answer(self) -> None:
        assert self._request is not None
        reply = self._mock.handle(self._request, b"".join(self._body))
        self._body = []
        if reply.at_once and self._writable.is_set():
            self._transport.write(self._head(reply) + self._body_of(reply))
            self._finish()
        else:
            self._seen = reply.seen
            self._playing = self._server.loop.create_task(self._play(reply))

    def _finish(self) -> None:
        self._seen = None
        if not self._keep_alive:
            self._close()
            return
        already_received = self._http.trailing_data[0]
        self._http = _reader()
        if already_received:
            self._http.receive_data(already_received)

    # Answers.

    def _head(self, reply: Reply) -> bytes:
        lines = [STATUS_LINES[reply.status], *[b"%s: %s\r\n" % header for header in reply.headers]]
        if reply.events is not None and self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self._keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _body_of(self, reply: Reply) -> bytes:
        return b"" if self._request is not None and self._request.method == b"HEAD" else reply.body

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data

    async def _play(self, reply: Reply) -> None:
        faults = reply.faults
        if faults.hang:
            await self._server.loop.create_future()
        await asyncio.sleep(faults.delay)
        if faults.reset == 0:
            self._reset()
            return
        left_open = await (self._play_whole(reply) if reply.events is None else self._play_events(reply, reply.events))
        if left_open:
            await self._writable.wait()
            self._playing = None
            self._finish()
            self._advance()

    async def _play_whole(self, reply: Reply) -> bool:
        data = self._head(reply) + self._body_of(reply)
        faults = reply.faults
        if not faults.pause and faults.cut is None and faults.reset is None:
            self._transport.write(data)
            return True
        middle = len(data) - len(reply.body) // 2
        self._transport.write(data[:middle])
        await asyncio.sleep(faults.pause)
        if await self._broken_off(faults):
            return False
        self._transport.write(data[middle:])
        return True

    async def _play_events(self, reply: Reply, events: Iterator[bytes]) -> bool:
        faults, seen = reply.faults, reply.seen
        assert seen is not None
        compressor = zlib.compressobj(wbits=31) if faults.gzip else None
        breaks_off = faults.reset if faults.cut is None else faults.cut
        self._transport.write(self._head(reply))
        for number, event in enumerate(events):
            if number == breaks_off and await self._broken_off(faults):
                return False
            if number:
                await asyncio.sleep(faults.pace)  # also without a pace: every event is a write of its own
            if faults.pause and number == reply.length // 2:
                await asyncio.sleep(faults.pause)
            data = event
            if compressor is not None:
                data = compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH)
            if "split" in faults.sse:
                await self._write_bytewise(data)
            else:
                self._transport.write(self._chunk(data))
            seen.events += 1
            await self._writable.wait()
        if await self._broken_off(faults):  # asked for after more events than there were
            return False
        last = self._chunk(compressor.flush()) if compressor is not None else b""
        self._transport.write(last + (b"0\r\n\r\n" if self._chunked else b""))
        if faults.errorevent is not None:
            self._close()
            return False
        return True

    async def _write_bytewise(self, data: bytes) -> None:
        for at in range(len(data)):
            self._transport.write(self._chunk(data[at : at + 1]))
            await asyncio.sleep(0)

    # Ends.

    async def _broken_off(self, faults: Faults) -> bool:
        if faults.cut is None and faults.reset is None:
            return False
        await asyncio.sleep(0.01)  # what was sent is read before the connection breaks
        if faults.cut is not None:
            self._close()
        else:
            self._reset()
        return True

    def _close(self) -> None:
        self._closing = True
        self._transport.close()

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.abort()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()


def _reader() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_LIMIT)


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
