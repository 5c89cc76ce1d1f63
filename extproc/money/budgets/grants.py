"""Grants: room beyond a budget's limit that an operator gave one count until its window ends.

Grants are notes on a board of the counters store, so every process that shares it reads them within a second, and they
end by themselves.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from extproc.stores import MAX_COUNT, Counters, read_notes

BOARD = "grants"
MOST = 1000
"""Most grants at one time."""
_LONGEST = 366 * 86400.0  # seconds


class Grant(msgspec.Struct, frozen=True):
    """A grant. `amount` is in `unit`, the budget's unit when the grant was made; nano-USD for money. `expires` in epoch
    seconds.
    """

    id: str
    budget: str
    scope: str
    amount: int
    unit: str
    expires: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Grant).decode


class Grants:
    """The grants known to this process. `refresh` reads the grants of other processes."""

    def __init__(self, counters: Counters, now: Callable[[], float] = time.time) -> None:
        self._counters = counters
        self._now = now
        self._giving = asyncio.Lock()
        self._all: dict[str, Grant] = {}
        self._room: Mapping[tuple[str, str], int] = {}
        self._ends = math.inf  # the earliest end of a grant

    def room(self, scope: str, unit: str, most: int = MAX_COUNT) -> int:
        """The amount that the count may use beyond its budget's limit, at most `most`, because two processes may grant
        at the same moment. Grants in another unit are ignored.
        """
        if self._room and self._now() >= self._ends:
            self._set_all(self._all.values())
        return min(self._room.get((scope, unit), 0), most)

    def all(self) -> Sequence[Grant]:
        """Grants in force, the latest to expire last."""
        now = self._now()
        return sorted((grant for grant in self._all.values() if grant.expires > now), key=lambda grant: grant.expires)

    async def add(
        self, budget: str, scope: str, amount: int, unit: str, expires: float | None, *, most: int = MAX_COUNT
    ) -> Grant:
        """Add a grant. Raises StoreError when it cannot be kept, ValueError when there are too many grants, or when
        they would add more than `most` to this count.
        """
        async with self._giving:
            await self.refresh()
            if len(self._all) >= MOST:
                raise ValueError(f"there are {MOST} grants already: revoke some")
            if self.room(scope, unit) + amount > most:
                raise ValueError("the grants of this count would exceed the budget's `max_granted`: revoke some")
            now = self._now()
            until = min(now + _LONGEST, expires or now + _LONGEST)
            grant = Grant(uuid.uuid4().hex, budget, scope, amount, unit, until)
            await self._counters.share(BOARD, grant.id, _encode(grant), until - now)
            self._set_all([*self._all.values(), grant])
            return grant

    async def revoke(self, id: str) -> bool:
        """Revoke a grant, from the next request on. Raises StoreError. False when no grant has that id."""
        await self.refresh()
        if id not in self._all:
            return False
        await self._counters.share(BOARD, id, b"", 1.0)
        self._set_all(grant for grant in self._all.values() if grant.id != id)
        return True

    async def refresh(self) -> None:
        """Read the board. Raises StoreError."""
        self._set_all(read_notes(await self._counters.share(BOARD, "", b"", 1.0), _decode))

    def _set_all(self, grants: Iterable[Grant]) -> None:
        now = self._now()
        self._all = {grant.id: grant for grant in grants if grant.expires > now}
        room: dict[tuple[str, str], int] = {}
        for grant in self._all.values():
            key = grant.scope, grant.unit
            room[key] = room.get(key, 0) + grant.amount
        self._room = room
        self._ends = min((grant.expires for grant in self._all.values()), default=math.inf)
