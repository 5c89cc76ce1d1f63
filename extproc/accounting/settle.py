"""Settle: use and cost of an exchange, once it ended. The other half of `budgets`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from extproc import prices
from extproc.budgets import Claim, Exact, Expected, counting, estimate, input_estimate, input_seen
from extproc.stores import Counters, StoreError
from extproc.words.dialect import Report
from extproc.words.exchange import Ending, Exchange, Usage

_NOT_SERVED = (Ending.REFUSED, Ending.UNREACHED)
"""Endings without a provider that took the request."""
_UNPAID = (*_NOT_SERVED, Ending.PROVIDER_ERROR, Ending.BAD_ANSWER)
"""Endings for which no tokens are charged."""


class Settle:
    """Writes `usage`, `cost` and `charges`, and releases the rest of the reservation. Runs once, however the exchange
    ended.

    Where `keep` says so, the store remembers the charge until its record is written, see `books`. A settle without an
    answer goes to `owe`, to be tried again.
    """

    def __init__(
        self,
        counters: Counters,
        leases: set[str],
        count: Callable[[str, str], None],
        *,
        keep: Callable[[], bool] = lambda: False,
        owe: Callable[[str, Sequence[int]], None] = lambda _id, _amounts: None,
        expected: Expected | None = None,
        exact: Exact | None = None,
    ) -> None:
        self._counters = counters
        self._leases = leases
        self._count = count  # (budget, verdict)
        self._keep = keep
        self._owe = owe
        self._expected = expected
        self._exact = exact

    async def __call__(self, exchange: Exchange) -> None:
        reservation = getattr(exchange, "reservation", None)
        if reservation is not None:  # first: a lease without renewal ends even if a later step fails
            self._leases.discard(reservation.id)
        exchange.usage = usage = used(exchange)
        if usage.source == "estimated" and self._exact is not None and not _reported(exchange.report).input_tokens:
            await self._count_input(exchange, self._exact)
        exchange.cost = spent(exchange)
        if self._expected is not None and exchange.target is not None and usage.source == "provider":
            self._expected.learn(exchange.target.deployment, usage.output_tokens)
        if reservation is None or not reservation.held:
            return
        asked = exchange.forwarded and exchange.ending not in _NOT_SERVED
        target = exchange.target or exchange.targets[0]
        amounts = []
        counts = counting(reservation.claims, exchange, target)
        for claim, counted in zip(reservation.claims, counts, strict=True):
            if not asked or not counted:
                amounts.append(0)
            elif claim.budget.counts_money and exchange.target is None:  # the price that applies is unknown
                amounts.append(claim.amount)
            else:
                amounts.append(claim.budget.charge(usage, exchange.cost))
        exchange.charges = charged(reservation.claims, amounts)
        try:
            await self._counters.settle(reservation.id, amounts, keep=self._keep())
        except StoreError:
            self._owe(reservation.id, amounts)
            for claim in reservation.claims:
                self._count(claim.budget.name, "settle_failed")

    async def _count_input(self, exchange: Exchange, exact: Exact) -> None:
        """Count the input exactly where the charge is below the reservation, by the known encoding, whatever the model.
        A client that leaves in mid-answer must not pay less for text that the estimate takes for prose.
        """
        usage, held = exchange.usage, exchange.reservation.input_tokens
        if exchange.reservation.unseen or usage.input_tokens >= held:
            return
        if (counted := await exact.count(exchange)) is not None:
            usage.input_tokens = min(held, max(counted + exchange.ask.image_tokens, input_estimate(exchange)))


def charged(claims: Sequence[Claim], amounts: Sequence[int]) -> Mapping[str, int]:
    """The charge of each count. A request under way is counted while it runs, and never charged."""
    return {claim.scope: amount for claim, amount in zip(claims, amounts, strict=True) if not claim.budget.is_slot}


def used(exchange: Exchange) -> Usage:
    """The use of the exchange, as far as it can be known.

    The provider's own counts come first, where they can be believed. A count that is missing, or zero although there
    was text, is the gateway's own count of the text; so are both counts without a report. A forwarded request with an
    unknown outcome: its reservation. Otherwise nothing.
    """
    if not exchange.forwarded or exchange.ending in _UNPAID or exchange.ask.free:
        return Usage(source="none")
    report = exchange.report
    told = _reported(report)
    if report is None or not (told.input_tokens or told.output_tokens):
        if report is not None and (report.told_usage or report.usage):
            report.usage_refused = True
        return _estimated(exchange)
    return _completed(told, report, exchange)


def _reported(report: Report | None) -> Usage:
    """The provider's report of its usage; zeros without one."""
    if report is None:
        return Usage()
    return report.told_usage or report.usage or Usage()


def _completed(told: Usage, report: Report, exchange: Exchange) -> Usage:
    """`told`, completed with the gateway's counts where one is missing, or where the provider had not ended yet."""
    if told.source == "provider" and told.input_tokens and (told.output_tokens or not _output(exchange, report)):
        return told
    report.usage_refused |= told.source == "provider"
    input_tokens, output_tokens = told.input_tokens, told.output_tokens
    if not input_tokens:  # the provider read the text at least
        input_tokens = min(exchange.reservation.input_tokens, input_seen(exchange))
    if told.source != "provider":
        output_tokens = max(output_tokens, _estimated_output(report))
    elif not output_tokens:
        output_tokens = _output(exchange, report)
    return replace(told, input_tokens=input_tokens, output_tokens=output_tokens, source="estimated")


def _estimated(exchange: Exchange) -> Usage:
    """The gateway's own count of an exchange whose provider reported none."""
    report, reservation = exchange.report, exchange.reservation
    if exchange.target is None or exchange.ask.lasting:  # the client left before any answer began, or will not see it
        return Usage(reservation.input_tokens, reservation.output_tokens, source="estimated")
    input_tokens = _input(exchange)
    # the model may have thought without text
    if report is None or not (exchange.ending.complete or report.output_bytes):
        return Usage(input_tokens, _output_bound(exchange), source="estimated")
    return Usage(input_tokens, _output(exchange, report), source="estimated")


def _output(exchange: Exchange, report: Report) -> int:
    """The gateway's count of the output, from the text that was seen."""
    if exchange.ask.output_field is None:  # as embeddings
        return 0
    reservation, output_tokens = exchange.reservation, _estimated_output(report)
    if not exchange.ending.complete:
        output_tokens += exchange.ask.thinking
    if report.output_bytes <= reservation.enough < math.inf:  # an honest answer keeps to the limit in its request
        extended = reservation.output > reservation.output_tokens
        output_tokens = min(output_tokens, reservation.output if extended else _output_bound(exchange))
    return output_tokens


def _estimated_output(report: Report) -> int:
    """Estimated tokens of the answer's text."""
    return max(estimate(report.output_bytes), report.output_events)


def _input(exchange: Exchange) -> int:
    """The gateway's count of the input. Input outside the body: the most that the serving target can have read."""
    reservation, target = exchange.reservation, exchange.target
    if not reservation.unseen:
        return min(reservation.input_tokens, input_seen(exchange))
    return reservation.input_tokens if target is None else reservation.inputs[exchange.targets.index(target)]


def spent(exchange: Exchange) -> int | None:
    """Cost of the usage in nano-USD; None when the price is unknown. Without a known target: the dearest bound."""
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
    """The most that the serving target can have written."""
    outputs = exchange.reservation.outputs
    if not outputs or exchange.target is None:
        return exchange.reservation.output_tokens
    return outputs[exchange.targets.index(exchange.target)]
