"""The stages of routing, and the effect of a try's report on later requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from extproc.access.auth import Authorize
from extproc.exchange.services import Services
from extproc.money.budgets import Unpriced
from extproc.routing.catalog import Catalog
from extproc.routing.history import History, retry_after
from extproc.routing.pools.placing import FreeEndpoint, PickEndpoint, TellEndpoint
from extproc.routing.selection import Select
from extproc.routing.streaks import CoolDownRule
from extproc.settings.config import Settings
from extproc.upstream.prices import PriceBook
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


def learn_rate(settings: Settings, services: Services) -> Sequence[LearnRate]:
    """The stage, where a virtual model has a rate among its objectives."""
    wanted = any(each.objectives and each.objectives.rate for each in settings.virtual_models.values())
    return [LearnRate(services.history)] if wanted else []


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
