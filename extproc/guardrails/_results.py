"""Tool results in quarantine: the raw text behind a reference, and the known answers about it."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

OVERHEAD = 600
"""Bytes of memory that a result takes beside its texts."""


@dataclass(slots=True)
class KeptResult:
    """A result: its raw text, and the text that stands in its place. Only `consumer` may read it."""

    consumer: str
    tool: str
    raw: str
    shown: str
    until: float

    @property
    def size(self) -> int:
        return OVERHEAD + 2 * len(self.raw) + len(self.shown)


class ReadResult(NamedTuple):
    """A result as it was read. `own` is the reference in its text, if this gateway may have written it."""

    tool: str
    text: str
    omitted: int
    own: str
    reference: str


class Results:
    """Results by their reference, up to `most` bytes: the least recently used one is dropped first."""

    def __init__(self, most: int = 32 << 20, now: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.size = 0
        self._all: OrderedDict[str, KeptResult] = OrderedDict()
        self._now = now

    def find(self, reference: str, consumer: str) -> KeptResult | None:
        """The result of a reference, for its own consumer only."""
        kept = self._all.get(reference)
        if kept is None or kept.consumer != consumer:
            return None
        if kept.until <= self._now():
            self._forget(reference)
            return None
        return kept

    def keep(self, reference: str, kept: KeptResult, ttl: float) -> None:
        """Keep a result for `ttl` seconds from now. A result larger than `most` is not kept."""
        if reference in self._all:
            self._forget(reference)
        if kept.size > self.most:
            return
        kept.until = self._now() + ttl
        self._all[reference] = kept
        self.size += kept.size
        while self.size > self.most:
            self._forget(next(iter(self._all)))

    def _forget(self, reference: str) -> None:
        self.size -= self._all.pop(reference).size


def reference(consumer: str, rules: bytes, tool: str, raw: str) -> str:
    """The reference of a result. Equal results of a consumer under equal rules have equal references, so that a
    conversation reads the same each time it is sent, at any replica.
    """
    digest = hashlib.blake2b(rules, digest_size=16, person=b"quarantine")
    for text in (consumer, tool, raw):
        data = text.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8) + data)
    return f"q_{digest.hexdigest()}"
