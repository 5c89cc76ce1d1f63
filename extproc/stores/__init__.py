"""Counters: what budgets and rate limits count on. One interface, one conformance suite, a file per store.

An exchange holds amounts on several *scopes* at once and settles what it really used. The store decides atomically and
on its own clock, so any number of workers that share it behave as one. Amounts are integers.

    reserve ──► forward ──► settle          the lease ran out:  reserved, never forwarded → released
       └─ Denied                                                forwarded → charged what was held

`settled + reserved <= limit` holds for every scope at every instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """The store could not answer. Nothing is known about the call: the budget's `store_failure` decides."""


@dataclass(slots=True, frozen=True)
class Hold:
    """`amount` units wanted on `scope` (for example `rpm:consumer=ci-bot`), of which `limit` exist per window.

    `window` is in seconds and windows are aligned to the epoch in UTC, so the window's number is part of the key and
    nothing is ever reset. 0 means no window: the count never ends.
    """

    scope: str
    window: int
    limit: int
    amount: int


@dataclass(slots=True, frozen=True)
class Denied:
    """Why `reserve` said no: the index of the first hold that did not fit, what is left there (>= 0), seconds to reset.

    `resets_in` is None when the window never ends.
    """

    index: int
    remaining: int
    resets_in: float | None


@dataclass(slots=True, frozen=True)
class Level:
    """One scope in its current window: integers >= 0, and seconds until the window ends (None: never)."""

    settled: int
    reserved: int
    resets_in: float | None


@dataclass(slots=True, frozen=True)
class Granted:
    """What `reserve` took: for each hold, in order, the level of its scope after the reservation."""

    levels: tuple[Level, ...]


@dataclass(slots=True, frozen=True)
class Expired:
    """A reservation whose lease ran out. `amounts` is what was charged per hold: all zeros when never forwarded."""

    id: str
    forwarded: bool
    scopes: tuple[str, ...]
    amounts: tuple[int, ...]


class Counters(Protocol):
    """The port. Every method is one round trip and raises StoreError when the store does not answer."""

    async def reserve(self, id: str, holds: Sequence[Hold], lease: float) -> Granted | Denied:
        """Take every hold or none. `id` is the server's own and new; `lease` is in seconds. `holds` may be empty."""
        ...

    async def forward(self, id: str, lease: float) -> None:
        """Say that the request is about to leave for a provider, and renew the lease. Unknown ids are ignored."""
        ...

    async def settle(self, id: str, amounts: Sequence[int]) -> bool:
        """Replace what was held by what was used, `amounts` in the order of the holds.

        Charged in the window the reservation was made in. Idempotent: a second call changes nothing. After an expiry
        that charged the estimate, the first settle corrects the charge once. True when this call changed something.
        """
        ...

    async def expire(self) -> Sequence[Expired]:
        """End every lease that ran out, each exactly once among all workers, and say what became of it."""
        ...

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        """Read (scope, window seconds) pairs in their current window; an unknown scope reads as zeros."""
        ...

    async def close(self) -> None: ...
