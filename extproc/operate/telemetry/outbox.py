"""Sends records to a collector, in batches, in the background. Requests never wait for the collector."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

MOST_WAITING = 4 << 20
"""Most bytes of records that wait to be sent. Further records are dropped and counted."""
TIMEOUT = 5.0
"""Seconds for the collector to answer."""
_BATCH = 100  # most records in one request
_PAUSE = 1.0  # seconds that a record waits for further records
_TELL_EVERY = 60.0  # seconds between two log lines about a collector that fails

log = logging.getLogger(__name__)
To = TypeVar("To", contravariant=True)  # noqa: PLC0105 - the word for it
_To = TypeVar("_To")


class Sender(Protocol[To]):
    """Sends records to collectors. `to` describes a collector."""

    async def send(self, to: To, batch: Sequence[bytes]) -> str:
        """Send a batch. Returns the reason why the collector did not accept it, or empty. Raises nothing but bugs."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Outbox(Generic[_To]):
    """Sends records, and drops records if the collector is too slow. `count` gets sent, failed or dropped. `what` names
    the setting in the log.
    """

    def __init__(
        self, what: str, sender: Sender[_To], count: Callable[[str, int], None], *, pause: float = _PAUSE
    ) -> None:
        self._what = what
        self._sender = sender
        self._count = count
        self._pause = pause
        self._waiting: deque[tuple[_To, bytes]] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._told = -_TELL_EVERY

    def add(self, to: _To, record: bytes) -> None:
        """Queue a record. Never blocks."""
        if self._size + len(record) > MOST_WAITING:
            self._count("dropped", 1)
            return
        self._waiting.append((to, record))
        self._size += len(record)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self, seconds: float) -> None:
        """Send the queued records, for at most the given seconds."""
        self._pause = 0.0
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
            self._task.cancel()
        await self._sender.close()

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause)
            to = self._waiting[0][0]
            batch: list[bytes] = []
            while self._waiting and len(batch) < _BATCH and self._waiting[0][0] is to:
                batch.append(self._waiting.popleft()[1])
            problem = await self._sender.send(to, batch)
            self._size -= sum(map(len, batch))
            self._count("failed" if problem else "sent", len(batch))
            if problem and time.monotonic() - self._told >= _TELL_EVERY:
                self._told = time.monotonic()
                log.warning("the collector of %s takes nothing: %s", self._what, problem)
