"""Reads the counters during the load: through the store's interface many times a second, and from the Redis itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
import redis.exceptions

from bench.soak.plan import HOLDS, Plan, limits, scopes
from extproc.money.ledger.ledger import Ledger
from extproc.money.ledger.query import ExchangeQuery
from extproc.stores import Counters, StoreError

Count = tuple[str, int, int]  # scope, window, index of the window

_EVERY = 0.05  # seconds between two samples of all counts
_LOOK = 1.0  # between two readings of the Redis
_PAGE = 1000


@dataclass(slots=True)
class Samples:
    """The samples. `fullest` is the highest share of its limit that a count was seen at."""

    taken: int = 0
    counts: int = 0
    beyond: list[str] = field(default_factory=list)
    negative: list[str] = field(default_factory=list)
    fullest: float = 0.0


class Watch:
    """The watcher. `run` it beside the load. `final` has the last state of every count in every window."""

    def __init__(self, counters: Counters, port: int, plan: Plan) -> None:
        self.samples = Samples()
        self.final: dict[Count, tuple[int, int]] = {}
        self._counters = counters
        self._redis = redis.asyncio.Redis(port=port, socket_timeout=5)
        self._limits = limits(plan)

    async def run(self) -> None:
        looked = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await self.sample()
            if clock() - looked > _LOOK:
                looked = clock()
                with contextlib.suppress(redis.exceptions.RedisError):
                    await self.look()
            await asyncio.sleep(_EVERY)

    async def sample(self) -> None:
        """All counts at one instant."""
        wanted = scopes()
        try:
            levels = await self._counters.levels(wanted)
        except StoreError:
            return
        found = self.samples
        found.taken += 1
        for (scope, _), level in zip(wanted, levels, strict=True):
            limit = self._limits[scope.partition(":")[0]]
            found.counts += 1
            found.fullest = max(found.fullest, (level.settled + level.reserved) / limit)
            if level.settled + level.reserved > limit:
                found.beyond.append(f"{scope}: {level.settled} + {level.reserved} > {limit}")
            if level.settled < 0 or level.reserved < 0:
                found.negative.append(f"{scope}: {level.settled}, {level.reserved}")

    async def look(self) -> None:
        """Every count in every window that the Redis still holds."""
        self.final = {
            count: (settled, 0) for count, (settled, _) in self.final.items()
        }  # an expired window had no reservations
        async for name in self._redis.scan_iter(match="{extproc}:counts:*", count=1000):
            _, _, window, number = name.decode().rsplit(":", 3)
            for scope, value in (await self._redis.hgetall(name)).items():
                settled, reserved = map(int, value.split()[:2])
                self.final[scope.decode(), int(window), int(number)] = settled, reserved

    async def held(self) -> int:
        """Reservations with a running lease: live ones, and those without a confirmed record."""
        count: int = await self._redis.zcard("{extproc}:leases")
        return count

    async def command(self, *words: str) -> Any:
        return await self._redis.execute_command(*words)

    def settled(self) -> Mapping[str, int]:
        """The charges of each scope over all its windows."""
        found: dict[str, int] = {}
        for (scope, _, _), (settled, _) in self.final.items():
            found[scope] = found.get(scope, 0) + settled
        return {scope: amount for scope, amount in found.items() if amount}

    async def close(self) -> None:
        await self._redis.aclose()


def rows(ledger: Ledger) -> list[Mapping[str, Any]]:
    """All rows of the ledger."""
    found: list[Mapping[str, Any]] = []
    before: str | None = None
    while page := ledger.exchanges(ExchangeQuery(before=before, limit=_PAGE)):
        found += page
        before = page[-1]["id"]
    return found


class Twice:
    """Settles some exchanges a second time, soon after the first and with other amounts, which must have no effect."""

    def __init__(self, counters: Counters, ledger: Ledger, share: float) -> None:
        self.tried = 0
        self.taken: list[str] = []  # that the store accepted
        self._counters = counters
        self._ledger = ledger
        self._share = share
        self._random = random.Random(2)
        self._seen: set[str] = set()

    async def run(self) -> None:
        while True:
            page = await asyncio.to_thread(self._ledger.exchanges, ExchangeQuery(limit=300))
            for row in page:
                if row["id"] in self._seen:
                    continue
                self._seen.add(row["id"])
                if row["charges"] and row["usage_source"] != "expired" and self._random.random() < self._share:
                    await self._again(row["id"])
            await asyncio.sleep(0.2)

    async def _again(self, id: str) -> None:
        try:
            taken = await self._counters.settle(id, [7] * HOLDS)
        except StoreError:
            return
        self.tried += 1
        if taken:
            self.taken.append(id)
