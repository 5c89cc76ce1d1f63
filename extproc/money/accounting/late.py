"""Late settlement: batches, and responses in the background, whose usage is known after their exchange ended.

   Settle ──► Park: the amounts stay held, the row is `pending`          a process dies: another one continues
                └─► Poller, in one process at a time: asks the provider ──► the final note ──► settle ──► the row
   a client's own GET of the finished object shows the usage, too

The reservation is parked in the counters store (`stores`), which gives it to one process of the fleet whenever it is
due. Its facts are a `Note`. Without an end in `limits.pending_hold`, the amounts held are charged in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from extproc.money.accounting.books import row_of
from extproc.money.accounting.notes import Note, Told, pack_note
from extproc.money.accounting.used import most_of
from extproc.money.budgets import counting
from extproc.money.budgets.options import charged_options
from extproc.money.ledger import PENDING
from extproc.stores import MAX_PARKED, Counters, StoreError
from extproc.words.exchange import Exchange, Usage

FIRST, LONGEST = 2.0, 300.0
"""Seconds until the first look at an object, and the most seconds between two looks."""
_AN_EIGHTH = 8


def pause_after(age: float) -> float:
    """Seconds until the next look at an object, by the object's age."""
    return min(LONGEST, max(FIRST, age / _AN_EIGHTH))


class Park:
    """Parks the reservation of an exchange whose usage is not known yet, and writes its usage as pending. False for any
    other exchange, and where the store has no room: such an exchange is charged now.
    """

    def __init__(
        self,
        counters: Counters,
        told: Told,
        *,
        hold: float,
        most: int = MAX_PARKED,
        able: Callable[[str], bool] = lambda _provider: True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self._told = told
        self._hold = hold
        self._most = most
        self._able = able  # whether a provider, by its name, can be asked for usage
        self._now = now

    async def __call__(self, exchange: Exchange) -> bool:
        if exchange.route.kept.made_by:
            self._told.add(exchange)
            return False
        target, ask, late = exchange.answer.target, exchange.request.ask, exchange.request.dialect.offers.stored.late
        if target is None or late is None or not ask.lasting or not self._able(target.provider):
            return False
        exchange.money.usage = Usage(source=PENDING)  # where Park returns False, Settle writes another usage
        facts = pack_note(self._note(exchange))
        return facts is not None and await self._parked(exchange, facts)

    def _note(self, exchange: Exchange) -> Note:
        reservation, target, report, now = (
            exchange.money.reservation,
            exchange.answer.target,
            exchange.answer.report,
            self._now(),
        )
        assert target is not None, "it answered"
        assert report is not None, "it told of the object"
        index = exchange.route.targets.index(target)
        outputs = reservation.outputs
        counted = counting(reservation.claims, exchange, target) if reservation.held else ()
        return Note(
            row=row_of(exchange, now),
            spender=exchange.consumer.series,
            api=exchange.request.dialect.name,
            object=report.pending,
            begun=now,
            ends=now + self._hold,
            held=(reservation.inputs[index], outputs[index] if outputs else 0),
            most=most_of(Usage(), report, exchange),
            options=charged_options(exchange, target, None),
            batch=exchange.request.ask.batch,
            uncounted=tuple([place for place, counts in enumerate(counted) if not counts]),
        )

    async def _parked(self, exchange: Exchange, facts: bytes) -> bool:
        try:
            if not exchange.money.reservation.held:
                await self._counters.reserve(exchange.id, (), self._hold, facts=facts)
            return await self._counters.park(exchange.id, facts, lease=self._hold, again=FIRST, most=self._most)
        except (StoreError, ValueError):  # ValueError: an earlier call without an answer did reach the store
            return False
