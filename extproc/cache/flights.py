"""Flights: of equal requests in flight only the first goes to a provider; the others wait for its answer, for a while.

The answer to the first request ends the wait. If it gets none, the waiting requests go to a provider themselves.
"""

from __future__ import annotations

import asyncio
import time

from extproc.cache.entry import Entry


class Flight:
    """The first of equal requests, and the requests that wait for its answer."""

    __slots__ = ("_entry", "_landed", "_waiting", "begun", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.begun = time.monotonic()
        self._landed = False
        self._entry: Entry | None = None
        self._waiting: set[asyncio.Future[None]] | None = None  # requests that wait; most flights have none

    async def wait(self, seconds: float) -> Entry | None:
        """Wait for the flight's answer; None when there is none, or none in time.

        The first step of a call runs outside of a task, where `asyncio.timeout` raises: see `transport.Call`.
        """
        if not self._landed:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            waiting = self._waiting
            if waiting is None:
                waiting = self._waiting = set()
            waiting.add(waiter)
            timer = loop.call_later(seconds, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                waiting.discard(waiter)
        return self._entry

    def land(self, entry: Entry | None) -> None:
        """End the wait of the waiting requests."""
        if self._landed:
            return
        self._landed, self._entry = True, entry
        for waiter in self._waiting or ():
            _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Flights:
    """The flights of one process."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}
        self.waiting = 0

    def begin(self, key: bytes, longest: float) -> Flight | None:
        """A new flight; None if one is under way. A flight too old for any request to wait for is given up."""
        known = self._flights.get(key)
        if known is not None and time.monotonic() - known.begun < longest:
            return None
        flight = self._flights[key] = Flight(key)
        return flight

    async def join(self, key: bytes, seconds: float, most: int) -> Entry | None:
        """The answer of the flight under way; None when there is none in time, or `most` requests wait already."""
        flight = self._flights.get(key)
        if flight is None or self.waiting >= most:
            return None
        self.waiting += 1
        try:
            return await flight.wait(seconds)
        finally:
            self.waiting -= 1

    def end(self, flight: Flight, entry: Entry | None = None) -> None:
        """Land a flight, if it has not landed, and forget it: from now on its answer is in the store, or lost."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.land(entry)

    def __len__(self) -> int:
        return len(self._flights)
