"""Counters: what budgets and rate limits count on, and the boards where those who share a store leave each other notes.
One interface, one conformance suite, a file or folder per store.

An exchange holds amounts on several *scopes* at once and settles what it really used. The store decides atomically and
on its own clock, so any number of workers that share it behave as one. Amounts are integers, 0 to `MAX_COUNT`.

    reserve ──► forward ──► settle          the lease ran out:  reserved, never forwarded → released
       └─ Denied                                                forwarded → charged what was held

`settled + reserved <= limit` holds for every scope at every instant, unless a settle says that more was used than held:
the truth is recorded, and the scope is closed until its window ends.

A *board* holds one note of each author for a while: what each process learned, for the others to read. The store does
not look into it, and a process that dies takes nothing back: its note runs out.
"""

from __future__ import annotations

import calendar
import importlib
import pkgutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

MAX_COUNT = 2**63 - 1  # what every store can keep exactly; a count that would pass it stays there
EXPIRE_BATCH = 500  # leases ended by one call of `expire`, so that no call holds the store up for long
LATE_SETTLE = 3600.0  # seconds after its expiry for which a reservation is remembered, at least, to be corrected
MAX_NOTE = 64 * 1024  # bytes of a note on a board

_MONDAY = 4 * 86_400  # the first Monday after the epoch, which was a Thursday


class StoreError(Exception):
    """The store could not answer. Nothing is known about the call: the budget's `store_failure` decides."""


class CountsLostError(StoreError):
    """The store answers, but what it had counted is gone. Raised by `expire`, once for each loss."""


@dataclass(slots=True, frozen=True)
class Hold:
    """`amount` units wanted on `scope` (for example `rpm:consumer=ci-bot`), of which `limit` exist per window.

    It fits when `settled + reserved + amount <= limit`. `window` is in seconds, or minus a number of calendar months
    (-1 a month, -3 a quarter), see `window_at`; 0 means no window: the count never ends. The window's number is part of
    the key and nothing is ever reset.

    A `slot` is held while the request lasts and never charged, however it ends: a concurrency limit.
    """

    scope: str
    window: int
    limit: int
    amount: int
    slot: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.amount <= MAX_COUNT and 0 <= self.limit <= MAX_COUNT):
            raise ValueError(f"amount {self.amount} and limit {self.limit} must be between 0 and {MAX_COUNT}")


@dataclass(slots=True, frozen=True)
class Denied:
    """Why `reserve` said no: the index of the first hold that did not fit, what is left there (>= 0), seconds to reset.

    What the request's own earlier holds took of the same scope is not left. `resets_in` is None when the window never
    ends.
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
    """A reservation whose lease ran out. `amounts` is what was charged per hold: 0 when never forwarded or a slot."""

    id: str
    forwarded: bool
    scopes: tuple[str, ...]
    amounts: tuple[int, ...]


class Counters(Protocol):
    """The port. Every method is one round trip and raises StoreError when the store does not answer."""

    async def reserve(
        self, id: str, holds: Sequence[Hold], lease: float, *, forwarded: bool = False
    ) -> Granted | Denied:
        """Take every hold or none. `id` is the server's own; `lease` is in seconds. `holds` may be empty.

        `forwarded` saves the call of `forward` where the request leaves at once.

        ValueError when a reservation of that id is still held or remembered: taking it over would lose its holds.
        """
        ...

    async def forward(self, id: str, lease: float) -> bool:
        """Say that the request is about to leave for a provider, and renew the lease; call again to renew.

        False when nothing is held under that id: it is unknown, settled, or its lease ran out and was ended.
        """
        ...

    async def settle(self, id: str, amounts: Sequence[int]) -> bool:
        """Replace what was held by what was used, `amounts` in the order of the holds.

        Charged in the window the reservation was made in. True for the first settle of a reservation; a second one, or
        one of an unknown id, changes nothing. The first settle after an expiry corrects what the expiry charged, within
        `LATE_SETTLE`. ValueError, and nothing changed, when the amounts do not match the holds or are out of range.
        """
        ...

    async def expire(self) -> Sequence[Expired]:
        """End leases that ran out, each exactly once among all workers, and say what became of them.

        At most `EXPIRE_BATCH` of them, the longest overdue first: call again until it answers none. Also forgets what
        is no longer needed (ended windows but the last one, what can no longer be settled, notes that ran out), so call
        it every few seconds. A lease counts until this ends it: a late `forward` still renews it.
        """
        ...

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        """Read (scope, window seconds) pairs in their current window; an unknown scope reads as zeros."""
        ...

    async def share(self, board: str, author: str, note: bytes, ttl: float) -> Sequence[bytes]:
        """Put `note` in place of the author's last one on `board`, for `ttl` seconds, and return the others' notes.

        Those are the notes that have not run out, ordered by their authors. `author` is a process's own random id. An
        empty note takes the author's away. Forgets the notes that ran out, on every board. ValueError, and nothing
        changed, for a note of more than `MAX_NOTE` bytes.
        """
        ...

    async def close(self) -> None: ...


def window_at(now: float, window: int) -> tuple[int, float | None]:
    """Find the window that `now` is in: its number, and when it ends (None: never).

    Windows of seconds are counted from a Monday, 0:00 UTC, so that minutes, hours, days and weeks begin where people
    expect it; windows of months from a January.
    """
    if window > 0:
        number = int((now - _MONDAY) // window)
        return number, float(_MONDAY + (number + 1) * window)
    if window == 0:
        return 0, None
    moment = time.gmtime(now)
    number = (moment.tm_year * 12 + moment.tm_mon - 1) // -window
    year, month = divmod((number + 1) * -window, 12)
    return number, float(calendar.timegm((year, month + 1, 1, 0, 0, 0)))


def check_amounts(amounts: Sequence[int], holds: int) -> None:
    """Raise ValueError unless `settle` may charge `amounts` for so many holds."""
    if len(amounts) != holds:
        raise ValueError(f"{len(amounts)} amounts for {holds} holds")
    for amount in amounts:
        if not 0 <= amount <= MAX_COUNT:
            raise ValueError(f"amount {amount} must be between 0 and {MAX_COUNT}")


def check_note(note: bytes) -> None:
    """Raise ValueError unless `share` may put `note` on a board."""
    if len(note) > MAX_NOTE:
        raise ValueError(f"a note of {len(note)} bytes must not be longer than {MAX_NOTE}")


class _Store(Protocol):
    """What a module of this package offers: the module's name is the scheme. Each is given the whole URL."""

    def check(self, url: str) -> None: ...  # raises ValueError, without repeating the URL

    def doubts(self, url: str) -> Iterable[str]: ...  # what is probably not meant

    def from_url(self, url: str) -> Counters: ...


_ALIASES = {"rediss": "redis"}


def check_counters(url: str) -> None:
    """Raise ValueError when `open_counters` could not take `url`. Opens nothing, and repeats no secret."""
    _store(url).check(url)


def doubt_counters(url: str) -> Iterable[str]:
    """Say what is probably not meant in a URL that was checked."""
    return _store(url).doubts(url)


def open_counters(url: str) -> Counters:
    """Open `memory:`, `sqlite:PATH` (relative to the working directory), or what else has a place in this package."""
    return _store(url).from_url(url)


def _store(url: str) -> _Store:
    scheme, colon, _ = url.partition(":")
    scheme = _ALIASES.get(scheme, scheme)
    schemes = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if not colon or scheme not in schemes:
        raise ValueError(f"counters is one of {', '.join(f'{name}:' for name in schemes)}")
    return cast("_Store", importlib.import_module(f"{__name__}.{scheme}"))
