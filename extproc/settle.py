"""What an exchange used and what that cost, once it ended. The other half of `budgets`."""

from __future__ import annotations

from collections.abc import Callable

from extproc import prices
from extproc.budgets import estimate
from extproc.dialects import Report
from extproc.exchange import Exchange, Usage
from extproc.stores import Counters, StoreError


class Settle:
    """Writes `usage` and `cost` and gives the rest of the reservation back. Runs once, however the exchange ended."""

    def __init__(self, counters: Counters, leases: set[str], count: Callable[[str, str], None]) -> None:
        self._counters = counters
        self._leases = leases
        self._count = count  # (budget, verdict)

    async def __call__(self, exchange: Exchange) -> None:
        exchange.usage = usage = used(exchange)
        exchange.cost = spent(exchange)
        reservation = getattr(exchange, "reservation", None)
        if reservation is None or not reservation.held:
            return
        self._leases.discard(reservation.id)
        reached = exchange.forwarded and (exchange.target is not None or exchange.status == 0)
        target = exchange.target or exchange.targets[0]
        amounts = []
        for claim in reservation.claims:
            budget = claim.budget
            if not reached or not budget.covers(exchange, target) or budget.scope(exchange, target) != claim.scope:
                amounts.append(0)
            elif budget.counts_money and exchange.target is None:  # nobody knows which price applies
                amounts.append(claim.amount)
            else:
                amounts.append(budget.charge(usage, exchange.cost))
        try:
            await self._counters.settle(reservation.id, amounts)
        except StoreError:  # the lease will run out and charge what was held
            for claim in reservation.claims:
                self._count(claim.budget.settings.name, "settle_failed")


def used(exchange: Exchange) -> Usage:
    """What the exchange used, as well as anybody can know it.

    The provider's own count when there is a believable one. An answer without: the gateway's count of the input and of
    the text that was seen. Forwarded, and nobody knows what the provider did: what was held. Otherwise nothing.
    """
    if not exchange.forwarded or exchange.status >= 400 or exchange.ask.free:
        return Usage(source="none")
    report, reservation = exchange.report, exchange.reservation
    if report is not None and (usage := _counted(report)) is not None:
        return usage
    if exchange.status == 0 or exchange.ask.lasting:  # the client left before any answer began, or will not see it
        return Usage(reservation.input_tokens, reservation.output_tokens, source="estimated")
    ask = exchange.ask
    text = len(exchange.body) - ask.image_bytes
    input_tokens = min(reservation.input_tokens, estimate(text) + ask.image_tokens)
    if report is None:
        return Usage(input_tokens, _output_bound(exchange), source="estimated")
    return Usage(input_tokens, max(estimate(report.output_bytes), report.output_events), source="estimated")


def _counted(report: Report) -> Usage | None:
    """The provider's own count; None where there is none, or it is nothing although there was something."""
    usage = report.told_usage or report.usage
    if usage is not None and (not usage.input_tokens or (report.output_bytes and not usage.output_tokens)):
        report.usage_refused = True
        return None
    return usage


def spent(exchange: Exchange) -> int | None:
    """What the usage cost, in nano-USD; None when the price is unknown. Nobody knows who served: what was held."""
    usage, target = exchange.usage, exchange.target
    if usage.source == "none":
        return 0
    if target is not None:
        return None if target.price is None else prices.cost(target.price, usage)
    outputs = exchange.reservation.outputs or [0] * len(exchange.targets)
    bounds = [
        prices.bound(target.price, usage.input_tokens, output)
        for target, output in zip(exchange.targets, outputs, strict=True)
        if target.price is not None
    ]
    return max(bounds, default=None)


def _output_bound(exchange: Exchange) -> int:
    """The most that who served can have written."""
    outputs = exchange.reservation.outputs
    if not outputs or exchange.target is None:
        return exchange.reservation.output_tokens
    return outputs[exchange.targets.index(exchange.target)]
