"""Periodic work of a process. All of it runs at one wake-up a second, so an idle process costs little."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from extproc.money.ledger import LedgerError
from extproc.stores import StoreError

BEAT = 1.0
"""Seconds between two wake-ups."""
_phase = random.random()  # noqa: S311 - processes wake up at different moments


def until_beat() -> float:
    """Seconds until the next wake-up."""
    left = BEAT - (time.monotonic() + _phase) % BEAT
    return left if left > BEAT / 10 else left + BEAT  # a timer may fire slightly early


def pause(seconds: float) -> float:
    """Seconds until the wake-up after about `seconds`."""
    return seconds - BEAT + until_beat() if seconds >= BEAT else seconds


@dataclass(slots=True, frozen=True)
class Periodic:
    """Work to repeat. A StoreError or LedgerError skips one turn; any other exception ends the work."""

    name: str
    every: float | Callable[[], float]  # seconds
    work: Callable[[], Awaitable[None]]
    first: float | None = None  # seconds until the first turn; None: `every`

    async def run(self) -> None:
        """Repeat the work until cancelled."""
        wait = self.first
        while True:
            every = self.every() if callable(self.every) else self.every
            await asyncio.sleep(pause(every if wait is None else wait))
            wait = None
            with contextlib.suppress(StoreError, LedgerError):
                await self.work()
