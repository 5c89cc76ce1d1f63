"""Leases of the reservations of one process: which of them live, have left for a provider, or got no answer.

   reserve ──► the request leaves ──► forward, `PAUSE` later, in one call for all ──► renew … ──► settle
      └─ no answer ──► void

Reserved is not forwarded. If this process dies, a reservation whose request has not left is released, and one that has
left is charged. So the mark follows the request, and no request waits for it. One that is settled within the pause
needs no mark. What a process has sent in its last `PAUSE` seconds is free if it dies; a mark before the request would
charge what never left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from extproc.stores import Counters, StoreError
from extproc.words.exchange import Exchange

PAUSE = 0.01  # seconds between a request that leaves and its mark
AGAIN = 1.0  # seconds until a store without an answer is called again
MAX_VOID = 10_000  # reservations without an answer; further ones are released by the end of their leases
_BATCH = 500  # ids in one call


class Leases:
    """The reservations that this process holds, by the ids of their exchanges."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._held: dict[str, Exchange] = {}
        self._unmarked: dict[str, Exchange] = {}  # the store does not know that they have left
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
        """Renew a reservation no longer: its exchange is over. Without a settle its lease ends."""
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
        """Tell the store what has left and what is void. Raises StoreError; the next call continues there."""
        for id in [
            id for id, exchange in self._unmarked.items() if not exchange.route.forwarded and id not in self._held
        ]:
            del self._unmarked[id]  # it never left
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
            self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._unmarked or self._void:  # otherwise all have been settled meanwhile
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
