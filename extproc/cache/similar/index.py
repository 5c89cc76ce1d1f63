"""Vectors in this process's memory, by partition. A partition is searched as a whole with numpy.

A partition is an array that doubles as it grows and then wraps around. All partitions together take `limit` bytes at
most; the least recently used partition is dropped first. Every vector of a partition is compared: 10,000 of 1024
numbers are a product of 40 MB, about 4 ms. Partitions above `_INLINE` are searched on a thread, where numpy releases
the interpreter's lock.

A score is the cosine of two vectors.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read at import: one thread, because a pool for each core would cost memory
import numpy as np  # noqa: E402

__all__ = ["Index", "KeptQuestion", "Near", "Vector", "np"]

_INLINE = 1 << 20  # most bytes searched on the event loop, about 0.1 ms
_BEST = 8  # candidates of a search, because some may have expired
_OVERHEAD = 700  # bytes of memory of a row beside its vector
_PART = 600  # bytes of memory of a partition beside its rows

Vector = Any
"""An array of float32, of one dimension."""


class KeptQuestion(NamedTuple):
    """A kept question. `key` is the key of its answer."""

    key: bytes
    owner: bytes
    ends: float  # seconds since the epoch
    text: str = ""  # kept only if samples show texts, or a model verifies


class Near(NamedTuple):
    score: float
    row: KeptQuestion


class _Part:
    __slots__ = ("next", "places", "rows", "vectors")

    def __init__(self, size: int) -> None:
        self.vectors = np.zeros((1, size), np.float32)  # each vector has the length 1
        self.rows: list[KeptQuestion | None] = []
        self.places: dict[bytes, int] = {}
        self.next = 0  # the next place to overwrite, once the array is full


class Index:
    """Questions of all partitions, in `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: OrderedDict[bytes, _Part] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None
        self.size = 0  # bytes of all partitions
        self.count = 0

    async def best(self, partition: bytes, vector: Vector, least: float, now: float) -> Near | None:
        """The nearest unexpired row with a score of `least` or more. `vector` has the length 1, `now` is in epoch
        seconds.
        """
        part = self._parts.get(partition)
        if part is None or part.vectors.shape[1] != len(vector):
            return None
        self._parts.move_to_end(partition)
        rows = len(part.rows)
        if part.vectors.nbytes <= _INLINE:
            places = _search(part.vectors, rows, vector)
        else:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "similar")
            run = asyncio.get_running_loop().run_in_executor
            places = await run(self._thread, _search, part.vectors, rows, vector)
        for place in places:
            # Compute the score again, because rows may have changed while the thread was searching.
            row, score = part.rows[place], float(part.vectors[place] @ vector)
            if row is not None and score >= least and row.ends > now:
                return Near(min(1.0, score), row)
        return None

    def add(self, partition: bytes, vector: Vector, row: KeptQuestion) -> None:
        """Keep a question, replacing one with the same key. `vector` has the length 1."""
        width = vector.nbytes + _OVERHEAD + 2 * len(row.text)
        if width + _PART > self._limit:
            return
        part = self._parts.get(partition)
        if part is not None and part.vectors.shape[1] != len(vector):
            self._drop(partition)
            part = None
        if part is None:
            part = self._parts[partition] = _Part(len(vector))
            self.size += _PART + _space(part)
        self._parts.move_to_end(partition)
        place = part.places.get(row.key)
        if place is None:
            place = self._place(part)
        old = part.rows[place]
        if old is None:
            self.count += 1
        else:
            part.places.pop(old.key, None)
            self.size -= 2 * len(old.text)
        part.rows[place], part.places[row.key] = row, place
        part.vectors[place] = vector
        self.size += 2 * len(row.text)
        while self.size > self._limit and len(self._parts) > 1:
            self._drop(next(iter(self._parts)))

    def _place(self, part: _Part) -> int:
        """The place of a new row: an additional one, or that of the oldest row if the partition is full."""
        rows, capacity = len(part.rows), len(part.vectors)
        if rows == capacity:
            row = _space(part) // capacity
            more = min(capacity, (self._limit - _PART - _space(part)) // row)
            if more < 1:
                part.next = (part.next + 1) % rows
                return part.next
            # Make new arrays, because a search on the thread still uses the old ones.
            self.size -= _space(part)
            part.vectors = np.concatenate([part.vectors, np.zeros((more, part.vectors.shape[1]), np.float32)])
            self.size += _space(part)
        part.rows.append(None)
        return rows

    def remove(self, partition: bytes, key: bytes) -> None:
        """Forget the question with that key, because its answer is gone."""
        part = self._parts.get(partition)
        if part is not None and (place := part.places.pop(key, None)) is not None:
            self._blank(part, place)

    def _blank(self, part: _Part, place: int) -> None:
        row = part.rows[place]
        if row is not None:
            self.size -= 2 * len(row.text)
            self.count -= 1
        part.rows[place] = None
        part.vectors[place] = 0

    def forget(self, owner: bytes) -> None:
        for part in self._parts.values():
            for place, row in enumerate(part.rows):
                if row is not None and row.owner == owner:
                    del part.places[row.key]
                    self._blank(part, place)

    def clear(self) -> None:
        self._parts.clear()
        self.size = self.count = 0

    def _drop(self, partition: bytes) -> None:
        part = self._parts.pop(partition)
        rows = [row for row in part.rows if row is not None]
        self.count -= len(rows)
        self.size -= _PART + _space(part) + sum(2 * len(row.text) for row in rows)


def _space(part: _Part) -> int:
    return int(part.vectors.nbytes) + _OVERHEAD * len(part.vectors)


def _search(vectors: Vector, rows: int, unit: Vector) -> Sequence[int]:
    """The places of the nearest rows, the nearest first."""
    scores = vectors[:rows] @ unit
    nearest = np.argpartition(scores, -_BEST)[-_BEST:] if rows > _BEST else np.arange(rows)
    found: list[int] = nearest[np.argsort(scores[nearest])[::-1]].tolist()
    return found
