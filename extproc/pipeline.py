"""The stages, in order. `build` is the table of contents of the program.

A stage is a callable with its settings in the constructor and its work in `__call__(exchange)`. It reads fields of
earlier stages and writes the fields it is named for. Its class name is its label in metrics and logs. Only a Refusal,
or an action that a stage returns, ends the stages early; any other exception is a bug and fails closed. Stages of
events get the events of an answer too, and give back those that go on (`response.EventStage`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from extproc.accounting.books import Books, Enter
from extproc.accounting.settle import Settle
from extproc.accounting.tries import AwaitEnd, AwaitTries, FailedTries
from extproc.admission import Admit, InFlight, LookAhead, others_first
from extproc.auth import Access, Authenticate, Authorize, IssuedKey
from extproc.budgets import Leases, Reserve, Tools, Unpriced
from extproc.cache.answers import Answers
from extproc.cache.batches import Join
from extproc.cache.conversations import ForgetTurn, GoOn, KeepTurn, Turns
from extproc.cache.stages import Fill, Keep, LookUp, TellCache
from extproc.endpoints.count_tokens import CountAnyway, CountTokens
from extproc.endpoints.models import Models
from extproc.endpoints.quarantined import Quarantined
from extproc.forward import Forward, Shed
from extproc.framing.events import Events, EventStage
from extproc.guardrails import Audits, AwaitAudits, GuardInput, GuardOutput, Results, reads_answers
from extproc.kept import Ids
from extproc.kept.stages import Open, Recall, Seal
from extproc.parsing import BodyLimits, Classify, Parse, ParseLarge
from extproc.prices import PriceBook
from extproc.response import (
    Annotate,
    BadAnswer,
    CoolDown,
    Count,
    Extend,
    HideUsage,
    Origin,
    Read,
    RejectedCredential,
    Tell,
)
from extproc.routing.catalog import Catalog, Route
from extproc.routing.history import History, retry_after
from extproc.routing.selection import Select
from extproc.routing.streaks import Rule
from extproc.settings.config import Settings
from extproc.stores import Counters
from extproc.taint import Taint, Tainted
from extproc.telemetry.metrics import Record, Telemetry
from extproc.unread.choice import Follow, WhyRead
from extproc.unread.waiting import Waiting
from extproc.words.actions import Continue, LocalReply
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.exchange import Exchange, Target
from extproc.words.tries import Try
from extproc.words.workers import private_socket

if TYPE_CHECKING:
    from extproc.mcp.profiles import Profiles
    from extproc.mcp.servers import Servers

Stage = Callable[[Exchange], Any]

_ASK_TO_WAIT = (429, 503, 529)
"""Statuses whose Retry-After is about the provider, not about the request."""


class Stages:
    """Runs stages one after the other and times them."""

    def __init__(self, stages: Sequence[Stage], observe: Callable[[str], Callable[[float], None]]) -> None:
        self._stages = [
            (stage, inspect.iscoroutinefunction(type(stage).__call__), observe(type(stage).__name__))
            for stage in stages
        ]

    async def __call__(self, exchange: Exchange) -> Continue | LocalReply | None:
        """The action with which a stage ended the list, or None. Raises Refusal."""
        if not exchange.timed:
            for stage, is_async, _ in self._stages:
                result = await stage(exchange) if is_async else stage(exchange)
                if result is not None:
                    return result  # type: ignore[no-any-return]
            return None
        then = time.perf_counter()
        for stage, is_async, observe in self._stages:
            try:
                result = await stage(exchange) if is_async else stage(exchange)
            finally:
                now = time.perf_counter()
                observe(now - then)
                then = now
            if result is not None:
                return result  # type: ignore[no-any-return]
        return None


class InTurns(Stages):
    """Runs stages over a large body: other requests have a turn after each."""

    def __init__(self, stages: Sequence[Stage], observe: Callable[[str], Callable[[float], None]]) -> None:
        self._each = [Stages([stage], observe) for stage in stages]

    async def __call__(self, exchange: Exchange) -> Continue | LocalReply | None:
        for stage in self._each:
            if (result := await stage(exchange)) is not None:
                return result
            await others_first()
        return None


@dataclass(slots=True, frozen=True)
class Pipeline:
    """One configuration at work. An exchange keeps the pipeline it began with."""

    settings: Settings
    catalog: Catalog
    history: History
    telemetry: Telemetry
    in_flight: InFlight
    # True: guardrails may read answers, so Envoy is asked for every answer at the request's headers. The head of an
    # answer can then wait until its first text was judged.
    guarded: bool
    waiting: Waiting
    failed: FailedTries | None  # None: records do not tell of them
    why_read: WhyRead
    admit: Callable[[Exchange, int], None]  # takes room for a body of so many bytes, or raises Refusal
    on_headers: Stages
    on_large_headers: Stages
    on_request: Stages
    on_large_request: Stages
    on_call: Stages
    on_response: Stages
    on_end: Stages
    # the answer of a refusal, where it is not that of an API of models
    refuse: Callable[[Exchange, Refusal], LocalReply] | None = field(default=None, kw_only=True)
    mcp: Pipeline | None = field(default=None, kw_only=True)  # the same for requests to the MCP gateway
    profiles: Profiles | None = field(default=None, kw_only=True)  # of it
    renewed: Callable[[str], Awaitable[Mapping[str, str]]] | None = field(default=None, kw_only=True)  # its sessions

    async def settle_unread(self, exchange: Exchange) -> None:
        """Settle and record an exchange whose answer passed unread."""
        if exchange.place is not None:
            exchange.place.leave()
        try:
            await self.on_end(exchange)
        finally:
            self.telemetry.in_flight -= 1

    def learn(self, try_: Try) -> None:
        """Take in Envoy's report of a try: for the metrics, for records, for cool-downs and for latency routing."""
        if self.failed is not None:
            self.failed.tell(try_)
        self.telemetry.attempt(try_.provider, try_.target, try_.outcome, try_.seconds)
        target = self.catalog.target(try_.target)
        if target is None or target.provider != try_.provider:  # the target of an earlier configuration
            return
        streamed, first_byte = try_.streamed, try_.first_byte
        self.history.learn(
            target.deployment,
            try_.outcome,
            size=try_.request_bytes,
            streamed=streamed,
            first_byte=first_byte,
            rest=try_.seconds - (first_byte or 0.0),
            answer=try_.answer_bytes,
        )
        cool_down(self.settings, self.history, target, try_)


def cool_down(settings: Settings, history: History, target: Target, try_: Try) -> None:
    """Put a target in cool-down where its answer asked for a pause, or where it keeps failing."""
    provider, deployment = settings.providers[target.provider], target.deployment
    wanted = provider.cool_down
    if try_.status in _ASK_TO_WAIT:
        asked = retry_after(try_.retry_after, time.time())
        if asked is None and try_.status == 429:
            asked = wanted.default
        if asked is not None:
            history.cool(deployment, min(asked, wanted.longest))
    if try_.first_byte is not None:
        history.reached(deployment, try_.consumer, try_.seconds, served=try_.served)
    if try_.at_fault or try_.outcome == "connect":
        detection = provider.outlier_detection
        rule = Rule(detection.consecutive_5xx, detection.base_ejection_time, wanted.longest, detection.interval)
        if try_.at_fault:
            history.failed(deployment, try_.consumer, rule)
        else:
            history.unreachable(deployment, rule)


def cheaper(settings: Settings, catalog: Catalog) -> Sequence[str]:
    """The models that budgets downgrade to, and their targets."""
    found: list[str] = []
    for budget in settings.budgets:
        if budget.downgrade_to is not None and (chain := catalog.resolve(budget.downgrade_to)) is not None:
            found += [budget.downgrade_to, *(target.name for target in chain.targets)]
    return found


def tell_prompts(settings: Settings, telemetry: Telemetry) -> Sequence[Stage]:
    """The stage that sends prompts to a collector, where the settings ask for it."""
    if settings.telemetry.prompts is None:
        return ()
    from extproc.accounting.prompts import PromptLog, TellPrompt  # noqa: PLC0415 - few gateways send prompts

    telemetry.prompts = telemetry.prompts or PromptLog(telemetry.prompt_events)
    return (TellPrompt(settings.telemetry.prompts, telemetry.prompts),)


def look_up(
    settings: Settings, answers: Answers | None, telemetry: Telemetry, reserve: Reserve, guard_output: GuardOutput
) -> list[LookUp]:
    """The stage that answers from the cache, where there is one. Guardrails read a kept answer as any other."""
    if answers is None or not answers.caches or not settings.cache.rules:
        return []
    on_event: list[EventStage] = [Count(), guard_output, HideUsage()]
    events = Events(on_event, telemetry.stage)
    return [LookUp(settings.cache, answers, settings.providers, events, reserve.count_only, tell=Tell())]


def build(
    settings: Settings,
    counters: Counters,
    leases: Leases,
    telemetry: Telemetry,
    *,
    history: History | None = None,
    tools: Tools | None = None,
    books: Books | None = None,
    own: Callable[[Exchange], Awaitable[LocalReply | None]] | None = None,
    waiting: Waiting | None = None,
    failed: FailedTries | None = None,
    in_flight: InFlight | None = None,
    answers: Answers | None = None,
    results: Results | None = None,
    audits: Audits | None = None,
    socket: str | None = None,
    taint: Taint | None = None,
    servers: Servers | None = None,
    issued: Sequence[IssuedKey] = (),
    places: Mapping[str, str] = MappingProxyType({}),
    now: Callable[[], float] = time.time,
) -> Pipeline:
    """The stages for `settings`, in the order they run.

    All arguments outlive a configuration: `leases` keeps reservations alive, `history` holds what tries taught, `tools`
    serves budgets, `books` holds charges, `own` answers consumers about their own spending,
    `waiting` holds exchanges whose answers pass unread, `failed` those whose failed tries are not known yet,
    `in_flight` counts requests and bytes of their bodies, `answers` are kept for equal requests, `results` of tools are
    in quarantine, `audits` are questions that only records wait for, `taint` are the runs in which an untrusted tool
    answered by MCP, `servers` are those of the MCP gateway, `socket` is the processor's own, `issued` are gateway keys
    that operators made.
    `places` are Envoy's names of the tries at a provider, where it has others than `contract.try_cluster`.
    """
    history = history or History(now)
    in_flight = in_flight or InFlight()
    tools = tools or Tools(used=telemetry.budget_used)
    books = books or Books(counters, None, now=now)
    waiting = waiting or Waiting()
    results = results or Results()
    results.most = settings.limits.quarantined
    audits = audits or Audits()
    audits.most = settings.limits.audited_text
    beside = replace(settings.around_guardrails, private=private_socket(socket or settings.processor.path))
    prices = PriceBook(settings.prices, datetime.fromtimestamp(now(), UTC).date(), settings.surcharges)
    routes = settings.models, settings.virtual_models
    catalog = Catalog(settings.providers, *routes, history, prices, before=settings.before)
    unpriced = Unpriced(settings.budgets) if settings.unknown_price == "refuse" else None
    ids = Ids(settings.providers, settings.stores.object_key)
    earlier = settings.before
    before = None if earlier is None else Access(earlier.teams, earlier.groups)
    access = Access(settings.teams, settings.groups, before, {} if earlier is None else earlier.consumers)
    limits = settings.limits
    authorize, select = Authorize(), Select(catalog, history, telemetry.skip, unpriced)

    def reroute(exchange: Exchange, model: str) -> None:
        """Route to another model than the requested one, if the consumer may use it and it can serve. A Refusal leaves
        the exchange unrouted.
        """
        chain, before = catalog.resolve(model), exchange.targets[0].provider
        assert chain is not None, "checked with the settings"
        exchange.chain, exchange.targets, exchange.skipped = chain, chain.targets, []
        authorize(exchange)
        select(exchange)
        if "state" in exchange.ask.needs and exchange.targets[0].provider != before:
            raise Refusal(UNSUPPORTED_BY_TARGETS, f"The request refers to content that the provider {before} stores.")

    reserve = Reserve(
        settings.budgets,
        counters,
        leases,
        limits.output_tokens,
        telemetry.budget,
        tools=tools,
        reroute=reroute,
        lease=limits.lease,
        now=now,
    )
    admit = Admit(
        in_flight,
        lambda: telemetry.in_flight,
        exchanges=limits.exchanges,
        memory=limits.body_memory,
        share=limits.consumer_share,
        body=limits.request_body,
    )
    cost = settings.usage.cost_in_response
    guarded = reads_answers(settings.guardrails)
    guard_output = GuardOutput(
        settings.guardrails,
        telemetry.guardrail,
        first_window=limits.first_window,
        most=limits.guardrail_scans,
        most_whole=limits.buffered_response,
        audits=audits,
    )
    caching = answers is not None and answers.caches and bool(settings.cache.rules)
    conversations = settings.cache.conversations
    turns = Turns(answers.turns, conversations) if answers is not None and answers.turns is not None else None
    on_event: list[EventStage] = [
        Count(),
        *((Keep(answers, settings.cache.memory), Join()) if answers is not None and caching else ()),
        Seal(ids),
        *([guard_output] if guarded else []),
        HideUsage(),
        *([Annotate()] if cost else []),
        *([KeepTurn(turns)] if turns is not None else []),
        Extend(reserve.extend, trusting=settings.usage.trust_output_limits),
    ]
    events = Events(on_event, telemetry.stage)
    patient = {name for name, provider in settings.providers.items() if provider.timeout > limits.stream_idle}
    why_read = WhyRead(settings.usage.mode, catalog.dialect, events.reason, patient)
    quarantine = any(entry.kind == "quarantine" for entry in settings.guardrails)
    on_headers: list[Stage] = [
        Classify(quarantine=quarantine),
        authenticate := Authenticate(
            settings.auth,
            settings.consumers,
            access,
            settings.attribution,
            now,
            tools=() if settings.mcp is None else settings.mcp.anonymous,
            issued=issued,
        ),
        Models(catalog),
        *([own] if own is not None else []),
        *([Quarantined(results)] if quarantine else []),
        admit,
    ]
    body = BodyLimits(limits.request_body, limits.json_depth, limits.json_nodes, limits.json_text)
    reading = body, catalog.changed(), admit.take
    parse = Parse(*reading, hosted_tools=limits.hosted_tools)
    on_request: list[Stage] = [
        parse,
        *([GoOn(turns, ids, catalog, parse.read, admit.take)] if turns is not None else []),
        Recall(ids, catalog, settings.foreign_objects),
        Route(catalog),
        authorize,
        CountTokens(catalog),
        select,
        *([Tainted(taint)] if taint is not None else []),
        guard_input := GuardInput(
            settings.guardrails,
            telemetry.guardrail,
            most=limits.guardrail_scans,
            also=cheaper(settings, catalog),
            around=beside,
            called=telemetry.guardrail_call,
            results=results,
            audits=audits,
        ),
        *look_up(settings, answers, telemetry, reserve, guard_output),
        reserve,
        *tell_prompts(settings, telemetry),
        forward := Forward(settings.attribution, catalog, settings.attach.client_headers, places, ids),
        *([Follow(waiting, why_read)] if why_read.enabled else []),
    ]
    on_large_headers: list[Stage] = [*on_headers, LookAhead(reserve.look_ahead)]
    on_large_request: list[Stage] = [ParseLarge(*reading, hosted_tools=limits.hosted_tools), *on_request[1:], Shed()]
    forget = [ForgetTurn(turns)] if turns is not None else []
    on_call: list[Stage] = [*forget, Open(ids, catalog), authorize, select, guard_input, reserve, forward]
    on_response: list[Stage] = [
        CountAnyway(),
        Origin(),
        Tell(),
        *([TellCache()] if caching else []),
        RejectedCredential(),
        CoolDown(partial(cool_down, settings, history)),
        BadAnswer(),
        Read(
            events,
            event_limit=limits.sse_event,
            body_limit=limits.buffered_response,
            empty_limit=limits.stream_empty,
            cost=cost,
            unread=guard_output.unreadable,
            may_pass=why_read.enabled,
            hold=partial(in_flight.hold, limits.answer_memory),
        ),
    ]
    settle = Settle(
        counters,
        leases,
        telemetry.budget,
        keep=lambda: books.keeps,
        owe=books.owe,
        expected=tools.expected,
        exact=tools.exact,
    )
    record = Record(telemetry), Enter(books)
    await_audits = AwaitAudits(audits, record)
    on_end: list[Stage] = [
        *([AwaitEnd(failed)] if failed is not None else []),
        settle,
        *([Fill(answers, texts=settings.cache.semantic.samples == "texts")] if answers is not None and caching else []),
        *([AwaitTries(failed, (await_audits, *record))] if failed is not None else []),
        await_audits,
        *record,
    ]
    headers = [Stages(each, telemetry.stage) for each in (on_headers, on_large_headers)]
    requests = [Stages(on_request, telemetry.stage), InTurns(on_large_request, telemetry.stage)]
    rest = [Stages(each, telemetry.stage) for each in (on_call, on_response, on_end)]
    stages = [*headers, *requests, *rest]
    made = Pipeline(
        settings, catalog, history, telemetry, in_flight, guarded, waiting, failed, why_read, admit.take, *stages
    )
    if settings.mcp is None or servers is None:
        return made
    from extproc.mcp import stages as mcp  # noqa: PLC0415 - most gateways serve models alone

    guard = partial(
        GuardInput,
        tell=telemetry.guardrail,
        most=limits.guardrail_scans,
        around=beside,
        called=telemetry.guardrail_call,
        results=results,
        audits=audits,
        named=False,
    )
    around = mcp.Around(
        authenticate,
        admit,
        admit.take,
        telemetry.stage,
        depth=limits.json_depth,
        nodes=limits.json_nodes,
        event=limits.sse_event,
        answer=limits.buffered_response,
        empty=limits.stream_empty,
        hold=partial(in_flight.hold, limits.answer_memory),
        issuers=[issuer.issuer for issuer in settings.auth.jwt],
        counters=counters,
        taint=taint or Taint(counters, now=now),
        guardrails=settings.guardrails,
        guard=guard,
        reserve=reserve,
        changed=telemetry.tool_changed,
        tell=telemetry.guardrail,
        places=places,
    )
    lists = mcp.build(settings.mcp, servers, around)
    enter_profile, ask = (Stages(each, telemetry.stage) for each in (lists.on_headers, lists.on_request))
    enter_call = Record(telemetry), mcp.EnterCall(Enter(books))
    own_pipeline = replace(
        made,
        guarded=False,
        refuse=lists.refuse,
        on_headers=enter_profile,
        on_large_headers=enter_profile,
        on_request=ask,
        on_large_request=InTurns(lists.on_request, telemetry.stage),
        on_response=Stages(lists.on_response, telemetry.stage),
        on_end=Stages([mcp.Cancel(servers), settle, AwaitAudits(audits, enter_call), *enter_call], telemetry.stage),
    )
    return replace(made, mcp=own_pipeline, profiles=lists.profiles, renewed=servers.renewed)
