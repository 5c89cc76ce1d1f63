"""Settle: use and cost of an exchange, once it ended. The other half of `budgets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from extproc import prices
from extproc.accounting.used import UNASKED, learn, told_by, used
from extproc.budgets import Claim, Exact, Expected, counting, input_estimate
from extproc.budgets.options import charged as charged_price
from extproc.stores import Counters, StoreError
from extproc.words.exchange import Exchange


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
        exchange.usage = usage = used(exchange, self._expected)
        if usage.source == "estimated" and self._exact is not None and not told_by(exchange.report).input_tokens:
            await self._count_input(exchange, self._exact)
        exchange.cost = spent(exchange)
        if self._expected is not None:
            learn(exchange, self._expected)
        if reservation is None or not reservation.held:
            return
        asked = (exchange.forwarded or is_hit(exchange)) and exchange.ending not in UNASKED
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


def is_hit(exchange: Exchange) -> bool:
    """True for a request that the cache answered: it counts, and uses no tokens."""
    return exchange.caching is not None and exchange.caching.is_hit


def charged(claims: Sequence[Claim], amounts: Sequence[int]) -> Mapping[str, int]:
    """The charge of each count. A request under way is counted while it runs, and never charged."""
    return {claim.scope: amount for claim, amount in zip(claims, amounts, strict=True) if not claim.budget.is_slot}


def spent(exchange: Exchange) -> int | None:
    """Cost of the usage in nano-USD; None when the price is unknown. Without a known target: the dearest bound."""
    usage, target = exchange.usage, exchange.target
    if usage.source == "none":
        return 0
    if target is not None:
        price = charged_price(exchange)
        if price is not None and (usage.cached_tokens or usage.cache_write_tokens):
            exchange.prompt_saved, exchange.prompt_extra = prices.prompt_cache(price, usage)
        return None if price is None else prices.cost(price, usage)
    outputs = exchange.reservation.outputs or [0] * len(exchange.targets)
    bounds = [
        prices.bound(target.price, usage.input_tokens, output, exchange.reservation.possible, exchange.ask.units)
        for target, output in zip(exchange.targets, outputs, strict=True)
        if target.price is not None
    ]
    return max(bounds, default=None)
