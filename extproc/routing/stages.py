"""The stages of routing, and the effect of a try's report on later requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from extproc.access.auth import Authorize
from extproc.access.auth.require import unmet_of
from extproc.exchange.services import Services
from extproc.money.budgets import Unpriced
from extproc.routing.catalog import Catalog
from extproc.routing.history import History, retry_after
from extproc.routing.pools.placing import FreeEndpoint, PickEndpoint, TellEndpoint
from extproc.routing.selection import Select
from extproc.routing.shadow import LABEL, MOST_BODY, OF, SHADOWED, ShadowRequest, ShadowSettings, is_drawn, with_model
from extproc.routing.streaks import CoolDownRule
from extproc.settings.config import Settings
from extproc.upstream.prices import PriceBook
from extproc.wire.framing.multipart import is_form
from extproc.wire.framing.patch import patch
from extproc.words.dialect import HOSTED
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.exchange import Exchange, Target
from extproc.words.tries import Try

_ASK_TO_WAIT = (429, 503, 529)
"""Statuses whose Retry-After is about the provider, not about the request."""


@dataclass(slots=True, frozen=True)
class Reroute:
    """Routes an exchange to another model than the requested one, if the consumer may use that model and it can serve.
    After a Refusal the exchange has no route.
    """

    catalog: Catalog
    authorize: Authorize
    select: Select

    def __call__(self, exchange: Exchange, model: str) -> None:
        chain, before = self.catalog.resolve(model), exchange.route.targets[0].provider
        assert chain is not None, "checked with the settings"
        exchange.route.require += exchange.route.chain.require
        exchange.route.chain, exchange.route.targets, exchange.route.skipped = chain, chain.targets, []
        self.authorize(exchange)
        self.select(exchange)
        if "state" in exchange.request.ask.needs and exchange.route.targets[0].provider != before:
            raise Refusal(UNSUPPORTED_BY_TARGETS, f"The request refers to content that the provider {before} stores.")


def catalog(settings: Settings, services: Services) -> Catalog:
    today = datetime.fromtimestamp(services.now(), UTC).date()
    prices = PriceBook(settings.prices, today, settings.surcharges)
    models = settings.models, settings.virtual_models
    stopped = services.canaries.stopped
    return Catalog(settings.providers, *models, services.history, prices, before=settings.before, stopped=stopped)


def select(settings: Settings, services: Services, catalog: Catalog) -> Select:
    unpriced = Unpriced(settings.budgets) if settings.unknown_price == "refuse" else None
    return Select(catalog, services.history, services.telemetry.skip, unpriced)


@dataclass(slots=True, frozen=True)
class LearnRate:
    """Tells the history how fast a streamed answer was written, in output tokens a second."""

    history: History

    def __call__(self, exchange: Exchange) -> None:
        answer, usage = exchange.answer, exchange.money.usage
        if answer.target is not None and answer.first_token is not None and exchange.request.ask.stream:
            seconds = exchange.seconds - answer.first_token
            self.history.wrote(answer.target.deployment, len(exchange.request.body), usage.output_tokens, seconds)


_STATEFUL = ("state", "thread", HOSTED)
"""Needs of requests that a second provider cannot serve, or whose tools it would run again."""


class SendShadow:
    """Sends a request to the candidate of its virtual model, too, if it is drawn. Whatever the requirements of its
    consumer and its names forbid is not sent.
    """

    def __init__(self, settings: Settings, services: Services, catalog: Catalog) -> None:
        self._virtual = {name: each for name, each in settings.virtual_models.items() if each.shadow is not None}
        self._around = settings.around_guardrails
        self._catalog = catalog
        self._shadows = services.shadows
        self._count = services.telemetry.shadows

    def __call__(self, exchange: Exchange) -> None:
        request, route = exchange.request, exchange.route
        name = route.chain.name if route.forwarded else ""
        if name not in self._virtual or LABEL in exchange.money.labels or SHADOWED in exchange.features:
            return
        shadow = self._virtual[name].shadow
        assert shadow is not None, "of `_virtual`"
        ask, body = request.ask, request.body
        if ask.batch or ask.lasting or route.kept.ids or any(need in ask.needs for need in _STATEFUL):
            return
        if not body or len(body) > MOST_BODY or is_form(body) or not is_drawn(exchange.id, shadow.share):
            return
        if not self._shadows.has_room(name, shadow):
            return
        required = *exchange.consumer.require, *route.require, *route.chain.require
        chain, secret = self._catalog.resolve(shadow.model), self._around.keys.get(shadow.consumer)
        key = None if secret is None else secret.read()
        if chain is None or key is None or any(unmet_of(required, target) for target in chain.targets):
            self._count("not_allowed")
            return
        exchange.features[SHADOWED] = True
        self._shadows.send(name, shadow, partial(self._build, exchange, name, shadow, key))

    def _build(self, exchange: Exchange, name: str, shadow: ShadowSettings, key: str) -> ShadowRequest:
        request, body = exchange.request, exchange.request.body
        path = request.head.path.partition("?")[0]  # a query may hold a key
        there = with_model(path, shadow.model)
        sent = bytes(patch(body, {"model": shadow.model})) if there == path else bytes(body)
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        headers |= {f"x-ai-{LABEL}": name, f"x-ai-{OF}": exchange.id}
        if version := request.dialect.endpoints.version:
            headers |= {version: request.head.headers[version]} if version in request.head.headers else {}
        return ShadowRequest(shadow.url or self._around.door, there, sent, headers)


def at_end(settings: Settings, services: Services, catalog: Catalog) -> Sequence[LearnRate | SendShadow]:
    """Stages of an exchange's end, where a virtual model has a rate among its objectives, or a shadow."""
    virtual_models = settings.virtual_models.values()
    measured = any(each.objectives and each.objectives.rate for each in virtual_models)
    shadowed = any(each.shadow is not None for each in virtual_models)
    return [
        *([LearnRate(services.history)] if measured else []),
        *([SendShadow(settings, services, catalog)] if shadowed else []),
    ]


@dataclass(slots=True, frozen=True)
class PoolStages:
    """Stages for providers with a pool; each list is empty where none has one."""

    pick: Sequence[PickEndpoint] = ()
    tell: Sequence[TellEndpoint] = ()
    free: Sequence[FreeEndpoint] = ()


def pools(services: Services) -> PoolStages:
    if not services.pools:
        return PoolStages()
    return PoolStages([PickEndpoint(services.pools, services.telemetry.skip)], [TellEndpoint()], [FreeEndpoint()])


def cool_down(settings: Settings, history: History, target: Target, try_: Try) -> None:
    """Put a target in cool-down if its answer asked for a pause, or if it keeps failing."""
    provider, deployment = settings.providers[target.provider], target.deployment
    wanted = provider.cool_down
    if try_.status in _ASK_TO_WAIT:
        asked = retry_after(try_.retry_after, time.time())
        if asked is None and try_.status == 429:
            asked = wanted.default
        if asked is not None:
            history.cool(deployment, min(asked, wanted.longest))
    if provider.pool is not None:
        return  # a failed try is about one endpoint of several, see `pools.pool.Pool.learn`
    if try_.first_byte is not None:
        history.reached(deployment, try_.consumer, try_.seconds, served=try_.served)
    if try_.at_fault or try_.outcome == "connect":
        detection = provider.outlier_detection
        rule = CoolDownRule(detection.consecutive_5xx, detection.base_ejection_time, wanted.longest, detection.interval)
        if try_.at_fault:
            history.failed(deployment, try_.consumer, rule)
        else:
            history.unreachable(deployment, rule)
