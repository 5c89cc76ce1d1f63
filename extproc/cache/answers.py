"""All kept answers: a store, its encryption, and the flights of this process. They outlive a configuration."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from extproc.cache.entry import Entry, Open, Seal, Sealed, pack, unpack
from extproc.cache.flights import Flights
from extproc.cache.settings import CacheSettings
from extproc.cache.stores import CacheError, Store, is_memory, open_store
from extproc.guardrails import Around

if TYPE_CHECKING:
    from extproc.cache.similar.finder import Similar

_REST = 1.0
"""Seconds in which a store that failed is not asked."""
_MOST_OWNERS = 4096
"""Consumers whose digests are remembered."""
_VECTORS = ("vectors", "vector_bytes", "vector_failures")
LEAST_SECRET = 32
"""Characters of `cache.key`, at least."""

log = logging.getLogger(__name__)


class Answers:
    """`find` and `keep` never raise: without a store every request goes to a provider."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        seal: Seal,
        now: Callable[[], float] = time.time,
        similar: Similar | None = None,
    ) -> None:
        self.secret = secret
        self.flights = Flights()
        self.similar = similar  # None: no rule compares questions
        self.failures = 0  # calls that the store did not answer
        self.collected = 0  # bytes of answers under way that are to be kept
        self._rests_until = 0.0  # the store is not asked before, after it failed
        self.now = now
        self._owners: dict[str, bytes] = {}
        self._store = store
        self._seal = seal

    async def find(self, key: bytes) -> Entry | None:
        if self.away:
            return None
        try:
            sealed = await self._store.get(key)
        except CacheError:
            self._failed()
            return None
        if sealed is None or (packed := self._seal.open(key, sealed)) is None:
            return None
        return unpack(packed)

    async def keep(self, key: bytes, entry: Entry, consumer: str, ttl: float) -> bool:
        """False: the store did not answer."""
        if self.away:
            return False
        try:
            await self._store.put(key, self._seal.close(key, pack(entry)), self.owner(consumer), ttl)
        except CacheError:
            self._failed()
            return False
        return True

    @property
    def away(self) -> bool:
        """Whether the store did not answer a moment ago: it is not asked."""
        return time.monotonic() < self._rests_until

    def _failed(self) -> None:
        """Spare a store that does not answer, and the requests that would wait for it."""
        self.failures += 1
        self._rests_until = time.monotonic() + _REST

    def owner(self, consumer: str) -> bytes:
        """Stands for a consumer in the store, which knows no names."""
        known = self._owners.get(consumer)
        if known is None:
            if len(self._owners) >= _MOST_OWNERS:  # consumers that tokens name have no end
                self._owners.clear()
            name = consumer.encode(errors="replace")
            known = hashlib.blake2b(name, key=self.secret[:64], digest_size=16).digest()
            self._owners[consumer] = known
        return known

    async def forget(self, consumer: str | None) -> int:
        """Delete the answers to requests of a consumer, or all, and the questions that they are compared by, also those
        of other processes. Returns the number of answers. Raises CacheError.
        """
        owner = None if consumer is None else self.owner(consumer)
        if self.similar is not None:
            self.similar.drop(owner)
        count = await (self._store.clear() if owner is None else self._store.forget(owner))
        if self.similar is not None:
            await self.similar.forget(owner)
        return count

    @property
    def shares(self) -> bool:
        """Whether questions are shared with other processes: `run` does it."""
        return self.similar is not None and self.similar.fleet is not None

    async def run(self) -> None:
        """Share questions with other processes, without end."""
        if self.similar is not None and self.similar.fleet is not None:
            await self.similar.fleet.run(self.similar)

    async def stats(self) -> Mapping[str, int]:
        """See `Store.stats`; `waiting` requests wait for equal ones, `vectors` are of questions. Raises CacheError."""
        similar = self.similar
        vectors = (0, 0, 0) if similar is None else (similar.index.count, similar.index.size, similar.failures)
        fleet = None if similar is None else similar.fleet
        failures = self.failures + (0 if fleet is None else fleet.failures)
        more = {
            "waiting": self.flights.waiting,
            "failures": failures,
            "vectors_lost": 0 if fleet is None else fleet.lost,
        }
        return {**await self._store.stats(), **more, **dict(zip(_VECTORS, vectors, strict=True))}

    async def close(self) -> None:
        try:
            await self._store.close()
        except CacheError:
            self.failures += 1


def open_answers(url: str, settings: CacheSettings, around: Around | None = None) -> Answers | None:
    """The kept answers at `url`; None where no rule is given. Without its secret nothing is kept: None, and a log line.
    `around` are the settings that an embedding model needs.

    Raises CacheError when the store cannot be opened.
    """
    if not settings.rules:
        return None
    store_size = {"memory": settings.memory, "disk": settings.disk}
    around = around or Around()
    if is_memory(url):
        similar = _open_similar(settings, around)
        return Answers(open_store(url, **store_size), os.urandom(32), Open(), similar=similar)
    secret = settings.key.read() if settings.key is not None else None
    if secret is None or len(secret) < LEAST_SECRET:
        log.error("cache.key is missing or has fewer than %d characters: nothing is cached", LEAST_SECRET)
        return None
    found = hashlib.blake2b(secret.encode(), digest_size=32).digest()
    seal = Sealed(found)
    similar = _open_similar(settings, around, url, seal)
    return Answers(open_store(url, **store_size), found, seal, similar=similar)


def _open_similar(settings: CacheSettings, around: Around, url: str = "", seal: Seal | None = None) -> Similar | None:
    """The kept questions; None where no rule compares them. Processes share them through a Redis at `url`. Without
    numpy: None, and a log line.
    """
    if not settings.is_semantic:
        return None
    try:
        from extproc.cache.similar.finder import Similar  # noqa: PLC0415 - an extra, and 20 MB
    except ImportError:
        log.error("cache.rules: `semantic` needs numpy: pip install 'llm-extproc[semantic]'")  # noqa: TRY400
        return None
    fleet, shared = None, settings.semantic.shared
    if seal is not None and url.startswith("redis") and shared.entries:
        from extproc.cache.similar.fleet import Fleet  # noqa: PLC0415 - an extra

        fleet = Fleet(url, seal, shared, time.time)
    return Similar(settings.semantic, around, fleet)
