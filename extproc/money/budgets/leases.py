"""Leases of one process's reservations: reservations to renew, to mark as forwarded, and to void.

   reserve ──► the request leaves ──► forward, `PAUSE` later, in one call for all ──► renew … ──► settle
      └─ no answer ──► void

A reservation is not yet forwarded. If this process dies, the reservation of a request that has not left is released,
and that of a request that has left is charged. So the mark follows the request, and no request waits for it. A
reservation settled within the pause needs no mark. Requests sent in the last `PAUSE` seconds before a process dies are
free; a mark before the request would charge requests that never left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from extproc.stores import Counters, StoreError
from extproc.words.exchange import Exchange

PAUSE = 0.01  # seconds between the departure of a request and its mark
AGAIN = 1.0  # seconds until a store without an answer is called again
MAX_VOID = 10_000  # most reservations without an answer; further ones end with their leases
_BATCH = 500  # ids in one call


class Leases:
    """The reservations that this process holds, by the ids of their exchanges."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._held: dict[str, Exchange] = {}
        self._unmarked: dict[str, Exchange] = {}  # exchanges that have left, unknown to the store
        self._void: dict[str, None] = {}  # ids whose `reserve` got no answer, the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._turning: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def add(self, exchange: Exchange) -> None:
        """Renew the lease of an exchange that holds amounts, and mark it when it has left, until `discard`."""
        self._held[exchange.id] = self._unmarked[exchange.id] = exchange
        self._wind(PAUSE)

    def discard(self, id: str) -> None:
        """Stop renewing a reservation, because its exchange is over. If no settle follows, its lease runs out."""
        self._held.pop(id, None)

    def settled(self, id: str) -> None:
        """Forget a reservation: the store has its charge."""
        self._unmarked.pop(id, None)

    def give_up(self, id: str) -> None:
        """Void a reservation whose `reserve` got no answer: the call may still reach the store."""
        if len(self._void) < MAX_VOID:
            self._void[id] = None
            self._wind(PAUSE)

    async def renew(self, lease: float) -> None:
        """Renew all leases for `lease` seconds. Raises StoreError."""
        await self._counters.renew(list(self._held), lease)

    async def turn(self) -> None:
        """Mark forwarded reservations and void unanswered ones in the store. Raises StoreError; the next call
        continues.
        """
        for id in [
            id for id, exchange in self._unmarked.items() if not exchange.route.forwarded and id not in self._held
        ]:
            del self._unmarked[id]  # its request never left
        while left := [id for id, exchange in self._unmarked.items() if exchange.route.forwarded][:_BATCH]:
            await self._counters.forward(left)
            for id in left:
                self._unmarked.pop(id, None)
        while void := list(self._void)[:_BATCH]:
            await self._counters.void(void)
            for id in void:
                self._void.pop(id, None)

    def _wind(self, seconds: float) -> None:
        if self._timer is None and self._turning is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._spawn_marking)

    def _spawn_marking(self) -> None:
        self._timer = None
        if self._unmarked or self._void:  # empty: all were settled meanwhile
            self._turning = asyncio.create_task(self._run(), name="leases")

    async def _run(self) -> None:
        pause = PAUSE
        try:
            await self.turn()
        except StoreError:
            pause = AGAIN
        finally:
            self._turning = None
            if self._unmarked or self._void:
                self._wind(pause)
