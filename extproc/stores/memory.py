"""Counters and boards in the memory of one process: `memory:`. They end with the process.

A count lives in the bucket of its window, so an ended window of any size is deleted by one `del`. A settled reservation
is forgotten at once: a second settle finds an unknown id. Expired reservations are remembered, for a late settle.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from msgspec.structs import replace

from extproc.stores import (
    CORRECTED,
    EXPIRE_BATCH,
    LATE_SETTLE,
    MAX_COUNT,
    MAX_LOOK,
    MAX_PARKED,
    PAGE,
    Count,
    Counters,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    Parked,
    Waits,
    check_amounts,
    check_extension,
    check_facts,
    check_note,
    fuller,
    resets_in,
    window_at,
)

MAX_EXPIRED = 50_000  # most expired reservations remembered for a late settle; the oldest are forgotten early
IDLE_BATCH = 5000  # most idle counts that one call of `expire` reads


@dataclass(slots=True)
class _Count:
    settled: int = 0
    reserved: int = 0


_Bucket = dict[str, _Count]  # one window of one length: scope -> count, without all-zero counts


@dataclass(slots=True)
class _Reservation:
    holds: tuple[Hold, ...]
    buckets: list[_Bucket]  # the bucket of each hold, kept so that it can be settled after its window's end
    ends: list[float | None]  # ends of the windows of `buckets`
    deadline: float  # end of the lease; once expired, the time of the expiry
    facts: bytes = b""
    forwarded: bool = False
    charged: tuple[int, ...] | None = None  # the charges of a settle with `keep`
    ended: bool = False  # True: its lease has ended and it is not recorded yet

    @property
    def over(self) -> bool:
        return self.ended or self.charged is not None

    def charged_at_expiry(self) -> tuple[int, ...]:
        return tuple(hold.amount if self.forwarded and not hold.slot else 0 for hold in self.holds)


class MemoryCounters:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._buckets: dict[tuple[int, int], _Bucket] = {}  # buckets by window length and number
        self._live: dict[str, _Reservation] = {}  # reservations by id, kept ones included
        self._expired: dict[str, _Reservation] = {}  # expired reservations by id, the oldest first
        self._parked: dict[str, float] = {}  # id -> time at which it is due
        # Heap with at least one entry for each live reservation, not later than its deadline. Renewing and settling do
        # not change the heap.
        self._leases: list[tuple[float, str]] = []
        # Times at which counts without a window may be forgotten: at least one entry for each count, not later than its
        # time.
        self._idle: dict[str, float] = {}
        self._idle_queue: list[tuple[float, str]] = []
        self._notes: dict[tuple[str, str], tuple[float, bytes]] = {}  # notes by board and author: end, note

    async def reserve(self, id: str, holds: Sequence[Hold], lease: float, *, facts: bytes = b"") -> Granted | Denied:
        check_facts(facts)
        if id in self._live or id in self._expired:
            raise ValueError(f"reservation {id!r} exists")
        now = self._clock()
        buckets: list[_Bucket] = []
        all_ends: list[float | None] = []
        for index, hold in enumerate(holds):
            number, ends = window_at(now, hold.window)
            bucket = self._buckets.get((hold.window, number))
            if bucket is None:
                bucket = self._open_bucket(hold.window, number, now)
            count = bucket.get(hold.scope)
            room = hold.limit if count is None else hold.limit - count.settled - count.reserved
            if hold.amount > room:
                for taken, taken_from in zip(holds, buckets, strict=False):
                    _add_to_count(taken_from, taken.scope, 0, -taken.amount)
                return Denied(index, max(room, 0), resets_in(ends, now))
            if count is None:
                bucket[hold.scope] = _Count(0, hold.amount)
            else:
                count.reserved += hold.amount
            buckets.append(bucket)
            all_ends.append(ends)
        deadline = now + lease
        self._live[id] = reservation = _Reservation(tuple(holds), buckets, all_ends, deadline, facts)
        self._queue(deadline, id)
        return self._granted(reservation, now)

    async def forward(self, ids: Sequence[str]) -> None:
        now = self._clock()
        for id in ids:
            if (live := self._live.get(id)) is not None:
                live.forwarded = live.forwarded or not live.over
            elif (released := self._expired.get(id)) is not None and not released.forwarded:
                del self._expired[id]
                released.forwarded = released.ended = True
                released.deadline = now
                self._live[id] = released
                self._queue(now, id)
                for hold, bucket, amount in zip(
                    released.holds, released.buckets, released.charged_at_expiry(), strict=True
                ):
                    _add_to_count(bucket, hold.scope, amount, 0)
                    self._touch(hold, now, LATE_SETTLE)

    async def void(self, ids: Sequence[str]) -> None:
        now = self._clock()
        for id in ids:
            live = self._live.get(id)
            if live is not None and not live.over and not live.forwarded:
                for hold, bucket in zip(live.holds, live.buckets, strict=True):
                    _add_to_count(bucket, hold.scope, 0, -hold.amount)
                    self._touch(hold, now)
                del self._live[id]
            elif live is not None or id in self._expired:
                continue
            self._expired[id] = _Reservation((), [], [], now)

    async def renew(self, ids: Sequence[str], lease: float) -> None:
        deadline = self._clock() + lease
        for id in ids:
            reservation = self._live.get(id)
            if reservation is not None and not reservation.over and id not in self._parked:
                if deadline < reservation.deadline:
                    self._queue(deadline, id)
                reservation.deadline = deadline

    async def extend(self, id: str, holds: Sequence[Hold]) -> Granted | Denied | None:
        reservation = self._live.get(id)
        if reservation is None or reservation.over or id in self._parked:
            return None
        check_extension(holds, [(held.scope, held.window, held.slot) for held in reservation.holds])
        now = self._clock()
        for index, (hold, bucket) in enumerate(zip(holds, reservation.buckets, strict=True)):
            count = bucket.get(hold.scope) or _Count()
            room = hold.limit - count.settled - count.reserved
            if hold.amount and hold.amount > room:
                for taken, taken_from in zip(holds[:index], reservation.buckets, strict=False):
                    _add_to_count(taken_from, taken.scope, 0, -taken.amount)
                return Denied(index, max(room, 0), resets_in(reservation.ends[index], now))
            _add_to_count(bucket, hold.scope, 0, hold.amount)
        reservation.holds = tuple(
            [
                replace(hold, amount=held.amount + hold.amount)
                for held, hold in zip(reservation.holds, holds, strict=True)
            ]
        )
        return self._granted(reservation, now)

    async def park(self, id: str, facts: bytes, *, lease: float, again: float, most: int = MAX_PARKED) -> bool:
        check_facts(facts)
        live = self._live.get(id)
        if live is None or live.over or (id not in self._parked and len(self._parked) >= most):
            return False
        now = self._clock()
        for hold, bucket in zip(live.holds, live.buckets, strict=True):
            if hold.slot:
                _add_to_count(bucket, hold.scope, 0, -hold.amount)
                self._touch(hold, now)
        live.holds = tuple([replace(hold, amount=0) if hold.slot else hold for hold in live.holds])
        live.facts, live.forwarded, live.deadline = facts, True, now + lease
        self._queue(live.deadline, id)
        self._parked[id] = now + again
        return True

    async def parked(self, *, again: float, most: int = 1, id: str = "") -> Sequence[Parked]:
        now = self._clock()
        if id:
            due = [id] if id in self._parked else []
        else:
            due = heapq.nsmallest(most, [one for one, at in self._parked.items() if at <= now], key=self._parked.get)  # type: ignore[arg-type]
        found = []
        for one in due:
            self._parked[one] = now + again
            held = self._live[one]
            scopes, amounts = (
                zip(*[(hold.scope, hold.amount) for hold in held.holds], strict=True) if held.holds else ((), ())
            )
            found.append(Parked(one, scopes, amounts, held.facts))
        return found

    async def settle(self, id: str, amounts: Sequence[int], *, keep: bool = False) -> bool:
        live = self._live.get(id)
        reservation = live or self._expired.get(id)
        if reservation is None or reservation.charged is not None:
            return False
        check_amounts(amounts, len(reservation.holds))
        now = self._clock()
        correct = not live or live.ended or self._parked.pop(id, None) is not None
        if live and not live.ended:
            for hold, bucket, amount in zip(live.holds, live.buckets, amounts, strict=True):
                _add_to_count(bucket, hold.scope, 0 if hold.slot else amount, -hold.amount)
                self._touch(hold, now)
        else:
            charged = reservation.charged_at_expiry()
            for hold, bucket, amount, was in zip(reservation.holds, reservation.buckets, amounts, charged, strict=True):
                _add_to_count(bucket, hold.scope, (0 if hold.slot else amount) - was, 0)
                self._touch(hold, now)
            self._expired.pop(id, None)
            reservation.ended = False
        if keep:
            if correct:
                reservation.deadline = now + CORRECTED
                self._queue(reservation.deadline, id)
            used = zip(reservation.holds, amounts, strict=True)
            reservation.charged = tuple([0 if hold.slot else amount for hold, amount in used])
            self._live[id] = reservation
        else:
            self._live.pop(id, None)
        return True

    async def recorded(self, ids: Sequence[str], *, expired: bool = False) -> None:
        for id in ids:
            reservation = self._live.get(id)
            if reservation is not None and (reservation.ended if expired else reservation.over):
                self._forget(id, reservation, self._clock())

    def _forget(self, id: str, reservation: _Reservation, now: float) -> None:
        """Forget a reservation that is over. An expired one can still be settled late."""
        del self._live[id]
        if reservation.ended:
            reservation.deadline = now
            self._expired[id] = reservation

    async def expire(self, *, keep: float = 0.0) -> Sequence[Expired]:
        now = self._clock()
        ended: list[Expired] = []
        while self._leases and self._leases[0][0] <= now and len(ended) < EXPIRE_BATCH:
            id = heapq.heappop(self._leases)[1]
            reservation = self._live.get(id)
            if reservation is None:  # the reservation was settled meanwhile
                continue
            if reservation.deadline > now:  # the reservation was renewed meanwhile
                heapq.heappush(self._leases, (reservation.deadline, id))
                continue
            charged = reservation.charged or reservation.charged_at_expiry()
            if not reservation.over:
                for hold, bucket, amount in zip(reservation.holds, reservation.buckets, charged, strict=True):
                    _add_to_count(bucket, hold.scope, amount, -hold.amount)
                    self._touch(hold, now, LATE_SETTLE)
                reservation.ended = True
                self._parked.pop(id, None)
            if keep and (reservation.forwarded or not reservation.ended):
                reservation.deadline = now + keep
                self._queue(reservation.deadline, id)
            else:
                self._forget(id, reservation, now)
            scopes = tuple([hold.scope for hold in reservation.holds])
            settled = not reservation.ended
            ended.append(Expired(id, reservation.forwarded, scopes, charged, settled, reservation.facts))
        self._forget_expired(now)
        self._forget_idle(now)
        self._drop_ended(now)
        self._drop_notes(now)
        return ended

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        now = self._clock()
        levels = []
        for scope, window in scopes:
            number, ends = window_at(now, window)
            count = self._buckets.get((window, number), {}).get(scope) or _Count()
            levels.append(Level(count.settled, count.reserved, resets_in(ends, now)))
        return levels

    async def reset(self, scope: str, window: int) -> int:
        number, _ = window_at(self._clock(), window)
        bucket = self._buckets.get((window, number), {})
        was = (bucket.get(scope) or _Count()).settled
        if was:
            _add_to_count(bucket, scope, -was, 0)
        return was

    async def fullest(self, prefix: str, window: int, limit: int = 100) -> Sequence[tuple[str, Level]]:
        now = self._clock()
        number, ends = window_at(now, window)
        bucket = self._buckets.get((window, number), {})
        scopes = list(islice(bucket, MAX_LOOK))
        best: list[Count] = []
        for first in range(0, len(scopes), PAGE):
            page = [
                (scope, count.settled, count.reserved)
                for scope in scopes[first : first + PAGE]
                if (scope == prefix or scope.startswith(f"{prefix}:")) and (count := bucket.get(scope))
            ]
            best = fuller(best, page, limit)
            await asyncio.sleep(0)
        return [(scope, Level(settled, reserved, resets_in(ends, now))) for scope, settled, reserved in best]

    async def share(self, board: str, author: str, note: bytes, ttl: float) -> Sequence[bytes]:
        check_note(note)
        now = self._clock()
        self._drop_notes(now)
        self._notes.pop((board, author), None)
        others = sorted((other, kept) for (place, other), (_, kept) in self._notes.items() if place == board)
        if note:
            self._notes[board, author] = now + ttl, note
        return [kept for _, kept in others]

    async def examine(self) -> str:
        return ""

    async def close(self) -> None:
        pass

    def _granted(self, reservation: _Reservation, now: float) -> Granted:
        levels = []
        for hold, bucket, ends in zip(reservation.holds, reservation.buckets, reservation.ends, strict=True):
            count = bucket.get(hold.scope) or _Count()
            levels.append(Level(count.settled, count.reserved, resets_in(ends, now)))
            self._touch(hold, now)
        return Granted(tuple(levels))

    def _touch(self, hold: Hold, now: float, least: float = 0.0) -> None:
        if hold.window:
            return
        known = self._idle.get(hold.scope)
        if not hold.idle:
            if known is not None:
                del self._idle[hold.scope]
            return
        self._idle[hold.scope] = until = max(known or 0.0, now + max(hold.idle, least))
        if known is None:
            heapq.heappush(self._idle_queue, (until, hold.scope))
            if len(self._idle_queue) > 2 * len(self._idle) + 1000:
                self._idle_queue = [(until, scope) for scope, until in self._idle.items()]
                heapq.heapify(self._idle_queue)

    def _open_bucket(self, window: int, number: int, now: float) -> _Bucket:
        self._drop_ended(now)
        return self._buckets.setdefault((window, number), {})

    def _drop_ended(self, now: float) -> None:
        """Forget ended windows but the last one, which a clock that steps back may still need."""
        for window, number in list(self._buckets):
            if number < window_at(now, window)[0] - 1:
                del self._buckets[window, number]

    def _drop_notes(self, now: float) -> None:
        for key in [key for key, (runs_out, _) in self._notes.items() if runs_out <= now]:
            del self._notes[key]

    def _queue(self, deadline: float, id: str) -> None:
        heapq.heappush(self._leases, (deadline, id))
        if len(self._leases) > 2 * len(self._live) + 1000:  # most entries are stale; as many pushes paid for this pass
            self._leases = [(reservation.deadline, id) for id, reservation in self._live.items()]
            heapq.heapify(self._leases)

    def _forget_idle(self, now: float) -> None:
        bucket = self._buckets.get((0, 0), {})
        in_use = []
        for _ in range(IDLE_BATCH):
            if not self._idle_queue or self._idle_queue[0][0] > now:
                break
            scope = heapq.heappop(self._idle_queue)[1]
            until, count = self._idle.get(scope), bucket.get(scope)
            if until is None:
                continue
            if until > now:  # the count was used meanwhile
                heapq.heappush(self._idle_queue, (until, scope))
            elif count is not None and count.reserved:
                in_use.append((now, scope))  # goes behind the other counts, so that they have a turn
            else:
                bucket.pop(scope, None)
                del self._idle[scope]
        for entry in in_use:
            heapq.heappush(self._idle_queue, entry)

    def _forget_expired(self, now: float) -> None:
        while self._expired:
            oldest = next(iter(self._expired))
            if len(self._expired) <= MAX_EXPIRED and self._expired[oldest].deadline > now - LATE_SETTLE:
                break
            del self._expired[oldest]


def _add_to_count(bucket: _Bucket, scope: str, settled: int, reserved: int) -> None:
    """Add to a count. An all-zero count is dropped, so that idle concurrency slots do not pile up."""
    count = bucket.get(scope)
    if count is None:
        count = bucket[scope] = _Count()
    count.settled = max(0, min(count.settled + settled, MAX_COUNT))
    count.reserved += reserved
    if not count.settled and not count.reserved:
        del bucket[scope]


def check(url: str) -> None:
    if url != "memory:":
        raise ValueError("memory: takes nothing after the colon")


def doubts(_url: str) -> Sequence[str]:
    return ()


def from_url(url: str, _waits: Waits) -> Counters:
    check(url)
    return MemoryCounters()
