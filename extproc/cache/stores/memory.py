"""Kept answers in this process, the least recently used leave first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from extproc.cache.stores import OVERHEAD


class MemoryStore:
    """A store of at most `limit` bytes: values and their overhead."""

    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._now = now
        self._size = 0
        self._entries: OrderedDict[bytes, tuple[bytes, bytes, float]] = OrderedDict()  # key -> value, owner, end

    async def get(self, key: bytes) -> bytes | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if found[2] <= self._now():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[0]

    async def put(self, key: bytes, value: bytes, owner: bytes, ttl: float) -> None:
        size = len(value) + OVERHEAD
        if size > self._limit:
            return
        if key in self._entries:
            self._drop(key)
        while self._size + size > self._limit:
            self._size -= len(self._entries.popitem(last=False)[1][0]) + OVERHEAD
        self._entries[key] = value, owner, self._now() + ttl
        self._size += size

    def _drop(self, key: bytes) -> None:
        self._size -= len(self._entries.pop(key)[0]) + OVERHEAD

    async def forget(self, owner: bytes) -> int:
        keys = [key for key, (_, whose, _) in self._entries.items() if whose == owner]
        for key in keys:
            self._drop(key)
        return len(keys)

    async def clear(self) -> int:
        count, self._size = len(self._entries), 0
        self._entries.clear()
        return count

    async def stats(self) -> Mapping[str, int]:
        return {"entries": len(self._entries), "bytes": self._size, "limit": self._limit}

    async def close(self) -> None:
        self._entries.clear()
