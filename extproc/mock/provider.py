"""What the mock provider answers, and what it remembers of what it was asked. It does no I/O."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any
from urllib.parse import unquote

import h11
import msgspec

from extproc.mock import Options, answers, models
from extproc.mock.answers import Json, Question, Refused
from extproc.mock.credentials import Asked, Keys
from extproc.mock.endpoints import Endpoint
from extproc.mock.faults import NO_PLAN, NONE, FaultError, Faults, of_model, padded, parse
from extproc.mock.framings import FRAMINGS
from extproc.mock.routes import OPENAI, find

LOGGED_BODY = 64 * 2**10  # a larger body is kept as its length only
COUNTED_MODELS = 1000  # models with every= or first= whose requests are counted
AT_ONCE = 32 * 2**10  # a body up to this size fits the socket buffer: there is nothing to wait for

JSON = (b"content-type", b"application/json")
HTML = (b"content-type", b"text/html; charset=utf-8")
FORGED = ((b"x-extproc-origin", b"hop"), (b"x-ai-provider", b"forged"), (b"x-envoy-overloaded", b"true"))
GARBAGE = b"<!doctype html><html><body><h1>It works!</h1></body></html>\n"
BAD_JSON = b'{"id":"chatcmpl-mock","object":"chat.completion","choices":[{"index":0,"message":{"role":"assi'

OWN_PATHS = frozenset({"/healthz", "/requests", "/control"})  # not the provider's: no faults, no key, not in the log
AWS_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


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
    dialect: str = ""
    model: str = ""

    def shown(self) -> Json:
        return {
            "method": self.method,
            "path": self.path,
            "dialect": self.dialect,
            "model": self.model,
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
        self._keys = Keys(options.api_key, _aws_secrets())
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
        reply = self._serve(seen, Asked(method, path, query, request.headers, body))
        seen.status = reply.status
        return reply

    # The provider's own API.

    def _serve(self, seen: Seen, asked: Asked) -> Reply:
        endpoint, model = find(asked.path)
        seen.dialect = endpoint.dialect.name if endpoint else OPENAI.name
        self._fault_total += 1
        values = self._fault.due(self._fault_total)
        faults = Faults(**values) if values else NONE
        dialect = endpoint.dialect if endpoint else OPENAI
        try:
            document = _decoded(asked.body, model) if endpoint and seen.method == "POST" else None
            if document is not None:
                seen.model = model or document["model"]
                if "+" in seen.model:
                    faults = replace(faults, **self._of_model(seen.model))
            if faults.status is not None:
                raise Refused(faults.status, f"A fault was asked for: status={faults.status}.", code="mock_fault")
            dialect.admit(self._keys, asked)
            if endpoint is None or document is None:
                return self._reply(_listing(seen.method, asked.path, known=endpoint is not None), seen, faults)
            digest = _digest(asked.body)
            question = Question(document, digest, self._name, faults, seen.model, asked.headers, asked.query)
            return self._answer(endpoint, question, seen)
        except RecursionError:
            refused = Refused(400, "The JSON is nested too deeply.", code="invalid_json")
            return self._reply(dialect.error(refused), seen, faults, 400, dialect.error_headers(refused))
        except Refused as refused:
            return self._reply(dialect.error(refused), seen, faults, refused.status, dialect.error_headers(refused))

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

    def _answer(self, endpoint: Endpoint, question: Question, seen: Seen) -> Reply:
        answer = endpoint.answer(question)
        faults = question.faults
        if answer.events is None or faults.garbage or faults.badjson:
            return self._reply(answer.document, seen, faults)
        events, length = answer.events, answer.length
        if faults.errorevent is not None:
            refused = Refused(500, "A fault was asked for: errorevent.", code="mock_fault")
            failure = endpoint.dialect.failure(refused, faults.errorevent)
            events = chain(islice(events, faults.errorevent), [failure])
        framing = FRAMINGS[answer.framing]
        headers = self._headers(faults, *framing.headers)
        return Reply(200, headers, events=framing.frame(events, faults), length=length, faults=faults, seen=seen)

    def _reply(
        self,
        document: Any,
        seen: Seen | None = None,
        faults: Faults = NONE,
        status: int = 200,
        more: Iterable[tuple[bytes, bytes]] = (),
    ) -> Reply:
        content_type = JSON
        if faults.garbage:
            body, content_type = GARBAGE, HTML
        elif faults.badjson:
            body = BAD_JSON
        else:
            body = msgspec.json.encode(document)
            body = padded(body, faults.size) if faults.size else body
        body = gzip.compress(body, mtime=0) if faults.gzip else body
        headers = self._headers(faults, content_type, *more)
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


def _aws_secrets() -> dict[str, str]:
    found = {name: os.environ[name] for name in AWS_SECRETS if os.environ.get(name)}
    return found if "AWS_SECRET_ACCESS_KEY" in found else {}


def _json_or_none(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decoded(body: bytes, model: str) -> Json:
    """The body, which has to name the model where the path does not."""
    document = _json_or_none(body)
    if not isinstance(document, dict):
        raise Refused(400, "The body is not a JSON object.", code="invalid_json")
    if not model and (not isinstance(document.get("model"), str) or not document["model"]):
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
    return models.model(unquote(path.removeprefix("/v1/models/"))) if is_model else models.models()
