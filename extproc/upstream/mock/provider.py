"""The mock provider without its sockets: the answer to each request, and the log of requests."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import h11
import msgspec

from extproc.upstream.mock import apis, mcp
from extproc.upstream.mock.endpoints import Headers, Json, MockAnswer, MockEndpoint, Options, Question, Refused, error
from extproc.upstream.mock.faults import NONE, FaultError, FaultPlan, Faults, of_model, parse

LOGGED_BODY = 64 * 2**10  # a larger body is kept as its length only
AT_ONCE = 32 * 2**10  # a body up to this size fits the socket buffer: there is nothing to wait for
JSON = ((b"content-type", b"application/json"),)
OWN_PATHS = frozenset({"/healthz", "/requests", "/control"})  # the mock's own paths: no faults, no key, not in the log


@dataclass(slots=True)
class Logged:
    """A request in the log, and the end of its answer."""

    method: str
    path: str
    headers: Headers
    body: bytes
    body_length: int
    status: int = 0
    events: int = 0
    aborted: bool = False  # True: the client left before the end of the answer
    dialect: str = "openai"
    model: str = ""

    def shown(self) -> Json:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]
        shown = {name: getattr(self, name) for name in self.__slots__}
        return shown | {"headers": headers, "body": _json_or_none(self.body)}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer for a connection to play. Without `events`, which are framed already, the body is sent whole."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    events: Iterator[bytes] | None = None
    length: int = 0  # number of events
    faults: Faults = NONE
    seen: Logged | None = None

    @property
    def at_once(self) -> bool:
        faults = self.faults
        waits = faults.delay or faults.hang or faults.pause or faults.cut is not None or faults.reset is not None
        return self.events is None and not waits and len(self.body) <= AT_ONCE


class Mock:
    """One provider: its settings, its fault of the moment, and the log of its requests."""

    none = NONE
    speaks = ", ".join((*(path for each in apis.SERVED for path in each.endpoints.paths), "/v1/models", mcp.PATH))
    parse: Callable[[str], FaultPlan] = staticmethod(parse)

    def __init__(self, options: Options) -> None:
        self._name = options.name
        self._key = (options.api_key or "").encode()
        self._log: deque[Logged] = deque(maxlen=options.log_size)
        self._answered = 0  # number of the latest x-request-id, never reset
        self.clear()
        self._fault = self.parse(options.fault)

    def clear(self) -> None:
        """Forget the log, the counters and the fault."""
        self._log.clear()
        self._by_model: Counter[str] = Counter()  # requests for models with every= or first=
        self._total = self._fault_total = 0
        self._fault, self._poisoned = self.parse(""), False

    def refuse(self, refused: Refused) -> Reply:
        """The answer to bytes that are no valid request."""
        return self._reply(error(refused), status=refused.status)

    def handle(self, request: h11.Request, body: bytes) -> Reply:
        method, target = request.method.decode(), request.target.decode("latin-1")
        path, _, query = target.partition("?")
        if path in OWN_PATHS:
            return self._own(method, path, query, body)
        seen = Logged(method, target, request.headers, body if len(body) <= LOGGED_BODY else b"", len(body))
        self._total += 1
        self._log.append(seen)
        reply = self._serve(seen, path, query, body)
        seen.status = reply.status
        return reply

    # --- the provider's API

    def _find(self, path: str) -> tuple[MockEndpoint | None, str]:
        """The endpoint of a path, and the model that the path names."""
        return apis.find(path)

    def _serve(self, seen: Logged, path: str, query: str, body: bytes) -> Reply:
        endpoint, model = self._find(path)
        seen.dialect = endpoint.dialect if endpoint else seen.dialect
        self._fault_total += 1
        faults = replace(self.none, **self._fault.due(self._fault_total))
        try:
            document = self._document(seen, body, model) if endpoint and seen.method == "POST" else None
            if document is not None:
                seen.model = model or document["model"]
                faults = replace(faults, **self._of_model(seen.model)) if "+" in seen.model else faults
            if faults.status is not None:
                raise Refused(faults.status, f"A fault was asked for: status={faults.status}.", code="mock_fault")
            self._admit(seen, body)
            if path == mcp.PATH:
                return self._mcp(seen, query, body, faults)
            if endpoint is None or document is None:
                return self._reply(self._listing(seen.method, path, known=endpoint is not None), seen, faults)
            digest = hashlib.blake2b(body, digest_size=12).hexdigest()
            question = Question(document, digest, self._name, faults, seen.model, seen.headers, query)
            return self._play(endpoint.answer(question), seen, faults)
        except (Refused, RecursionError) as wrong:
            nested = Refused(400, "The JSON is nested too deeply.", code="invalid_json")
            refused = wrong if isinstance(wrong, Refused) else nested
            told, more = endpoint.error(refused) if endpoint else (error(refused), ())
            return self._reply(told, seen, faults, refused.status, more)

    def _document(self, _seen: Logged, body: bytes, model: str) -> Json:
        """The body, which has to name the model where the path does not."""
        document = _json_or_none(body)
        if not isinstance(document, dict):
            raise Refused(400, "The body is not a JSON object.", code="invalid_json")
        if not model and (not isinstance(document.get("model"), str) or not document["model"]):
            raise Refused(400, "You must provide a model parameter.", param="model")
        return document

    def _of_model(self, model: str) -> Mapping[str, Any]:
        try:
            plan = of_model(model, self.parse)
        except FaultError as wrong:
            raise Refused(400, str(wrong), param="model", code="unknown_fault") from None
        self._by_model[model] += plan.counts
        return plan.due(self._by_model[model])

    def _admit(self, seen: Logged, _body: bytes) -> None:
        """Refuse a request without the key, in any of the headers that services of these APIs take."""
        wanted = dict.fromkeys((b"x-api-key", b"api-key", b"x-goog-api-key"), self._key)
        wanted[b"authorization"] = b"Bearer " + self._key
        if self._key and not any(wanted.get(name) == value for name, value in seen.headers):
            raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")

    def _listing(self, method: str, path: str, *, known: bool) -> Json:
        """Answer the GET endpoints, and refuse the rest."""
        listing, name = path == "/v1/models", unquote(path.removeprefix("/v1/models/"))
        if not known and not listing and name in ("", path):
            raise Refused(404, f"The mock provider speaks {self.speaks}; not {method} {path}.", code="unknown_url")
        if known or method != "GET":
            raise Refused(405, f"Not allowed to {method} on {path}.", code="method_not_allowed")
        return apis.models() if listing else apis.model(name)

    def _mcp(self, seen: Logged, query: str, body: bytes, faults: Faults) -> Reply:
        seen.dialect = "mcp"
        told = mcp.handle(seen.method, query, seen.headers, body, faults, poisoned=self._poisoned)
        headers = self._headers(faults, told.headers)
        return Reply(told.status, headers, told.body, told.events, told.length, told.faults or faults, seen)

    def _play(self, answer: MockAnswer, seen: Logged, faults: Faults) -> Reply:
        if answer.events is None:
            return self._reply(answer.document, seen, faults, more=answer.headers)
        headers = self._headers(faults, answer.headers)
        return Reply(200, headers, events=answer.events, length=answer.length, faults=faults, seen=seen)

    def _reply(
        self, document: Any, seen: Logged | None = None, faults: Faults = NONE, status: int = 200, more: Headers = ()
    ) -> Reply:
        content_type, body = self._written(document, faults)
        headers = self._headers(faults, (*content_type, *more))
        headers.append((b"content-length", b"%d" % len(body)))
        return Reply(status, headers, body, faults=faults, seen=seen)

    def _written(self, document: Any, _faults: Faults) -> tuple[Headers, bytes]:
        return JSON, msgspec.json.encode(document)

    def _headers(self, faults: Faults, first: Headers) -> list[tuple[bytes, bytes]]:
        self._answered += 1
        headers = [*first, (b"x-mock-name", self._name.encode()), (b"x-request-id", b"mock-%d" % self._answered)]
        if faults.retry_after is not None:
            headers.append((b"retry-after", b"%d" % faults.retry_after))
        return headers

    # --- the mock's own API

    def _own(self, method: str, path: str, query: str, body: bytes) -> Reply:
        match method, path:
            case "GET", "/healthz":
                return self._reply({"status": "ok", "name": self._name})
            case "GET", "/requests":
                return self._reply({"count": self._total} if query == "count" else [seen.shown() for seen in self._log])
            case "PUT", "/control":
                return self._control(_json_or_none(body))
            case "DELETE", "/control":
                self.clear()
                return self._reply({"fault": ""})
        return self.refuse(Refused(405, f"{path} does not take {method}.", code="method_not_allowed"))

    def _control(self, wanted: Any) -> Reply:
        if isinstance(wanted, dict) and isinstance(wanted.get("poisoned"), bool):
            self._poisoned = wanted["poisoned"]
            return self._reply({"poisoned": self._poisoned})
        fault = wanted.get("fault") if isinstance(wanted, dict) else None
        if not isinstance(fault, str):
            return self.refuse(Refused(400, 'Send JSON such as {"fault": "status=503"}.', param="fault"))
        try:
            self._fault, self._fault_total = self.parse(fault), 0
        except FaultError as wrong:
            return self.refuse(Refused(400, str(wrong), param="fault", code="unknown_fault"))
        return self._reply({"fault": fault})


def _json_or_none(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
