"""The way of a request through the gateway: `extproc check --explain`.

The gateway's own stages run on a real exchange, with empty counters and an empty history, so the explanation shows what
they do. The packages of the stages explain what their stages wrote (`routing/explain.py`, `guardrails/_explain.py`,
`money/budgets/explain.py`, `cache/stages.py`). The counts and findings of the running gateway are not known.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from extproc.access.auth import Authenticate, Authorize, KeySettings
from extproc.cache.stages import explain as cached
from extproc.exchange.parsing import Parse
from extproc.exchange.pipeline import build
from extproc.exchange.services import Services
from extproc.guardrails import GuardInput
from extproc.guardrails._explain import explain_guardrails, shown_place, unasked
from extproc.money.budgets import Reserve, estimate
from extproc.money.budgets.explain import explain_output, explain_reservation
from extproc.money.budgets.stages import downgrades
from extproc.operate.telemetry.metrics import Telemetry
from extproc.routing.catalog import Route
from extproc.routing.explain import RoutingExplained, edits_of
from extproc.routing.history import History
from extproc.routing.pools.explain import explain_endpoints, idle_pools
from extproc.routing.pools.pool import PLACED, Pool
from extproc.routing.selection import Select
from extproc.settings.config import Settings
from extproc.stores.memory import MemoryCounters
from extproc.words import contract
from extproc.words.errors import Refusal
from extproc.words.exchange import ClientRequest, Exchange, RequestHead
from extproc.words.values import Secret

_LABEL_WIDTH = 11
_ANONYMOUS = "anonymous"

_Row = tuple[str, str]
"""A row of the explanation: a label and a text."""


@dataclass(slots=True, frozen=True)
class ExplainedRequest:
    """A request to explain: of a named consumer, with a gateway key, or without a credential."""

    body: bytes
    path: str = "/v1/chat/completions"
    consumer: str | None = None
    key: str | None = field(default=None, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    attached: bool = False  # True: in attach mode


@dataclass(slots=True, frozen=True)
class Explanation:
    lines: Sequence[str]
    forwarded: bool  # False: the request is refused


async def explain(settings: Settings, question: ExplainedRequest) -> Explanation:
    """Run the stages on the request. Raises ValueError when the consumer is missing or unknown."""
    posed, headers = _with_credential(settings, question)
    posed = posed.model_copy(update={"guardrails": [unasked(entry) for entry in posed.guardrails]})
    notes = _StageNotes(posed)
    services = Services(MemoryCounters(), notes)
    services.history = _EmptyHistory()
    services.pools |= idle_pools(posed.providers)
    pipeline = build(posed, services)
    request = RequestHead("POST", question.path, headers)
    exchange = Exchange("explained", ClientRequest(request), attached=question.attached)
    refusal: Refusal | None = None
    try:
        await pipeline.on_headers(exchange)
        exchange.request.body = question.body
        await pipeline.on_request(exchange)
    except Refusal as error:
        refusal = error
    explained = _Explained(settings, question, exchange, notes.stages, services.pools, refusal)
    verdicts: Sequence[str] = ()
    if explained.reached(GuardInput):
        around, also = settings.around_guardrails, downgrades(settings, pipeline.catalog)
        verdicts = await explain_guardrails(settings.guardrails, around, exchange, question.body, also)
    return Explanation(list(_lines(explained.rows(verdicts))), refusal is None)


@dataclass(slots=True, frozen=True)
class _Explained:
    """An exchange whose request has passed `stages`, or was refused by the last of them."""

    settings: Settings
    question: ExplainedRequest
    exchange: Exchange
    stages: Sequence[str]
    pools: Mapping[str, Pool]
    refusal: Refusal | None

    @property
    def routing(self) -> RoutingExplained:
        return RoutingExplained(self.settings.virtual_models, self.exchange)

    def reached(self, stage: type) -> bool:
        return stage.__name__ in self.stages

    def passed(self, stage: type) -> bool:
        return self.reached(stage) and (self.refusal is None or stage.__name__ != self.stages[-1])

    def rows(self, verdicts: Sequence[str]) -> Iterator[_Row]:
        yield "request", self._request()
        if self.passed(Authenticate):
            yield from self._consumer()
        if self.passed(Route):
            yield from (("strategy", text) for text in self.routing.strategies())
            yield from self.routing.targets(selected=self.passed(Select), forwarded=self.refusal is None)
            yield from (("endpoint", text) for text in explain_endpoints(self.pools, self.exchange))
        if self.reached(GuardInput):
            yield from (("guardrails", verdict) for verdict in verdicts or ["none"])
            if self.settings.cache.rules:
                yield "cache", cached(self.settings.cache, self.settings.providers, self.exchange)
        if self.passed(Reserve):
            yield from (("budgets", text) for text in explain_reservation(self.exchange.money.reservation))
            yield from (("output", text) for text in explain_output(self.exchange))
        if self.refusal is None:
            yield from (("envoy", text) for text in self._envoy())
            targets = self.exchange.route.targets
            yield "answer", f"forwarded to {targets[0].provider}{' first' if len(targets) > 1 else ''}"
        else:
            kind, message = self.refusal.kind, self.refusal.message
            if not self.passed(GuardInput) and (where := self.refusal.param):
                message = message.replace(where, shown_place(where, self.settings.guardrails))
            yield "answer", f"{kind.status} {kind.code}: {message} (stage {self.stages[-1]})"
        yield from (("not known", note) for note in self._notes())

    def _request(self) -> str:
        if not self.passed(Parse):
            return f"{self.question.path[:256]}, {len(self.question.body)} bytes"
        exchange, ask = self.exchange, self.exchange.request.ask
        parts = [
            ask.model[:256],
            exchange.request.operation,
            "streamed" if ask.stream else "plain",
            f"about {estimate(len(exchange.request.body) - ask.image_bytes - ask.file_bytes)} input tokens",
            f"images: {ask.images}" if ask.images else "",
            "" if ask.max_output_tokens is None else f"at most {ask.max_output_tokens} output tokens",
            f"{ask.choices} choices" if ask.choices > 1 else "",
            f"needs {' and '.join(ask.needs)}" if ask.needs else "",
        ]
        return ", ".join(filter(None, parts))

    def _consumer(self) -> Iterator[_Row]:
        who = self.exchange.consumer
        text = f"{who.name} of team {who.team}" if who.team else who.name
        if self.reached(Authorize):
            text += ": may use it" if self.passed(Authorize) else ": may not use it"
        yield "consumer", text
        if any(entry.name == who.name and not entry.can_enter for entry in self.settings.consumers):
            yield "consumer", "it has no credential in the settings: no request can come from it"
        if self.exchange.money.labels:
            yield "labels", ", ".join(f"{name}={value}" for name, value in self.exchange.money.labels.items())

    def _envoy(self) -> Iterator[str]:
        exchange, onward = self.exchange, self.exchange.route.onward
        if exchange.attached:
            where = onward.set_headers[contract.PROVIDER]
            yield f"your own routes go by {contract.PROVIDER}: {where}; they decide about tries and timeouts"
        else:
            yield from self._hops(onward.set_headers)
        yield f"the body leaves {'as the client sent it' if onward.body is None else 'changed'}"
        edits = enumerate(edits_of(exchange), 1)
        late = [str(index) for index, edit in edits if edit.fields or edit.removed or edit.service]
        if late:
            yield f"the attempt attachment changes the body of try {', '.join(late)}"
        if onward.remove_headers:
            yield f"takes off {', '.join(onward.remove_headers)}"

    def _hops(self, headers: Mapping[str, str]) -> Iterator[str]:
        exchange = self.exchange
        clusters = ", then ".join(dict.fromkeys(exchange.route.onward.order))
        tries = 1 + int(headers.get("x-envoy-max-retries", "0"))
        if tries == 1:
            yield f"one try, at cluster {clusters}"
        else:
            yield f"up to {tries} tries, at clusters {clusters}"
            yield f"moves on at {', '.join(exchange.route.chain.retry.on) or 'nothing'}"
        seconds = int(headers[contract.TIMEOUT]) / 1000
        yield f"a {'streamed' if exchange.request.ask.stream else 'plain'} answer must begin within {seconds:g} s"
        for name in dict.fromkeys(target.provider for target in exchange.route.targets):
            if (timeout := self.settings.providers[name].timeout) < seconds:
                yield f"that of provider {name} within {timeout:g} s, its timeout"
        if (wait := headers.get(contract.BACK_OFF)) is not None:
            yield f"about {wait} ms before a second try in a row at one target, doubled for each further"

    def _notes(self) -> Iterator[str]:
        exchange = self.exchange
        yield "counts and findings of the running gateway: here budgets begin at zero, no target is cooling down"
        if any(skip.reason == "no_key" for skip in exchange.route.skipped):
            yield "the gateway's environment: keys were read from this command's"
        if self.passed(Select):
            if PLACED in self.exchange.features:
                yield "load and caches of the servers of pools: here all are idle, and names are not looked up"
            yield from self.routing.unknowns(by_name=self.question.consumer is not None)


def _lines(rows: Iterator[_Row]) -> Iterator[str]:
    before = ""
    for label, text in rows:
        line = f"{label if label != before else '':<{_LABEL_WIDTH}}{text}".rstrip()
        before = label
        yield "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


# --- stand-ins for the client and for the running gateway


class _StageNotes(Telemetry):
    """Notes the stages that ran."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, lambda _line: None)
        self.stages: list[str] = []

    def stage(self, name: str) -> Callable[[float], None]:
        return lambda _seconds: self.stages.append(name)


class _EmptyHistory(History):
    """A history that stays empty and does not note this request either."""

    def chosen(self, deployment: str, size: int, *, streamed: bool, consumer: str = "") -> None:
        """Do not note the request."""


class _HeldSecret(Secret):
    """A secret that is made here, not read."""

    __slots__ = ()

    def read(self) -> str | None:
        return self.where


class _PosedKey(KeySettings):
    @property
    def secret(self) -> Secret | None:
        return _HeldSecret("env", self.env or "")


def _with_credential(settings: Settings, question: ExplainedRequest) -> tuple[Settings, Mapping[str, str]]:
    """Settings in which the named consumer has a newly made key, and the headers of the request."""
    headers = {settings.attribution.prefix + name.lower(): value for name, value in question.labels.items()}
    name, key = question.consumer, question.key
    if (name is None and key is None) or name == _ANONYMOUS:
        if settings.auth.required:
            raise ValueError("auth.required is on: name a consumer with --consumer NAME or --key env:NAME")
    elif name is not None:
        names = [entry.name for entry in settings.consumers]
        if name not in names:
            raise ValueError(f"there is no consumer {name!r}; there are {', '.join(names) or 'none'}")
        key = secrets.token_urlsafe(32)
        keys = [_PosedKey.model_construct(env=key)]
        consumers = [
            entry.model_copy(update={"keys": keys}) if entry.name == name else entry for entry in settings.consumers
        ]
        settings = settings.model_copy(update={"consumers": consumers})
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return settings, headers
