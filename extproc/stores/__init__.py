"""Counters of budgets and rate limits, and the boards where processes that share a store leave each other notes. One
interface, one conformance suite, a file or folder per store.

An exchange holds amounts on several *scopes* at once and settles its real use. The store decides atomically and on its
own clock, so any number of workers that share it behave as one. Amounts are integers, 0 to `MAX_COUNT`.

   reserve ──► forward ──► settle ──► recorded    the lease ran out:  reserved, never forwarded → released
      ├─ Denied   ├ extend                                            forwarded, or parked → charged in full
      │           └ park ──► parked ──► settle                        settled, not recorded → reported, as charged
      └─ no answer ──► void

Any call may reach the store late, twice or after the end of its process; the outcome is the same.

`settled + reserved <= limit` holds for every scope at every instant, unless a settle exceeds its reservation: the truth
is recorded, and the scope is closed until its window ends.

The use of an exchange is also written to the ledger, a moment after its settle. A reservation settled with `keep` is
remembered until `recorded`. If its process dies in between, its lease runs out, and the process that ends the lease
gets the charge and can write it.

A reservation is *parked* when its exchange has ended and its use will be known later, such as a batch's. Its amounts
stay held. Each time it is due, the store gives it to one process, which looks up its use.

A *board* holds one note of each author for a while: the findings of each process, for the others to read. The store
does not read notes. The note of a process that dies runs out.
"""

from __future__ import annotations

import calendar
import heapq
import importlib
import pkgutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import Protocol, TypeVar, cast

import msgspec

MAX_COUNT = 2**63 - 1  # highest count that every store keeps exactly; a larger count stays at it
EXPIRE_BATCH = 500  # most leases ended by one call of `expire`, so that no call blocks the store for long
LATE_SETTLE = 3600.0  # fewest seconds for which an expired reservation is remembered, to be corrected
CORRECTED = 60.0  # seconds for which the charge of a late settle is kept before `expire` reports it again
TIMEOUT = 0.2  # seconds of a store's silence after which calls fail, by default
PATIENCE = 3.0  # seconds that a call waits for a store which answers other calls
MAX_FACTS = 4096  # most bytes of a reservation's facts
MAX_NOTE = 64 * 1024  # most bytes of a note on a board
MAX_PARKED = 10_000  # most reservations parked at a time, by default
_LEASE = 10.0  # seconds that the reservation of `write` is kept if its settle does not arrive
PAGE = 1000  # counts that `fullest` reads at a time, before other callers have a turn
MAX_LOOK = 100_000  # most counts that one call of `fullest` reads
_T = TypeVar("_T")

_MONDAY = 4 * 86_400  # the first Monday after the epoch, which was a Thursday


class StoreError(Exception):
    """The store did not answer, so the outcome of the call is unknown; the budget's `store_failure` decides. The
    error's text has no secret.
    """


class NotSentError(StoreError):
    """The store did not answer, and certainly did nothing."""


class CountsLostError(StoreError):
    """The store answers, but its counts are gone. Raised by `expire`, once for each loss."""


class Hold(msgspec.Struct, frozen=True):
    """`amount` units wanted on `scope` (for example `rpm:consumer=ci-bot`), of which `limit` exist per window.

    It fits when `settled + reserved + amount <= limit`. `window` is in seconds, or minus a number of calendar months
    (-1 a month, -3 a quarter), see `window_at`; 0 means no window: the count never ends. The window's number is part of
    the key, so nothing has to be reset when a window ends.

    A `slot` is held while the request lasts and never charged: a concurrency limit.

    `idle` is for a count without a window, which would stay forever. `expire` forgets the count after `idle` seconds
    without an amount reserved, extended, settled or expired on it. 0: never, from now on. A count with a reservation is
    not idle, and an expired hold keeps its count for at least `LATE_SETTLE`, so that the charge can be corrected.
    """

    scope: str
    window: int
    limit: int
    amount: int
    slot: bool = False
    idle: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.amount <= MAX_COUNT and 0 <= self.limit <= MAX_COUNT):
            raise ValueError(f"amount {self.amount} and limit {self.limit} must be between 0 and {MAX_COUNT}")
        if not 0 <= self.idle < inf:
            raise ValueError(f"idle {self.idle} must be a number of seconds, 0 or more")


class Denied(msgspec.Struct, frozen=True):
    """A denial: the index of the first hold that did not fit, the room left on its scope (>= 0), and seconds to the
    reset.

    Earlier holds of the same request on that scope reduce the room. `resets_in` is None when the window never ends.
    """

    index: int
    remaining: int
    resets_in: float | None


class Level(msgspec.Struct, frozen=True):
    """One scope in its current window: integers >= 0, and seconds until the window ends (None: never)."""

    settled: int
    reserved: int
    resets_in: float | None


class Granted(msgspec.Struct, frozen=True):
    """A reservation that fits: for each hold, in order, the level of its scope after the hold, in the reservation's own
    window.
    """

    levels: tuple[Level, ...]


class Expired(msgspec.Struct, frozen=True):
    """A reservation whose lease ran out. `amounts` are the charges of each hold: 0 for a slot, and if never forwarded.

    With `settled` the reservation was settled and kept, but not recorded: `amounts` are the charges of that settle.
    `facts` are those given to `reserve`.
    """

    id: str
    forwarded: bool
    scopes: tuple[str, ...]
    amounts: tuple[int, ...]
    settled: bool = False
    facts: bytes = b""


class Parked(msgspec.Struct, frozen=True):
    """A reservation whose use is not known yet. `amounts` are the held amounts, 0 for a slot. `facts` are those of the
    last `park`.
    """

    id: str
    scopes: tuple[str, ...]
    amounts: tuple[int, ...]
    facts: bytes


class Waits(msgspec.Struct, frozen=True):
    """Seconds that calls wait for a store. After `timeout` seconds of silence they fail. If the store answers other
    calls, they fail after `patience` seconds.
    """

    timeout: float = TIMEOUT
    patience: float = PATIENCE


class Counters(Protocol):
    """The interface of a store. Every method but `fullest` is one round trip. All raise StoreError when the store does
    not answer.
    """

    async def reserve(self, id: str, holds: Sequence[Hold], lease: float, *, facts: bytes = b"") -> Granted | Denied:
        """Take every hold or none. `id` is the server's own; `lease` is in seconds. `holds` may be empty. `facts` are
        at most `MAX_FACTS` bytes, which the store does not read; `expire` returns them when the lease runs out.

        ValueError for longer facts, and when a reservation of that id is still held or remembered, because replacing it
        would lose its holds. After a StoreError other than NotSentError the caller voids the id.
        """
        ...

    async def forward(self, ids: Sequence[str]) -> None:
        """Mark reservations whose requests have left for a provider, a batch at a time. The leases stay as they are.

        A reservation that was released because its lease ran out is charged now, and `expire` reports it once more. Ids
        that are unknown, settled or marked are ignored. After a StoreError some may be marked: call again.
        """
        ...

    async def void(self, ids: Sequence[str]) -> None:
        """Release reservations whose `reserve` got no answer, a batch at a time, whether they have arrived or not: an
        id that is voided is refused for `LATE_SETTLE` seconds.

        Forwarded, settled or ended reservations are ignored. After a StoreError some may be voided: call again.
        """
        ...

    async def renew(self, ids: Sequence[str], lease: float) -> None:
        """Renew the leases of many reservations, a batch at a time. Ids that hold nothing are ignored.

        After a StoreError some may be renewed.
        """
        ...

    async def extend(self, id: str, holds: Sequence[Hold]) -> Granted | Denied | None:
        """Hold `amount` more on each scope, all or none. None when nothing is held under that id: it is
        unknown, settled, or its lease ran out and was ended.

        `holds` are the reservation's holds, in its order, with the further amounts; ValueError for other holds. They
        count in the windows of the reservation, so `resets_in` is 0 for a window that has ended. A hold of amount 0
        asks for nothing and is never denied. The lease stays as it is.

        After a StoreError the extension may have happened: then more is held until the settle, which is safe.
        """
        ...

    async def park(self, id: str, facts: bytes, *, lease: float, again: float, most: int = MAX_PARKED) -> bool:
        """Keep what a reservation holds for `lease` seconds after the end of its exchange, slots excepted, with `facts`
        in place of its own. `parked` returns the reservation after `again` seconds. False when nothing is held under
        that id, or `most` others are parked.

        Parking again replaces facts and times. A parked reservation counts as forwarded; `renew`, `extend` and `void`
        ignore it. Settled with `keep`, it is reported after `CORRECTED` seconds. ValueError for facts longer than
        `MAX_FACTS`. After a StoreError the reservation may be parked.
        """
        ...

    async def parked(self, *, again: float, most: int = 1, id: str = "") -> Sequence[Parked]:
        """Take parked reservations that are due, the longest overdue first, `most` at most. With `id` only that
        reservation, due or not. Each is due again after `again` seconds, unless it is settled or parked anew; no other
        caller gets it before. After a StoreError some may have been taken.
        """
        ...

    async def settle(self, id: str, amounts: Sequence[int], *, keep: bool = False) -> bool:
        """Replace the amounts held by the amounts used, `amounts` in the order of the holds.

        The charge counts in the window in which the reservation was made. True for the first settle of a reservation; a
        second one, or one of an unknown id, changes nothing. The first settle after an expiry corrects the charge of
        the expiry, within `LATE_SETTLE`. ValueError, and nothing changed, when the amounts do not match the holds or
        are out of range.

        With `keep` the reservation stays remembered, with the rest of its lease, until `recorded` or `expire`. An
        expired reservation gets a new lease of `CORRECTED` seconds: its report then has the amounts used.
        """
        ...

    async def recorded(self, ids: Sequence[str], *, expired: bool = False) -> None:
        """Forget kept reservations, because their use is written. Other ids are ignored.

        An expired reservation can still be settled late. With `expired` the written rows have the charges of expired
        leases: reservations settled since then are ignored, because their charges differ.

        After a StoreError `expire` may report them, although they are recorded.
        """
        ...

    async def expire(self, *, keep: float = 0.0) -> Sequence[Expired]:
        """End leases that ran out, each exactly once among all workers, and return their charges.

        With `keep` a charge is remembered and returned again, every `keep` seconds, until it is `recorded`, because the
        caller may die before writing it. Without `keep` it is returned once.

        Ends at most `EXPIRE_BATCH` leases, the longest overdue first: call again until it returns none. Also forgets
        old entries (ended windows but the last one, idle counts, reservations too old for a late settle, notes that ran
        out), a bounded number at a time, so call it every few seconds. A lease counts until this call ends it: a late
        `renew` still renews it. Ending the lease of a kept reservation changes no count.
        """
        ...

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        """Read (scope, window seconds) pairs in their current window; an unknown scope reads as zeros."""
        ...

    async def reset(self, scope: str, window: int) -> int:
        """Begin a count anew in its current window. Returns the settled amount, which no longer counts. Held amounts
        stay, and are charged when they are settled.
        """
        ...

    async def fullest(self, prefix: str, window: int, limit: int = 100) -> Sequence[tuple[str, Level]]:
        """Find the scopes that are `prefix` or begin with `prefix + ":"`, at most `limit` of them.

        Counts of the current window, the highest settled + reserved first, without counts that are all zero. The call
        is for people: it takes a round trip for each `PAGE` counts, so that no other caller waits long, and each page
        shows its own instant. It reads at most `MAX_LOOK` counts.
        """
        ...

    async def share(self, board: str, author: str, note: bytes, ttl: float) -> Sequence[bytes]:
        """Put `note` in place of the author's last one on `board`, for `ttl` seconds, and return the others' notes.

        The returned notes have not run out, and are ordered by their authors. `author` is a process's own random id. An
        empty note removes the author's note. Also forgets expired notes, on every board. ValueError, and nothing
        changed, for a note of more than `MAX_NOTE` bytes.
        """
        ...

    async def examine(self) -> str:
        """Write and leave nothing behind, because a readable store may not be writable. Returns a fault in the store's
        own settings, or nothing.
        """
        ...

    async def close(self) -> None: ...


def read_notes(notes: Iterable[bytes], decode: Callable[[bytes], _T]) -> Iterator[_T]:
    """The decoded notes of a board. Notes of another release, in another form, are left out."""
    for note in notes:
        try:
            found = decode(note)
        except ValueError:  # msgspec.DecodeError, or bytes that are not UTF-8
            continue
        yield found


async def write(counters: Counters) -> None:
    """Write as every request does and leave nothing behind, by a reservation without holds. Raises StoreError."""
    id = f"doctor-{uuid.uuid4().hex}"
    await counters.reserve(id, (), _LEASE)
    await counters.settle(id, ())


def window_at(now: float, window: int) -> tuple[int, float | None]:
    """The window that contains `now`: its number, and its end in epoch seconds (None: never).

    Windows of seconds are counted from a Monday, 0:00 UTC, so that minutes, hours, days and weeks begin where people
    expect it; windows of months from a January.
    """
    if window == 0:
        return _ENDLESS
    begins, ends, found = _last.get(window, _NEVER)
    if begins <= now < ends:
        return found
    if window > 0:
        number = int((now - _MONDAY) // window)
    else:
        moment = time.gmtime(now)
        number = (moment.tm_year * 12 + moment.tm_mon - 1) // -window
    begins, ends = window_end(window, number - 1) or 0.0, window_end(window, number) or inf
    found = number, ends
    if begins <= now < ends and len(_last) < _MOST_WINDOWS:
        _last[window] = begins, ends, found
    return found


_ENDLESS = 0, None
_NEVER = inf, -inf, (0, None)
_MOST_WINDOWS = 100
_last: dict[int, tuple[float, float, tuple[int, float | None]]] = {}  # latest result by length of window


def window_end(window: int, number: int) -> float | None:
    """End of the window with a number from `window_at`."""
    if window > 0:
        return float(_MONDAY + (number + 1) * window)
    if window == 0:
        return None
    year, month = divmod((number + 1) * -window, 12)
    return float(calendar.timegm((year, month + 1, 1, 0, 0, 0)))


def resets_in(ends: float | None, now: float) -> float | None:
    """Seconds until a window ends: 0 once it has, None for never."""
    return None if ends is None else max(0.0, ends - now)


def check_amounts(amounts: Sequence[int], holds: int) -> None:
    """Raise ValueError unless `settle` may charge `amounts` for this number of holds."""
    if len(amounts) != holds:
        raise ValueError(f"{len(amounts)} amounts for {holds} holds")
    for amount in amounts:
        if not 0 <= amount <= MAX_COUNT:
            raise ValueError(f"amount {amount} must be between 0 and {MAX_COUNT}")


def check_extension(holds: Sequence[Hold], held: Sequence[tuple[str, int, bool]]) -> None:
    """Raise ValueError unless `holds` are those of the reservation, given as (scope, window, slot)."""
    if [(hold.scope, hold.window, hold.slot) for hold in holds] != list(held):
        raise ValueError("an extension has the holds of its reservation, in the same order")


def check_facts(facts: bytes) -> None:
    """Raise ValueError unless `reserve` may keep `facts`."""
    if len(facts) > MAX_FACTS:
        raise ValueError(f"facts of {len(facts)} bytes must not be longer than {MAX_FACTS}")


def check_note(note: bytes) -> None:
    """Raise ValueError unless `share` may put `note` on a board."""
    if len(note) > MAX_NOTE:
        raise ValueError(f"a note of {len(note)} bytes must not be longer than {MAX_NOTE}")


Count = tuple[str, int, int]  # scope, settled, reserved


def fuller(best: Sequence[Count], page: Iterable[Count], limit: int) -> list[Count]:
    """The `limit` fullest counts of both, the fullest first. If both have a scope, the page wins, being newer."""
    found = {count[0]: count for count in (*best, *page)}.values()
    some = (count for count in found if count[1] or count[2])
    return heapq.nsmallest(limit, some, key=lambda count: (-count[1] - count[2], count[0]))


class _Store(Protocol):
    """A module of this package, named like its URL scheme. Each function gets the whole URL."""

    def check(self, url: str) -> None: ...  # raises ValueError, without repeating the URL

    def doubts(self, url: str) -> Iterable[str]: ...  # lints of the URL

    def from_url(self, url: str, waits: Waits) -> Counters: ...


_ALIASES = {"rediss": "redis"}


def check_counters(url: str) -> None:
    """Raise ValueError for a `url` that `open_counters` would refuse. Opens nothing; the error repeats no secret."""
    _store(url).check(url)


def doubt_counters(url: str) -> Iterable[str]:
    """Lints of a URL that `check_counters` accepted."""
    return _store(url).doubts(url)


def open_counters(url: str, waits: Waits = Waits()) -> Counters:  # noqa: B008 - immutable
    """Open `memory:`, `sqlite:PATH` (relative to the working directory), or another scheme of this package."""
    return _store(url).from_url(url, waits)


def _store(url: str) -> _Store:
    scheme, colon, _ = url.partition(":")
    scheme = _ALIASES.get(scheme, scheme)
    schemes = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    if not colon or scheme not in schemes:
        raise ValueError(f"counters must be one of {', '.join(f'{name}:' for name in schemes)}")
    return cast("_Store", importlib.import_module(f"{__name__}.{scheme}"))
