"""The stages of the cache, built only if the settings have rules. `stages` also builds the stages of conversations.

LookUp     before Reserve: the kept answer in place of a provider's, or a note to keep the new answer
Keep       the events of an answer, as they came
TellCache  the header for the client
Fill       the answer's place in the store, once it ended well, and the end of the wait of equal requests
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from extproc.access.auth.facts import fact
from extproc.access.kept import Ids
from extproc.cache.answers import Answers
from extproc.cache.batches import Batch, Join, batch_of, parts, whole
from extproc.cache.caching import CACHING, Caching, Outcome
from extproc.cache.conversations import ForgetTurn, GoOn, KeepTurn, KeptTurns
from extproc.cache.entry import Entry
from extproc.cache.forms import in_form, is_whole
from extproc.cache.key import Keys, owner
from extproc.cache.questions import Questions
from extproc.cache.settings import LONGEST_WAIT, THRESHOLD, CacheRuleSettings, CacheSettings, SimilarSettings
from extproc.cache.wish import wish
from extproc.dialects import ENDED, LIMITED
from extproc.exchange.response import Count, HideUsage, Tell
from extproc.exchange.services import Services
from extproc.guardrails import GuardOutput, has_vault
from extproc.routing.catalog import Catalog
from extproc.settings.config import Settings
from extproc.upstream.prices import NANO
from extproc.upstream.providers import ProviderSettings
from extproc.wire.framing import EMPTY, Frame, Framing
from extproc.wire.framing.content_types import framing_for
from extproc.wire.framing.events import Events, EventStage
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.multipart import is_form
from extproc.wire.framing.slices import LARGE
from extproc.wire.framing.sse import SSE
from extproc.words.actions import LocalReply
from extproc.words.contract import CACHE, GUARDRAILS, SIMILARITY, TOLD
from extproc.words.dialect import NATIVE, Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Ending, Exchange, ResponseHead, Target
from extproc.words.values import Pattern, show_duration

if TYPE_CHECKING:
    from extproc.cache.similar.finder import Similar

IGNORED = TOLD + "ignored"
_TOUCHED = ("block", "ask", "mask", "annotate", "failed")
"""Actions of guardrails on an answer after which it is not kept."""
_MOST_EVENT = 64 << 20
"""Most bytes of one event of a kept answer. The answer's size was bounded when it was kept."""


class CacheRule:
    """A rule at work."""

    def __init__(self, settings: CacheRuleSettings) -> None:
        self.settings = settings
        self._match = [(name, Pattern(pattern)) for name, pattern in settings.match.items()]

    def applies(self, exchange: Exchange) -> bool:
        return not self._match or all(matches(_fact(name, exchange)) for name, matches in self._match)


def _fact(name: str, exchange: Exchange) -> str:
    return exchange.route.chain.name if name == "model" else fact(name, exchange)


class LookUp:
    """Answers from the cache. If no answer is kept it writes `caching` for a request whose answer may be kept; without
    `caching` the cache ignores the exchange.

    `count` counts the request in budgets in requests, for a kept answer and the target that once gave it. It raises
    Refusal, and returns False if a budget sends the request to another model. `tell` writes the headers about the
    answer.
    """

    def __init__(
        self,
        settings: CacheSettings,
        answers: Answers,
        providers: Mapping[str, ProviderSettings],
        events: Events,
        count: Callable[[Exchange, Target], Awaitable[bool]],
        *,
        tell: Callable[[Exchange], None],
    ) -> None:
        self._rules = [CacheRule(rule) for rule in settings.rules]
        self._most = settings.max_answer
        self._wait, self._waiting = settings.wait, settings.waiting
        self._semantic = settings.semantic
        self._questions = Questions(settings.semantic.questions)
        self._answers = answers
        self._keys = Keys(answers.secret, providers)
        self._events = events
        self._count = count
        self._tell = tell

    async def __call__(self, exchange: Exchange) -> LocalReply | None:
        rule = self.rule(exchange)
        if rule is None or obstacle(exchange, rule):
            return None
        wanted = wish(exchange.request.head.headers.get(CACHE))
        others = rule.semantic == "enforce" and wanted.word != "exact"
        found = self._keys(exchange, rule.scope, self._questions if others else None)
        if found is None:
            return None
        ttl = rule.ttl if wanted.ttl is None else min(rule.ttl, wanted.ttl)
        caching = Caching(found[0], exchange.consumer.name, ttl, rule.mode == "enforce", self._most)
        caching.plain, caching.misread, caching.others = found[1], wanted.misread, others
        exchange.features[CACHING] = caching
        caching.batch = None if caching.plain else batch_of(self._keys, exchange, rule.scope)
        if wanted.word == "refresh":
            caching.outcome, caching.fill = "refresh", True
            return None
        if caching.batch is not None and await self._part(exchange, caching, caching.batch):
            return None
        entry = await self._find(exchange, caching)
        if entry is not None and not caching.enforced:
            caching.outcome, caching.saved = "shadow", entry.cost
            return None
        if (
            entry is not None
            and (body := in_form(entry, exchange.request.dialect, stream=exchange.request.ask.stream)) is not None
        ):
            outcome: Outcome = "hit" if entry.score is None else "similar"
            caching.score = entry.score
            return await self._replay(exchange, caching, entry, body, outcome)
        caching.fill = True
        if rule.semantic != "off" and caching.plain and wanted.word != "exact" and self._answers.similar is not None:
            return await self._alike(exchange, caching, rule, self._answers.similar)
        return None

    async def _alike(
        self, exchange: Exchange, caching: Caching, rule: CacheRuleSettings, similar: Similar
    ) -> LocalReply | None:
        """The kept answer to the same question in other words, if a model says that it is right for this question, too.
        In shadow mode the models are asked while the provider answers.
        """
        found = self._keys.question(exchange, rule.scope, self._semantic.longest)
        if found is None or exchange.consumer.require:  # no text of a bound consumer goes to these models
            return None
        caching.asked = similar.asked(*found)
        enforced = caching.enforced and rule.semantic == "enforce" and similar.verifies
        # A task, because the calls have time limits, which need a task.
        seeking = asyncio.ensure_future(self._seek(exchange, caching, similar, enforced=enforced))
        if not enforced:
            caching.seeking = seeking
            return None
        entry = await seeking
        if (
            entry is None
            or (body := in_form(entry, exchange.request.dialect, stream=exchange.request.ask.stream)) is None
        ):
            return None
        flight, caching.flight, caching.fill = caching.flight, None, False
        if flight is not None:
            self._answers.flights.end(flight, entry)
        return await self._replay(exchange, caching, entry, body, "similar")

    async def _seek(self, exchange: Exchange, caching: Caching, similar: Similar, *, enforced: bool) -> Entry | None:
        """The entry of the nearest kept question, if it is near enough and the model says yes. The entry is kept for
        this question, too, so equal questions ask no model. Writes the outcome in shadow mode.
        """
        settings, asked, answers = self._semantic, caching.asked, self._answers
        threshold = settings.threshold or THRESHOLD
        waited = time.perf_counter() - exchange.started if enforced else 0.0
        deadline = time.monotonic() + max(0.0, LONGEST_WAIT - waited)
        found = await similar.nearest(asked, threshold, answers.now())
        if found is None:
            return None
        entry = await answers.find(found.row.key)
        if entry is None or not self._usable(entry, caching):
            if not answers.away:
                similar.index.remove(asked.partition, found.row.key)
            return None
        same = found.score >= threshold
        verdict = await similar.verdict(asked, found.row, deadline) if same and similar.verifies else None
        same = same and verdict in (None, "same")
        consumer = exchange.consumer
        about = {
            "time": answers.now(),
            "consumer": consumer.name,
            "team": consumer.team,
            "model": exchange.request.ask.model[:256],
            "hit": same,
            **({} if verdict is None else {"verdict": verdict}),
        }
        saved = None if entry.cost is None else entry.cost / NANO
        similar.sample(asked, found, {**about, "saved_usd": saved}, texts=settings.samples == "texts")
        if not same:
            return None
        caching.score = found.score
        if not enforced:
            caching.outcome, caching.saved = "similar_shadow", entry.cost
            return entry
        entry = msgspec.structs.replace(entry, score=found.score)
        await answers.keep(caching.key, entry, found.row.owner, found.row.ends - answers.now())
        return entry

    async def _part(self, exchange: Exchange, caching: Caching, batch: Batch) -> bool:
        """Find the kept inputs of a batch. True if the provider is asked for the other inputs."""

        async def find(key: bytes) -> Entry | None:
            entry = await self._answers.find(key)
            return entry if entry is not None and self._usable(entry, caching) else None

        await batch.find(find)
        missing = batch.missing
        if not caching.enforced or not 0 < len(missing) < len(batch.entries):
            return False
        exchange.request.edits[exchange.request.dialect.offers.reuse.inputs.field] = [
            batch.inputs[place] for place in missing
        ]
        caching.outcome, caching.saved, caching.fill = "partial", batch.cost, True
        return True

    def rule(self, exchange: Exchange) -> CacheRuleSettings | None:
        """The rule for a request; None if its answer is not kept."""
        for rule in self._rules:
            if rule.applies(exchange):
                return None if rule.settings.mode == "off" else rule.settings
        return None

    async def _find(self, exchange: Exchange, caching: Caching) -> Entry | None:
        """The kept answer, or the answer of an equal request under way.

        The flight begins before the store is asked, so no answer of another flight is missed in between.
        """
        flights = self._answers.flights
        flight = flights.begin(caching.key, self._wait) if caching.enforced else None
        if flight is not None:
            try:
                entry = await self._whole(exchange, caching)
            except BaseException:
                flights.end(flight)
                raise
            if entry is None:
                caching.flight = flight
            else:
                flights.end(flight, entry)
            return entry
        if caching.enforced:
            left = LONGEST_WAIT - (time.perf_counter() - exchange.started)  # guardrails may have taken their time
            entry = await flights.join(caching.key, min(self._wait, max(left, 0.0)), self._waiting)
            if entry is not None and (entry.score is None or caching.others):
                return entry
        return await self._whole(exchange, caching)

    async def _whole(self, exchange: Exchange, caching: Caching) -> Entry | None:
        """The kept answer, assembled if it is kept by input."""
        if caching.batch is not None:
            return None if caching.batch.missing else whole(exchange, caching.batch)
        entry = await self._answers.find(caching.key)
        return entry if entry is not None and self._usable(entry, caching) else None

    def _usable(self, entry: Entry, caching: Caching) -> bool:
        if entry.score is not None and not caching.others:
            return False
        age = self._answers.now() - entry.stored
        return age < caching.ttl and not (caching.enforced and entry.is_shadow)

    async def _replay(
        self, exchange: Exchange, caching: Caching, entry: Entry, body: bytes, outcome: Outcome
    ) -> LocalReply | None:
        """The kept answer, after the stages of events; None if a budget sends the request to another model. After a
        Refusal the exchange counts as one without a provider.
        """
        targets, dialect = exchange.route.targets, exchange.request.dialect
        target = next((one for one in targets if one.deployment == entry.deployment), targets[0])
        if not await self._count(exchange, target):
            return None
        kind = "text/event-stream" if exchange.request.ask.stream else "application/json"
        framing = framing_for(kind, event_limit=_MOST_EVENT, body_limit=_MOST_EVENT)
        assert framing is not None
        exchange.answer.usage_hidden = exchange.request.ask.stream and bool(
            dialect.offers.usage_request(exchange.request.json)
        )
        exchange.answer.head, exchange.answer.report = ResponseHead(200, {}), Report()
        out: list[bytes] = []
        try:
            reader = self._events.reader(exchange, framing)
            more = await reader.feed(body, True, out)
            while more:
                await asyncio.sleep(0)
                more = await reader.feed(b"", True, out)
        except Refusal:
            exchange.answer.report = None
            raise
        exchange.answer.target = target
        self._tell(exchange)
        _name_ignored(exchange, caching)
        caching.outcome, caching.saved = outcome, entry.cost
        age = max(0, int(self._answers.now() - entry.stored))
        headers = {**exchange.answer.told, "content-type": kind, CACHE: "hit", "age": str(age)}
        if caching.score is not None:
            headers[SIMILARITY] = f"{caching.score:.3f}"
        if found := exchange.findings.header_value():
            headers[GUARDRAILS] = found
        if exchange.request.id:
            headers["x-request-id"] = exchange.request.id
        return LocalReply(200, b"".join(out), headers, "cached")


def obstacle(exchange: Exchange, rule: CacheRuleSettings) -> str:
    """The reason, for people, why the answer to a request is not kept; empty if it may be kept."""
    ask, headers = exchange.request.ask, exchange.request.head.headers
    control = headers.get("cache-control")
    if wish(headers.get(CACHE)).word == "off" or (control and "no-store" in control.lower()):
        return "the client asks for it"
    if ask.free or len(exchange.request.body) > LARGE:
        return "it has no answer of a model" if ask.free else "its body is large"
    if ask.stream and exchange.request.dialect.endpoints.array(exchange.request.head.path):
        return "the client takes one JSON array"
    if is_form(exchange.request.body):
        return "it is a form, whose files are not compared"
    if exchange.request.masked or has_vault(exchange):
        return "a guardrail masked it"
    if ask.lasting or ask.unseen or ask.hosted or ask.speaks or (ask.needs and not NATIVE.isdisjoint(ask.needs)):
        return "it refers to content outside of it, or to tools that its provider runs"
    if exchange.route.kept.ids or exchange.request.dialect.offers.stored.keeps(exchange.request.json):
        return "its provider keeps the answer, under an id of its own"
    if not rule.sampled and exchange.request.dialect.offers.reuse.varies(exchange.request.json):
        return "it asks for variety (`sampled`)"
    return ""


def explain(settings: CacheSettings, providers: Mapping[str, ProviderSettings], exchange: Exchange) -> str:
    """The cache's part in a request, for people."""
    number, rule = next(
        ((number, rule.settings) for number, rule in _numbered(settings) if rule.applies(exchange)), (0, None)
    )
    if rule is None or rule.mode == "off":
        return f"rule {number}: off" if rule is not None else "no rule is for this request"
    if why := obstacle(exchange, rule):
        return f"rule {number}: its answer is not kept: {why}"
    found = Keys(b"", providers)(exchange, rule.scope)
    if found is None:
        return f"rule {number}: its answer is not kept: it has no JSON"
    scope = owner(exchange.consumer, rule.scope)
    whose = "all consumers" if scope == ["all"] else f"{scope[0]} {scope[-1]}"
    form = "of any API, plain or streamed" if found[1] else "of the same API and form"
    shadow = "; shadow: only counted" if rule.mode == "shadow" else ""
    if rule.semantic != "off" and found[1]:
        shadow += f"; {_other_words(settings.semantic, rule, providers, exchange)}"
    return f"rule {number}: kept for {show_duration(rule.ttl)}, for equal requests of {whose}, {form}{shadow}"


def _other_words(
    semantic: SimilarSettings, rule: CacheRuleSettings, providers: Mapping[str, ProviderSettings], exchange: Exchange
) -> str:
    """Answers to questions in other words, for people."""
    found = Keys(b"", providers).question(exchange, rule.scope, semantic.longest)
    if found is None:
        return "no other words: its last turn is no short text"
    if rule.semantic == "enforce" and Questions(semantic.questions).group(found[1]) is not None:
        return "one of the listed questions"
    if semantic.embeddings is None:
        return "no other words: it is none of the listed questions"
    enforced = rule.semantic == "enforce" and rule.mode == "enforce" and semantic.verify is not None
    asked = "" if semantic.verify is None else f", verified by {semantic.verify.model}"
    return f"other words: {'enforce' if enforced else 'shadow'} at {semantic.threshold or THRESHOLD:g}{asked}"


def _numbered(settings: CacheSettings) -> Iterator[tuple[int, CacheRule]]:
    return enumerate(map(CacheRule, settings.rules), 1)


class Keep:
    """Collects the events of an answer that is to be kept, as they came. All unfinished answers together take `most`
    bytes; an answer beyond that is not kept.
    """

    changes_length = False
    merges = True

    def __init__(self, answers: Answers, most: int) -> None:
        self._answers = answers
        self._most = most

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        caching = exchange.features.get(CACHING)
        if caching is None or not caching.fill:
            return False
        if not isinstance(
            framing, SSE if exchange.request.ask.stream else WholeBody
        ):  # the answer is not in the form that was asked for
            caching.pieces = None
        return caching.pieces is not None

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        caching = exchange.features[CACHING]
        if caching.pieces is None:
            return events
        size = 0
        for event in events:
            size += len(event.raw)
            if event.data is None and event.name != EMPTY:  # a piece of an event too long to be read
                drop(caching, self._answers)
                return events
        caching.size += size
        self._answers.collected += size
        if caching.size > caching.most or self._answers.collected > self._most:
            drop(caching, self._answers)
        elif caching.enforced:
            caching.pieces += [event.raw for event in events]
        return events


def drop(caching: Caching, answers: Answers) -> None:
    """Free the memory of an unfinished answer."""
    if caching.pieces is not None:
        answers.collected -= caching.size
        caching.pieces = None


class TellCache:
    """Tells the client that no kept answer was found; in shadow mode it writes no header."""

    def __call__(self, exchange: Exchange) -> None:
        caching = exchange.features.get(CACHING)
        if caching is None:
            return
        if caching.enforced:
            exchange.answer.told[CACHE] = caching.outcome if caching.outcome in ("refresh", "partial") else "miss"
        _name_ignored(exchange, caching)


def _name_ignored(exchange: Exchange, caching: Caching) -> None:
    """Tell the client that its header for the cache has a word that the cache does not know."""
    if caching.misread:
        before = exchange.answer.told.get(IGNORED)
        exchange.answer.told[IGNORED] = f"{before},{CACHE}" if before else CACHE


class Fill:
    """Keeps an answer that ended well, and ends the wait of equal requests. Runs after Settle, which knows its cost."""

    def __init__(self, answers: Answers, *, texts: bool = False) -> None:
        self._answers = answers
        self._texts = texts  # True: texts of questions are kept, for samples

    async def __call__(self, exchange: Exchange) -> None:
        caching = exchange.features.get(CACHING)
        if caching is None:
            return
        if caching.seeking is not None:  # the task ends by its own time limit
            seeking, caching.seeking = caching.seeking, None
            await seeking
        if not caching.fill:
            return
        caching.fill, flight, caching.flight = False, caching.flight, None
        entry = self._entry(exchange, caching) if keepable(exchange) else None
        drop(caching, self._answers)
        if flight is not None and entry is not None:
            flight.land(entry)
        try:
            if entry is not None:
                apart = [(caching.key, entry)] if caching.batch is None else parts(exchange, caching.batch, entry)
                kept, owner = True, self._answers.owner(caching.owner)
                for key, one in apart:
                    kept = await self._answers.keep(key, one, owner, caching.ttl)
                if kept and caching.asked is not None and caching.score is None and self._answers.similar is not None:
                    ends = entry.stored + caching.ttl
                    self._answers.similar.add(caching.asked, caching.key, owner, ends, texts=self._texts)
        finally:
            if flight is not None:
                self._answers.flights.end(flight, entry)

    def _entry(self, exchange: Exchange, caching: Caching) -> Entry | None:
        target, body = exchange.answer.target, b"".join(caching.pieces or ())
        if target is None or caching.pieces is None or bool(body) != caching.enforced:
            return None
        ask = exchange.request.ask
        entry = Entry(
            self._answers.now(), body, exchange.request.dialect.name, ask.stream, target.deployment, exchange.money.cost
        )
        finished = len(exchange.answer.report.finish_reasons) if exchange.answer.report is not None else 0
        return entry if not body or is_whole(entry, choices=ask.choices, finished=finished) else None


def keepable(exchange: Exchange) -> bool:
    """True for a whole answer that only its model shaped: without error, cut, filter, guardrail, cap, unreadable event,
    or choice without an end.
    """
    report: Any = exchange.answer.report
    if exchange.money.downgraded:  # a model outside the key answered
        return False
    if exchange.ending is not Ending.ANSWERED or exchange.answer.status != 200 or report is None or report.error:
        return False
    if report.unread_bytes:
        return False
    if any(verdict.on == "output" and verdict.action in _TOUCHED for verdict in exchange.findings.verdicts):
        return False
    finishes = report.finish_reasons.values()
    if exchange.request.ask.output_field is None:
        return not finishes
    if not report.output_bytes or len(finishes) < exchange.request.ask.choices:
        return False
    if not all(finish in ENDED or finish in LIMITED for finish in finishes):
        return False
    return all(finish in ENDED for finish in finishes) or _own_limit(exchange)


def _own_limit(exchange: Exchange) -> bool:
    """True if the client itself limited the answer, not a budget."""
    target = exchange.answer.target
    limits = exchange.money.output_limits
    capped = bool(limits) and target is not None and limits[exchange.route.targets.index(target)] is not None
    return exchange.request.ask.max_output_tokens is not None and not capped


@dataclass(slots=True, frozen=True)
class CacheStages:
    """The stages of kept answers and conversations. A list is empty if the settings keep nothing of its kind."""

    settings: CacheSettings
    answers: Answers | None
    turns: KeptTurns | None

    def look_up(
        self,
        settings: Settings,
        services: Services,
        guard_output: GuardOutput,
        count: Callable[[Exchange, Target], Awaitable[bool]],
    ) -> Sequence[LookUp]:
        """The stages that look up answers. Guardrails read a kept answer like any other."""
        if self.answers is None:
            return []
        events = Events([Count(), guard_output, HideUsage()], services.telemetry.stage)
        return [LookUp(self.settings, self.answers, settings.providers, events, count, tell=Tell())]

    @property
    def keep(self) -> Sequence[EventStage]:
        return [] if self.answers is None else [Keep(self.answers, self.settings.memory), Join()]

    @property
    def tell(self) -> Sequence[TellCache]:
        return [] if self.answers is None else [TellCache()]

    @property
    def fill(self) -> Sequence[Fill]:
        texts = self.settings.semantic.samples == "texts"
        return [] if self.answers is None else [Fill(self.answers, texts=texts)]

    def go_on(
        self, ids: Ids, catalog: Catalog, read: Callable[[Exchange], None], take: Callable[[Exchange, int], None]
    ) -> Sequence[GoOn]:
        return [] if self.turns is None else [GoOn(self.turns, ids, catalog, read, take)]

    @property
    def keep_turn(self) -> Sequence[KeepTurn]:
        return [] if self.turns is None else [KeepTurn(self.turns)]

    @property
    def forget_turn(self) -> Sequence[ForgetTurn]:
        return [] if self.turns is None else [ForgetTurn(self.turns)]


def stages(settings: Settings, services: Services) -> CacheStages:
    answers, turns = services.answers, None if services.answers is None else services.answers.turns
    return CacheStages(
        settings.cache,
        answers if answers is not None and answers.caches and settings.cache.rules else None,
        None if turns is None else KeptTurns(turns, settings.cache.conversations),
    )
