"""Settle: the use and cost of an ended exchange. It replaces the reservation that `budgets` made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from extproc.cache.caching import CACHING
from extproc.money.accounting.used import UNASKED, learn_usual, used
from extproc.money.budgets import Claim, Exact, Expected, Leases, costs, counting
from extproc.stores import Counters, StoreError
from extproc.upstream import prices
from extproc.words.exchange import Exchange


class Settle:
    """Writes `usage`, `cost` and `charges`, and releases the rest of the reservation. Runs once, however the exchange
    ended.

    Where `keep` returns True, the store remembers the charge until its row is written, see `books`. A settle without an
    answer goes to `owe`, which tries it again. If `owe` has no room, the end of the lease decides the charge.

    An exchange whose usage will be known later goes to `park`, see `accounting.late`. If `park` returns False, the
    exchange is charged now.
    """

    def __init__(
        self,
        counters: Counters,
        leases: Leases,
        count: Callable[[str, str], None],
        *,
        keep: Callable[[], bool] = lambda: False,
        owe: Callable[[str, Sequence[int]], bool] = lambda _id, _amounts: True,
        expected: Expected | None = None,
        exact: Exact | None = None,
        park: Callable[[Exchange], Awaitable[bool]] | None = None,
    ) -> None:
        self._counters = counters
        self._leases = leases
        self._count = count  # called with (budget, verdict)
        self._keep = keep
        self._owe = owe
        self._expected = expected or Expected()
        self._exact = exact or Exact({})
        self._park = park

    async def __call__(self, exchange: Exchange) -> None:
        reservation = getattr(exchange.money, "reservation", None)
        if self._park is not None and is_late(exchange) and await self._park(exchange):
            self._leases.discard(exchange.id)
            self._leases.settled(exchange.id)
            return
        try:
            exchange.money.usage = usage = await used(exchange, self._exact, self._expected)
        finally:  # the lease is kept while text is counted, and ends even if a later step fails
            if reservation is not None:
                self._leases.discard(reservation.id)
        exchange.money.cost = spent(exchange)
        learn_usual(exchange, self._expected)
        if reservation is None or not reservation.held:
            return
        asked = (exchange.route.forwarded or is_hit(exchange)) and exchange.ending not in UNASKED
        target = exchange.answer.target or exchange.route.targets[0]
        amounts = []
        counts = counting(reservation.claims, exchange, target)
        for claim, counted in zip(reservation.claims, counts, strict=True):
            if not asked or not counted:
                amounts.append(0)
            elif claim.budget.counts_money and exchange.answer.target is None:  # the price that applies is unknown
                amounts.append(claim.amount)
            else:
                amounts.append(claim.budget.charge(usage, exchange.money.cost))
        exchange.money.charges = charged(reservation.claims, amounts)
        try:
            await self._counters.settle(reservation.id, amounts, keep=self._keep())
            self._leases.settled(reservation.id)
        except StoreError:
            if not self._owe(reservation.id, amounts):
                exchange.money.charges = None
            for claim in reservation.claims:
                self._count(claim.budget.name, "settle_failed")


def is_late(exchange: Exchange) -> bool:
    """True for an exchange whose usage will be known later, and for a client's call that may show such a usage."""
    report, kept = exchange.answer.report, exchange.route.kept
    return report is not None and bool(kept.made_by or (report.pending and exchange.request.ask.lasting))


def is_hit(exchange: Exchange) -> bool:
    """True for a request that the cache answered: it counts as a request and uses no tokens."""
    caching = exchange.features.get(CACHING)
    return caching is not None and caching.is_hit


def charged(claims: Sequence[Claim], amounts: Sequence[int]) -> Mapping[str, int]:
    """The charge of each count. Concurrency counts a request while it runs and charges nothing."""
    return {claim.scope: amount for claim, amount in zip(claims, amounts, strict=True) if not claim.budget.is_slot}


def spent(exchange: Exchange) -> int | None:
    """Cost of the usage in nano-USD; None when the price is unknown. If the target is unknown: the bound at the dearest
    target.
    """
    usage, target = exchange.money.usage, exchange.answer.target
    if usage.source == "none":
        return 0
    if target is not None:
        if (usage.cached_tokens or usage.cache_write_tokens) and (price := costs.charged(exchange)) is not None:
            exchange.money.prompt_saved, exchange.money.prompt_extra = prices.prompt_cache(price, usage)
        cost, exchange.money.price_version = costs.cost_of(exchange, usage)
        return cost
    outputs = exchange.money.reservation.outputs or [0] * len(exchange.route.targets)
    bounds = [
        prices.bound(
            target.price,
            usage.input_tokens,
            output,
            exchange.money.reservation.possible,
            exchange.request.ask.most_units,
        )
        for target, output in zip(exchange.route.targets, outputs, strict=True)
        if target.price is not None
    ]
    return max(bounds, default=None)
