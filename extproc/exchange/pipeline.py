"""The stages, in order. `build` is the table of contents of the program.

A stage is a callable with its settings in the constructor and its work in `__call__(exchange)`. It reads fields of
earlier stages and writes the fields it is named for. Its class name is its label in metrics and logs. A Refusal, or an
action that a stage returns, ends the stages early. Any other exception is a bug and fails closed. A stage of events
(`framing.events.EventStage`) also gets the answer's events, and returns those to pass on.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from extproc.access.auth import Authenticate, Authorize
from extproc.access.auth import stages as auth
from extproc.access.kept import Ids, uploads
from extproc.access.kept.stages import Open, Recall, Seal
from extproc.cache import stages as cache
from extproc.exchange.admission import Admit, LookAhead, others_first
from extproc.exchange.endpoints import stages as endpoints
from extproc.exchange.endpoints.count_tokens import CountAnyway, CountTokens
from extproc.exchange.endpoints.models import Models
from extproc.exchange.forward import Forward, Shed
from extproc.exchange.parsing import BodyLimits, Classify, Parse, ParseLarge
from extproc.exchange.response import (
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
from extproc.exchange.services import Services
from extproc.guardrails import _stages as guardrails
from extproc.guardrails import reads_answers
from extproc.money.accounting import stages as accounting
from extproc.money.accounting.settle import Settle
from extproc.money.budgets import Reserve
from extproc.money.budgets import stages as budgets
from extproc.money.texts.stages import texts
from extproc.routing import stages as routing
from extproc.routing.catalog import Catalog, Route
from extproc.routing.named import Ungranted
from extproc.settings.config import Settings
from extproc.tools.brake import stages as brake
from extproc.tools.taint import Tainted
from extproc.wire.framing.events import Events, EventStage
from extproc.words.actions import Continue, LocalReply
from extproc.words.errors import Refusal
from extproc.words.exchange import Exchange
from extproc.words.tries import Try

if TYPE_CHECKING:
    from extproc.tools.mcp.profiles import Profiles

Stage = Callable[[Exchange], Any]


class Stages:
    """Runs stages in order and times them."""

    def __init__(self, stages: Sequence[Stage], observe: Callable[[str], Callable[[float], None]]) -> None:
        self._stages = [
            (stage, inspect.iscoroutinefunction(type(stage).__call__), observe(type(stage).__name__))
            for stage in stages
        ]

    async def __call__(self, exchange: Exchange) -> Continue | LocalReply | None:
        """The action of the stage that ended the list, or None. Raises Refusal."""
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
    """Runs stages over a large body; other requests have a turn after each stage."""

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
    services: Services
    catalog: Catalog
    # True: guardrails may read answers, so request headers ask Envoy for every answer's body. Response headers can then
    # wait until guardrails have judged the first text.
    guarded: bool
    admit: Callable[[Exchange, int], None]  # reserves room for a body of some bytes, or raises Refusal
    on_large_request: Stages
    on_headers: Stages
    on_large_headers: Stages
    on_request: Stages
    on_call: Stages
    on_response: Stages
    on_end: Stages
    # Answer of a refusal outside of model APIs; None: `refusal_answer`.
    refuse: Callable[[Exchange, Refusal], LocalReply] | None = field(default=None, kw_only=True)
    mcp: Pipeline | None = field(default=None, kw_only=True)  # pipeline of requests to the MCP gateway
    profiles: Profiles | None = field(default=None, kw_only=True)  # profiles of the MCP gateway
    longest_wait: float = field(default=0.0, kw_only=True)  # seconds, see `Settings`
    # Headers of a new MCP session, for a tool call whose session ended.
    renewed: Callable[[str], Awaitable[Mapping[str, str]]] | None = field(default=None, kw_only=True)

    def learn(self, try_: Try) -> None:
        """Pass Envoy's report of a try to metrics, records, cool-downs and latency routing."""
        if self.services.failed is not None:
            self.services.failed.tell(try_)
        self.services.telemetry.attempt(try_.provider, try_.target, try_.outcome, try_.seconds)
        if (pool := self.services.pools.get(try_.provider)) is not None:
            pool.learn(try_)
        target = self.catalog.target(try_.target, try_.provider)
        if target is None or target.provider != try_.provider:  # the target is of an earlier configuration
            return
        streamed, first_byte = try_.streamed, try_.first_byte
        self.services.history.learn(
            target.deployment,
            try_.outcome,
            size=try_.request_bytes,
            streamed=streamed,
            first_byte=first_byte,
            rest=try_.seconds - (first_byte or 0.0),
            answer=try_.answer_bytes,
            consumer=try_.consumer,
        )
        routing.cool_down(self.settings, self.services.history, target, try_)


def build(settings: Settings, services: Services) -> Pipeline:
    """Stages for `settings`, in the order they run. A disabled feature has an empty list of stages."""
    ids, catalog = Ids(settings.providers, settings.stores.object_key), routing.catalog(settings, services)
    resume, hand_over = uploads.stages(settings.providers.values(), ids)
    authenticate, admit = auth.authenticate(settings, services), _admit(settings, services)
    parse, parse_large = _parse(settings, catalog, admit)
    authorize = Authorize(Ungranted(catalog, leave_out=settings.named_models == "leave_out"))
    select = routing.select(settings, services, catalog)
    reserve = budgets.reserve(settings, services, routing.Reroute(catalog, authorize, select))
    guard_input, guard_output, hold_calls = guardrails.stages(settings, services, catalog)
    guarded, kept, open_ = reads_answers(settings.guardrails), cache.stages(settings, services), Open(ids, catalog)
    forward = Forward(settings.attribution, settings.providers, settings.attach.client_headers, services.places, ids)
    pool, last, said = routing.pools(services), routing.at_end(settings, services, catalog), texts(settings, services)
    settle, record = accounting.settle(settings, services), accounting.record(settings, services)
    on_event: list[EventStage] = [
        Count(),
        *kept.keep,
        Seal(ids),
        *said.collect,
        *([guard_output] if guarded else []),
        *hold_calls,
        HideUsage(),
        *([Annotate()] if settings.usage.cost_in_response else []),
        *kept.keep_turn,
        Extend(reserve.extend),
    ]
    read = _read(settings, services, Events(on_event, services.telemetry.stage), guard_output.unreadable)

    classify, own = Classify(quarantine=settings.quarantines), endpoints.own(settings, services)
    on_headers: list[Stage] = [classify, *resume, authenticate, Models(catalog), *own, admit]
    on_request: list[Stage] = [
        parse,
        open_,
        *kept.go_on(ids, catalog, parse.read, admit.take),
        Recall(ids, catalog, settings.foreign_objects),
        Route(catalog),
        authorize,
        CountTokens(catalog),
        *brake.brake(settings, services),
        select,
        *([Tainted(services.taint)] if settings.mcp is not None else []),
        guard_input,
        *kept.look_up(settings, services, guard_output, reserve.count_only),
        *pool.pick,
        reserve,
        *accounting.tell_prompt(settings, services),
        *said.draw,
        forward,
    ]
    on_call: list[Stage] = [*kept.forget_turn, open_, authorize, select, guard_input, reserve, forward]
    cool_down = CoolDown(partial(routing.cool_down, settings, services.history))
    rest: list[Stage] = [RejectedCredential(), cool_down, BadAnswer(), read]
    on_response: list[Stage] = [CountAnyway(), Origin(), Tell(), *hand_over, *pool.tell, *kept.tell, *rest]
    on_end: list[Stage] = [*pool.free, *accounting.await_end(services), settle, *last, *said.keep, *kept.fill, *record]
    observe = services.telemetry.stage
    on_large_headers: list[Stage] = [*on_headers, LookAhead(reserve.look_ahead)]
    large = InTurns([parse_large, *on_request[1:], Shed()], observe)
    ran = [Stages(each, observe) for each in (on_headers, on_large_headers, on_request, on_call, on_response, on_end)]
    models = Pipeline(settings, services, catalog, guarded, admit.take, large, *ran, longest_wait=settings.longest_wait)
    return _with_tools(models, authenticate, admit, reserve=reserve, settle=settle)


def _with_tools(
    models: Pipeline, authenticate: Authenticate, admit: Admit, *, reserve: Reserve, settle: Settle
) -> Pipeline:
    """The pipeline with the MCP gateway's pipeline in it, if the settings have that gateway."""
    settings, services = models.settings, models.services
    if settings.mcp is None or services.servers is None:
        return models
    from extproc.tools.mcp import stages as mcp  # noqa: PLC0415 - most gateways serve models alone

    lists = mcp.build(settings, services, authenticate, admit, reserve=reserve, settle=settle)
    observe = services.telemetry.stage
    on_headers = Stages(lists.on_headers, observe)
    tools = replace(
        models,
        guarded=False,
        refuse=lists.refuse,
        on_headers=on_headers,
        on_large_headers=on_headers,
        on_request=Stages(lists.on_request, observe),
        on_large_request=InTurns(lists.on_request, observe),
        on_response=Stages(lists.on_response, observe),
        on_end=Stages(lists.on_end, observe),
    )
    return replace(models, mcp=tools, profiles=lists.profiles, renewed=services.servers.renewed)


def _admit(settings: Settings, services: Services) -> Admit:
    limits, telemetry = settings.limits, services.telemetry
    return Admit(
        services.in_flight,
        lambda: telemetry.in_flight,
        exchanges=limits.exchanges,
        memory=limits.body_memory,
        share=limits.consumer_share,
        body=limits.request_body,
    )


def _parse(settings: Settings, catalog: Catalog, admit: Admit) -> tuple[Parse, ParseLarge]:
    limits = settings.limits
    body = BodyLimits(limits.request_body, limits.json_depth, limits.json_nodes, limits.json_text)
    reading = body, catalog.changed(), admit.take
    hosted = limits.hosted_tools, limits.hosted_calls
    return Parse(*reading, hosted=hosted), ParseLarge(*reading, hosted=hosted)


def _read(settings: Settings, services: Services, events: Events, unread: Callable[[Exchange], None]) -> Read:
    limits = settings.limits
    return Read(
        events,
        event_limit=limits.sse_event,
        body_limit=limits.buffered_response,
        empty_limit=limits.stream_empty,
        cost=settings.usage.cost_in_response,
        unread=unread,
        hold=partial(services.in_flight.hold, limits.answer_memory),
    )
