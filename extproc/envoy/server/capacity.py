"""Counts the replicas of own hardware, and writes what each minute of them cost into the ledger."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from extproc.envoy.server.periodic import BEAT
from extproc.exchange.services import Services
from extproc.money.ledger.capacity import MINUTE, Minute
from extproc.upstream.prices import NANO
from extproc.upstream.providers import CapacitySettings

if TYPE_CHECKING:
    from extproc.money.ledger.ledger import Ledger
    from extproc.settings.config import Settings

_SELDOM = 10.0  # seconds
_MOST_WAITING = 10_000
"""Minutes that wait while the ledger is away; beyond them the oldest are taken for those before them."""


class CapacityKeeper:
    """Counts in every beat. Several processes may: the first one that writes a minute has counted it."""

    def __init__(self, services: Services, settings: Callable[[], Settings], ledger: Ledger) -> None:
        self._services = services
        self._settings = settings
        self._ledger = ledger
        self._minute = 0  # the current one, since the epoch
        self._sums = Counter[str]()  # replicas by provider, summed over its beats
        self._beats = Counter[str]()
        self._waiting: list[Minute] = []

    def every(self) -> float:
        """Seconds between two turns: seldom where no hardware is own."""
        return BEAT if self._wanted() else _SELDOM

    async def turn(self) -> None:
        """Count the replicas now. Raises LedgerError; the minutes then wait."""
        wanted, minute = self._wanted(), int(self._services.now() // 60)
        if minute != self._minute:
            self._close(wanted)
            self._minute = minute
        for provider, capacity in wanted.items():
            replicas = self._replicas(provider, capacity)
            if replicas is not None:
                self._sums[provider] += replicas
                self._beats[provider] += 1
        if self._waiting:
            await asyncio.to_thread(self._ledger.keep_capacity, self._waiting)
            self._waiting = []

    def _wanted(self) -> Mapping[str, CapacitySettings]:
        providers = self._settings().providers.items()
        return {name: provider.capacity for name, provider in providers if provider.capacity is not None}

    def _replicas(self, provider: str, capacity: CapacitySettings) -> int | None:
        """None while it is not known."""
        if isinstance(capacity.replicas, int):
            return capacity.replicas
        pool = self._services.pools.get(provider)
        return len(pool.endpoints) if pool is not None and pool.known else None

    def _close(self, wanted: Mapping[str, CapacitySettings]) -> None:
        """Let the counts of the passed minute wait for the ledger."""
        for provider, beats in self._beats.items():
            if provider in wanted:
                replicas = self._sums[provider] / beats
                cost = round(replicas * wanted[provider].usd_per_hour * NANO / 60)
                self._waiting.append(Minute(provider, self._minute * MINUTE, round(replicas * 1000), cost))
        self._waiting = self._waiting[-_MOST_WAITING:]
        self._sums.clear()
        self._beats.clear()
