"""Counters in the memory of one process: `memory:`. They end with it, and so do the notes on its boards.

A count lives in the bucket of its window, so an ended window goes in one `del`, whatever it holds. A settled
reservation is forgotten at once: a second settle finds an unknown id. Expired ones are remembered, for the late settle.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extproc.stores import (
    EXPIRE_BATCH,
    LATE_SETTLE,
    MAX_COUNT,
    Counters,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    check_amounts,
    check_note,
    window_at,
)

MAX_EXPIRED = 50_000  # expired reservations remembered for a late settle; beyond it the oldest are forgotten early


@dataclass(slots=True)
class _Count:
    settled: int = 0
    reserved: int = 0


_Bucket = dict[str, _Count]  # one window of one length: scope -> count, without those that are all zero


@dataclass(slots=True)
class _Reservation:
    holds: tuple[Hold, ...]
    buckets: list[_Bucket]  # where each hold was taken: kept by reference, so that it settles there even after its end
    deadline: float  # of the lease; once expired, when that was
    forwarded: bool = False

    def charged_at_expiry(self) -> tuple[int, ...]:
        return tuple(hold.amount if self.forwarded and not hold.slot else 0 for hold in self.holds)


class MemoryCounters:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._buckets: dict[tuple[int, int], _Bucket] = {}  # by window length and number
        self._live: dict[str, _Reservation] = {}
        self._expired: dict[str, _Reservation] = {}  # oldest first
        # At least one entry per live reservation, not later than its deadline. Renewing and settling leave it alone.
        self._leases: list[tuple[float, str]] = []
        self._notes: dict[tuple[str, str], tuple[float, bytes]] = {}  # by board and author: when it runs out, the note

    async def reserve(
        self, id: str, holds: Sequence[Hold], lease: float, *, forwarded: bool = False
    ) -> Granted | Denied:
        if id in self._live or id in self._expired:
            raise ValueError(f"reservation {id!r} exists")
        now = self._clock()
        buckets: list[_Bucket] = []
        resets: list[float | None] = []
        for index, hold in enumerate(holds):
            number, ends = window_at(now, hold.window)
            resets_in = None if ends is None else ends - now
            bucket = self._buckets.get((hold.window, number))
            if bucket is None:
                bucket = self._open_bucket(hold.window, number, now)
            count = bucket.get(hold.scope)
            room = hold.limit if count is None else hold.limit - count.settled - count.reserved
            if hold.amount > room:
                for taken, taken_from in zip(holds, buckets, strict=False):
                    _move(taken_from, taken.scope, 0, -taken.amount)
                return Denied(index, max(room, 0), resets_in)
            if count is None:
                bucket[hold.scope] = _Count(0, hold.amount)
            else:
                count.reserved += hold.amount
            buckets.append(bucket)
            resets.append(resets_in)
        deadline = now + lease
        self._live[id] = _Reservation(tuple(holds), buckets, deadline, forwarded)
        self._queue(deadline, id)
        return Granted(
            tuple(
                [
                    Level((count := bucket[hold.scope]).settled, count.reserved, resets_in)
                    for hold, bucket, resets_in in zip(holds, buckets, resets, strict=True)
                ]
            )
        )

    async def forward(self, id: str, lease: float) -> bool:
        reservation = self._live.get(id)
        if reservation is None:
            return False
        deadline = self._clock() + lease
        if deadline < reservation.deadline:
            self._queue(deadline, id)
        reservation.deadline = deadline
        reservation.forwarded = True
        return True

    async def settle(self, id: str, amounts: Sequence[int]) -> bool:
        live = self._live.get(id)
        reservation = live or self._expired.get(id)
        if reservation is None:
            return False
        check_amounts(amounts, len(reservation.holds))
        if live:
            for hold, bucket, amount in zip(live.holds, live.buckets, amounts, strict=True):
                _move(bucket, hold.scope, 0 if hold.slot else amount, -hold.amount)
            del self._live[id]
        else:
            charged = reservation.charged_at_expiry()
            for hold, bucket, amount, was in zip(reservation.holds, reservation.buckets, amounts, charged, strict=True):
                _move(bucket, hold.scope, (0 if hold.slot else amount) - was, 0)
            del self._expired[id]
        return True

    async def expire(self) -> Sequence[Expired]:
        now = self._clock()
        ended: list[Expired] = []
        while self._leases and self._leases[0][0] <= now and len(ended) < EXPIRE_BATCH:
            id = heapq.heappop(self._leases)[1]
            reservation = self._live.get(id)
            if reservation is None:  # settled since
                continue
            if reservation.deadline > now:  # renewed since
                heapq.heappush(self._leases, (reservation.deadline, id))
                continue
            charged = reservation.charged_at_expiry()
            for hold, bucket, amount in zip(reservation.holds, reservation.buckets, charged, strict=True):
                _move(bucket, hold.scope, amount, -hold.amount)
            del self._live[id]
            reservation.deadline = now
            self._expired[id] = reservation
            ended.append(Expired(id, reservation.forwarded, tuple(hold.scope for hold in reservation.holds), charged))
        self._forget_expired(now)
        self._drop_ended(now)
        self._drop_notes(now)
        return ended

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        now = self._clock()
        levels = []
        for scope, window in scopes:
            number, ends = window_at(now, window)
            count = self._buckets.get((window, number), {}).get(scope) or _Count()
            levels.append(Level(count.settled, count.reserved, None if ends is None else ends - now))
        return levels

    async def share(self, board: str, author: str, note: bytes, ttl: float) -> Sequence[bytes]:
        check_note(note)
        now = self._clock()
        self._drop_notes(now)
        self._notes.pop((board, author), None)
        others = sorted((other, kept) for (place, other), (_, kept) in self._notes.items() if place == board)
        if note:
            self._notes[board, author] = now + ttl, note
        return [kept for _, kept in others]

    async def close(self) -> None:
        pass

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
        if len(self._leases) > 2 * len(self._live) + 1000:  # mostly settled ones: as many pushes paid for this pass
            self._leases = [(reservation.deadline, id) for id, reservation in self._live.items()]
            heapq.heapify(self._leases)

    def _forget_expired(self, now: float) -> None:
        while self._expired:
            oldest = next(iter(self._expired))
            if len(self._expired) <= MAX_EXPIRED and self._expired[oldest].deadline > now - LATE_SETTLE:
                break
            del self._expired[oldest]


def _move(bucket: _Bucket, scope: str, settled: int, reserved: int) -> None:
    """Add to a count. One that is all zero is dropped: idle concurrency slots must not pile up."""
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


def from_url(url: str) -> Counters:
    check(url)
    return MemoryCounters()
