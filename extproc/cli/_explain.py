"""The way of a request through the gateway: `extproc check --explain`.

The gateway's own stages run on a real exchange, with counters and a history that begin empty, so the explanation is
what they do. The counts and findings of the running gateway are not known.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from extproc.access.auth import Authenticate, Authorize, KeySettings
from extproc.cache.stages import explain as cached
from extproc.exchange.parsing import Parse
from extproc.exchange.pipeline import build
from extproc.exchange.services import Services
from extproc.exchange.unread.choice import WhyRead
from extproc.guardrails import (
    AppliesToSettings,
    Detector,
    GuardInput,
    Guardrail,
    GuardrailSettings,
    RemoteSettings,
    apart,
)
from extproc.money.budgets import Reserve, estimate, read_scope
from extproc.money.budgets.stages import downgrades
from extproc.operate.telemetry.metrics import Telemetry
from extproc.routing.catalog import Route
from extproc.routing.history import History
from extproc.routing.selection import Select
from extproc.settings.config import Settings
from extproc.stores.memory import MemoryCounters
from extproc.upstream.providers import kinds
from extproc.wire.framing.patch import decode_fields, patch
from extproc.words import contract
from extproc.words.chain import Branch, Choice
from extproc.words.contract import Edit, Service
from extproc.words.errors import GUARDRAIL_UNAVAILABLE, Refusal
from extproc.words.exchange import ClientRequest, Exchange, Findings, RequestHead, Target
from extproc.words.values import Secret

_LABEL_WIDTH = 11
_ANONYMOUS = "anonymous"

_NOTES: Mapping[str, str] = {
    "weighted": "the draw: each request that is not sticky is given an order of its own, this is one of them",
    "latency": "how fast targets are: nothing is measured here",
}


_Row = tuple[str, str]
"""A label and a text."""


@dataclass(slots=True, frozen=True)
class Question:
    """A request to explain, of a named consumer, or with a gateway key. Neither: without a credential."""

    body: bytes
    path: str = "/v1/chat/completions"
    consumer: str | None = None
    key: str | None = field(default=None, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    attached: bool = False  # True: an Envoy of another team


@dataclass(slots=True, frozen=True)
class Explanation:
    lines: Sequence[str]
    forwarded: bool  # False: the request is refused


async def explain(settings: Settings, question: Question) -> Explanation:
    """Run the stages on the request. Raises ValueError when the consumer is missing or unknown."""
    posed, headers = _with_credential(settings, question)
    posed = posed.model_copy(update={"guardrails": [_unasked(entry) for entry in posed.guardrails]})
    witness = _Witness(posed)
    services = Services(MemoryCounters(), witness)
    services.history = _EmptyHistory()
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
    story = _Story(settings, question, exchange, witness.stages, refusal, pipeline.why_read)
    guardrails = settings.guardrails if story.reached(GuardInput) else ()
    around, also = settings.around_guardrails, downgrades(settings, pipeline.catalog)
    met = GuardInput(settings.guardrails, lambda _verdict: None, also=also, around=around)
    names: set[str] = set()
    if guardrails:
        with suppress(Refusal):  # the request names a guardrail that there is not: the answer says so
            names = {guard.name for guard in met.chosen(exchange)}
    verdicts = [await _verdict(entry, exchange, question.body, settings, names) for entry in guardrails]
    return Explanation(list(_lines(story.rows(verdicts))), refusal is None)


class _Unasked(GuardrailSettings):
    """Stands for a guardrail that asks a service: an explanation sends no text anywhere."""

    def build(self) -> Guardrail:
        return Guardrail()  # finds nothing


def _unasked(entry: GuardrailSettings) -> GuardrailSettings:
    if not isinstance(entry, RemoteSettings):
        return entry
    return _Unasked.model_construct(**{name: getattr(entry, name) for name in GuardrailSettings.model_fields})


@dataclass(slots=True, frozen=True)
class _Story:
    """An exchange whose request has been through the stages, or was refused by the last of `stages`."""

    settings: Settings
    question: Question
    exchange: Exchange
    stages: Sequence[str]
    refusal: Refusal | None
    why_read: WhyRead

    def reached(self, stage: type) -> bool:
        return stage.__name__ in self.stages

    def passed(self, stage: type) -> bool:
        return self.reached(stage) and (self.refusal is None or stage.__name__ != self.stages[-1])

    def rows(self, verdicts: Sequence[str]) -> Iterator[_Row]:
        yield "request", self._request()
        if self.passed(Authenticate):
            yield from self._consumer()
        if self.passed(Route):
            yield from self._strategies()
            yield from self._targets()
        if self.reached(GuardInput):
            yield from (("guardrails", verdict) for verdict in verdicts or ["none"])
            if self.settings.cache.rules:
                yield "cache", cached(self.settings.cache, self.settings.providers, self.exchange)
        if self.passed(Reserve):
            yield from self._budgets()
            yield from self._output()
        if self.refusal is None:
            yield from (("envoy", text) for text in self._envoy())
            targets = self.exchange.route.targets
            yield "answer", f"forwarded to {targets[0].provider}{' first' if len(targets) > 1 else ''}"
        else:
            kind, message = self.refusal.kind, self.refusal.message
            if not self.passed(GuardInput) and (where := self.refusal.param):
                message = message.replace(where, _where(where, self.settings))
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

    def _strategies(self) -> Iterator[_Row]:
        chain = self.exchange.route.chain
        if chain.root is None:
            yield "strategy", f"none: {chain.name} is one model"
        for depth, name in self._virtuals():
            virtual = self.settings.virtual_models[name]
            sticky = f", sticky by {virtual.sticky.by}" if virtual.sticky else ""
            yield "strategy", f"{'  ' * depth}{name}: {virtual.strategy}{sticky}"

    def _virtuals(self) -> Iterator[tuple[int, str]]:
        """The requested virtual model and those in it, each with its depth."""
        virtual_models = self.settings.virtual_models
        stack = [(0, self.exchange.route.chain.name)] if self.exchange.route.chain.root is not None else []
        while stack:
            depth, name = stack.pop()
            yield depth, name
            below = [target.model for target in virtual_models[name].targets if target.model in virtual_models]
            stack += [(depth + 1, inner) for inner in reversed(below)]

    def _targets(self) -> Iterator[_Row]:
        exchange = self.exchange
        rows = [("skipped", skip.target.name, skip.target.deployment, skip.text) for skip in exchange.route.skipped]
        if self.passed(Select):
            seen = {
                id(target) for target in (*exchange.route.targets, *(skip.target for skip in exchange.route.skipped))
            }
            left = [target for target in exchange.route.chain.targets if seen.isdisjoint(_leaves(target))]
            rows = [*self._tries(left), *rows, *(("not tried", *self._untried(target)) for target in left)]
        names, places = (max((len(row[at]) for row in rows), default=0) for at in (1, 2))
        for label, name, place, text in rows:
            yield label, f"{name:<{names}}  {place:<{places}}  {text}"

    def _tries(self, left: Sequence[Target]) -> Iterator[tuple[str, str, str, str]]:
        exchange, tried = self.exchange, self.exchange.route.targets
        changed = _changed(exchange) if self.refusal is None else [""] * len(tried)
        for index, target in enumerate(tried):
            if index and tried[index - 1] is target:
                texts = ["once more, after a pause"]
            else:
                reasons = list(
                    self._reasons(exchange.route.chain.name, exchange.route.chain.root, target, (*tried, *left))
                )
                texts = [f"{name}: {why}" if len(reasons) > 1 else why for name, why in reasons] + [changed[index]]
            yield "targets", f"{index + 1}. {target.name}", target.deployment, ", ".join(filter(None, texts))

    def _untried(self, target: Target) -> tuple[str, str, str]:
        tried, attempts = self.exchange.route.targets, self.exchange.route.chain.retry.attempts
        same = any(target.name == other.name and target.changes == other.changes for other in tried)
        return target.name, target.deployment, "the same as one above" if same else f"retry.attempts is {attempts}"

    def _reasons(
        self, name: str, branch: Branch | None, target: Target, ordered: Sequence[Target]
    ) -> Iterator[tuple[str, str]]:
        """Each virtual model on the way to the target, and the reason for its place. `ordered` is the order of this
        run: asking the strategies again might give another one.
        """
        entries = zip(branch.below, branch.shares, strict=True) if branch else ()
        for index, (below, (weight, limit)) in enumerate(entries):
            leaves = _leaves(below)
            if branch and id(target) in leaves:
                choice = Choice([other for other in ordered if id(other) in leaves], weight, limit, index)
                yield name, branch.strategy.why(choice, self.exchange)
                if isinstance(below, Branch):
                    inner = self.settings.virtual_models[name].targets[index].model
                    yield from self._reasons(inner, below, target, ordered)

    def _budgets(self) -> Iterator[_Row]:
        reservation = self.exchange.money.reservation
        for claim in (*reservation.claims, *reservation.calls):
            budget, settings = claim.budget, claim.budget.settings
            fields = read_scope(claim.scope)[1].items()
            whose = ", ".join(f"{name}={value}" for name, value in fields) or "shared by all"
            per = {"total": " in all", None: ""}.get(settings.window, f" per {settings.window}")
            held, limit = budget.show(claim.amount), budget.show(budget.limit, unit=True)
            text = f"{settings.name} ({whose}): holds at most {held} of {limit}{per}"
            if settings.reserve == "expected":
                text += ", less once usual lengths are known"
            elif reservation.usual and budget.grows and not budget.strict:
                text += ", the usual output, and more while the answer streams"
            if settings.mode == "shadow":
                text += ", too much" if claim.amount > budget.limit else ""
                text += ", but shadow never refuses"
            elif settings.on_exceed == "downgrade":
                text += f"; without room it goes to {settings.downgrade_to}"
            elif settings.on_exceed == "approval":
                text += "; without room an operator has to grant more"
            yield "budgets", text
        if not reservation.claims and not reservation.calls:
            yield "budgets", "none"

    def _output(self) -> Iterator[_Row]:
        """The limits of the output that the gateway writes, and the lack of one."""
        exchange = self.exchange
        limits = exchange.money.output_limits
        for target, limit in zip(exchange.route.targets, limits, strict=False):
            if limit is not None:
                yield "output", f"{target.name}: capped at {limit} tokens, and the answer says x-ai-capped: {limit}"
        unlimited = exchange.request.ask.output_field is not None and exchange.request.ask.max_output_tokens is None
        if unlimited and not any(limits) and exchange.money.reservation.usual:
            yield "output", "without a limit, as the client sent it"

    def _envoy(self) -> Iterator[str]:
        exchange, onward = self.exchange, self.exchange.route.onward
        if exchange.attached:
            where = onward.set_headers[contract.PROVIDER]
            yield f"your own routes go by {contract.PROVIDER}: {where}; they decide about tries and timeouts"
        else:
            yield from self._hops(onward.set_headers)
        yield f"the body leaves {'as the client sent it' if onward.body is None else 'changed'}"
        edits = enumerate(_edits(exchange), 1)
        late = [str(index) for index, edit in edits if edit.fields or edit.removed or edit.service]
        if late:
            yield f"the attempt attachment changes the body of try {', '.join(late)}"
        if self.why_read.enabled:
            reason = self.why_read(exchange)
            yield (
                f"the answer is read: {reason}"
                if reason
                else "the answer passes unread if it is streamed, see usage.mode"
            )
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
        if not self.passed(Select) or len(exchange.route.chain.targets) - len(exchange.route.skipped) < 2:
            return
        virtuals = [self.settings.virtual_models[name] for _, name in self._virtuals()]
        notes = [_NOTES[virtual.strategy] for virtual in virtuals if virtual.strategy in _NOTES]
        yield from dict.fromkeys(notes)
        if self.question.consumer is not None and any(v.sticky and v.sticky.by == "key" for v in virtuals):
            yield "the key in use: sticky by key is shown for the first one"


async def _verdict(
    guardrail: GuardrailSettings, exchange: Exchange, body: bytes, settings: Settings, met: Collection[str]
) -> str:
    """The verdict of one guardrail on the request, which meets those of the names `met`. It names the place of a
    finding, never its text.
    """
    name = f"{guardrail.name} ({guardrail.kind}, {' and '.join(guardrail.on)}, {guardrail.action})"
    if guardrail.name not in met:
        return f"{name}: does not apply"
    if not {"input", "tool_results"} & {*guardrail.on}:
        return f"{name}: checks the answer"
    if isinstance(guardrail, RemoteSettings):
        return f"{name}: asks {guardrail.asks(settings.around_guardrails)}; not asked here"
    # block makes it tell the place
    alone = guardrail.model_copy(update={"action": "block", "style": "label", "applies_to": AppliesToSettings()})
    bare = apart(exchange)
    bare.findings = Findings()
    bare.request.body = body
    bare.request.json = {
        name: value for name, value in msgspec.json.decode(body).items() if name in exchange.request.json
    }
    try:
        await GuardInput([alone], lambda _verdict: None)(bare)
    except Refusal as refusal:
        if refusal.kind is GUARDRAIL_UNAVAILABLE:
            return f"{name}: fails" + (", so it is refused" if guardrail.failure == "closed" else "")
        where = _where(refusal.param or "", settings)
        if exchange.request.ask.unreadable:
            return f"{name}: cannot read '{where}'" + (
                ", so it is refused" if guardrail.failure == "closed" and guardrail.action in ("block", "mask") else ""
            )
        return f"{name}: finds something in '{where}' and {_EFFECTS[guardrail.action]}"
    return f"{name}: nothing found"


_EFFECTS = {
    "block": "blocks it",
    "mask": "masks it",
    "annotate": "tells the client",
    "audit": "refuses nothing",
}
"""Effects of a finding, by action."""


def _where(path: str, settings: Settings) -> str:
    """A path in the body, unless a guardrail finds something in it: clients choose keys."""
    pieces = (path, *re.split(r"[.\[\]]", path))
    guardrails = [entry.build() for entry in settings.guardrails if not isinstance(entry, RemoteSettings)]
    detectors = [guardrail for guardrail in guardrails if isinstance(guardrail, Detector)]
    hidden = any(True for detector in detectors for piece in pieces for _ in detector.find(piece, "", ""))
    return "…" if hidden else path[:256]


def _leaves(below: Branch | Target) -> set[int]:
    """The id() of each target there, and of the same target adapted to a request."""
    if isinstance(below, Target):
        return {id(below), *map(id, below.adapted.values())}
    return set().union(*map(_leaves, below.below))


def _edits(exchange: Exchange) -> Sequence[Edit]:
    """The changes of each try to the body that leaves."""
    told = exchange.route.onward.set_headers.get(contract.EDITS)
    return [Edit({})] * len(exchange.route.targets) if told is None else contract.decode_edits(told)


def _changed(exchange: Exchange) -> Sequence[str]:
    """The changes each provider gets, except for the model's name: the fields, and plain values."""
    before, onward = decode_fields(exchange.request.body), exchange.route.onward.body
    found = []
    for edit in _edits(exchange):
        after = decode_fields(patch(exchange.request.body if onward is None else onward, edit.fields, edit.removed))
        fields = [name for name, value in after.items() if name != "model" and before.get(name) != value]
        removed = [name for name in before if name not in after]
        texts = [f"sets {', '.join(name + _plain_value(after[name]) for name in fields)}"] if fields else []
        if removed:
            texts.append(f"removes {', '.join(removed)}")
        if edit.service is not None:
            texts.append(f"is made a request of {edit.service.dialect}{_why(edit.service)}")
        found.append(", ".join(texts))
    return found


def _why(service: Service) -> str:
    """Why not of the API that the provider would get first."""
    provider = kinds()[service.kind]
    if service.dialect in provider.prefers and service.dialect == provider.preferred(service.model)[0]:
        return " (it reasons: `api` of the model sets another)"
    return ""


def _plain_value(value: msgspec.Raw) -> str:
    """Numbers, true, false and null; any other value may be long, or text."""
    text = bytes(value)
    return f"={text.decode()}" if len(text) <= 20 and text[:1] not in b'"[{' else ""


def _lines(rows: Iterator[_Row]) -> Iterator[str]:
    before = ""
    for label, text in rows:
        line = f"{label if label != before else '':<{_LABEL_WIDTH}}{text}".rstrip()
        before = label
        yield "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


# --- stand-ins for the client and for the running gateway


class _Witness(Telemetry):
    """Notes the stages that ran."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, lambda _line: None)
        self.stages: list[str] = []

    def stage(self, name: str) -> Callable[[float], None]:
        return lambda _seconds: self.stages.append(name)


class _EmptyHistory(History):
    """A history that is empty and stays so, without a note of this request either."""

    def chosen(self, deployment: str, size: int, *, streamed: bool, consumer: str = "") -> None:
        """Note nothing."""


class _HeldSecret(Secret):
    """A secret made here instead of read from somewhere."""

    __slots__ = ()

    def read(self) -> str | None:
        return self.where


class _PosedKey(KeySettings):
    @property
    def secret(self) -> Secret | None:
        return _HeldSecret("env", self.env or "")


def _with_credential(settings: Settings, question: Question) -> tuple[Settings, Mapping[str, str]]:
    """Settings in which the named consumer has a key that is known here, and the headers of the request."""
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
