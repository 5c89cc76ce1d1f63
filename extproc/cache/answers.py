"""All kept answers: a store, its encryption, and the flights of this process. They outlive a configuration."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from extproc.cache.entry import Entry, EntrySeal, NoSeal, Sealed, pack, unpack
from extproc.cache.flights import Flights
from extproc.cache.settings import CacheSettings
from extproc.cache.stores import MEMORY, CacheError, Store, is_memory, open_store
from extproc.guardrails import Around

if TYPE_CHECKING:
    from extproc.cache.similar.finder import Similar

_REST = 1.0
"""Seconds for which a store is not asked after a failure."""
_MOST_OWNERS = 4096
"""Most consumers whose digests are remembered."""
_VECTORS = ("vectors", "vector_bytes", "vector_failures", "verified_same", "verified_different", "verify_failures")
LEAST_SECRET = 32
"""Fewest characters of `cache.key`."""

log = logging.getLogger(__name__)


class Answers:
    """`find` and `keep` never raise: without a store every request goes to a provider."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        seal: EntrySeal,
        now: Callable[[], float] = time.time,
        similar: Similar | None = None,
    ) -> None:
        self.secret = secret
        self.flights = Flights()
        self.similar = similar  # None: no rule compares questions
        self.failures = 0  # number of calls that the store did not answer
        self.collected = 0  # bytes of unfinished answers that are to be kept
        self._rests_until = 0.0  # monotonic time until which a failed store is not asked
        self.now = now
        self._owners: dict[str, bytes] = {}
        self._store = store
        self._seal = seal
        self.turns: Answers | None = None  # turns of conversations, in a separate store
        self.caches = True  # False: only turns are kept, no answers

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

    async def keep(self, key: bytes, entry: Entry, owner: bytes, ttl: float) -> bool:
        """Keep an answer, which `forget` deletes by its `owner`. False: the store did not answer."""
        if self.away:
            return False
        try:
            await self._store.put(key, self._seal.close(key, pack(entry)), owner, ttl)
        except CacheError:
            self._failed()
            return False
        return True

    @property
    def away(self) -> bool:
        """True while the store is not asked, because it failed a moment ago."""
        return time.monotonic() < self._rests_until

    def _failed(self) -> None:
        """Spare a store that does not answer, and the requests that would wait for it."""
        self.failures += 1
        self._rests_until = time.monotonic() + _REST

    def owner(self, consumer: str) -> bytes:
        """The digest that stands for a consumer in the store, which has no names."""
        known = self._owners.get(consumer)
        if known is None:
            if len(self._owners) >= _MOST_OWNERS:  # tokens can name any number of consumers
                self._owners.clear()
            name = consumer.encode(errors="replace")
            known = hashlib.blake2b(name, key=self.secret[:64], digest_size=16).digest()
            self._owners[consumer] = known
        return known

    async def forget(self, consumer: str | None) -> int:
        """Delete the answers to a consumer's requests, or all answers, and this process's questions for them. Returns
        the number of answers. Raises CacheError.
        """
        owner = None if consumer is None else self.owner(consumer)
        if self.similar is not None:
            self.similar.forget(owner)
        if self.turns is not None and owner is not None:  # conversations are never emptied like a cache
            await self.turns.forget(consumer)
        count = await (self._store.clear() if owner is None else self._store.forget(owner))
        if self.similar is not None:
            self.similar.forget(owner)  # also questions that came in the meantime
        return count

    async def stats(self) -> Mapping[str, int]:
        """`Store.stats`, with `waiting`: requests that wait for equal ones, and `vectors`: vectors of questions. Raises
        CacheError.
        """
        similar, more = self.similar, {"waiting": self.flights.waiting, "failures": self.failures}
        found = dict.fromkeys(_VECTORS, 0)
        if similar is not None:
            said = similar.verdicts
            numbers = similar.index.count, similar.index.size, similar.failures
            verdicts = said["same"], said["different"], said["none"]
            found = dict(zip(_VECTORS, (*numbers, *verdicts), strict=True))
        return {**await self._store.stats(), **more, **found}

    async def close(self) -> None:
        if self.turns is not None:
            await self.turns.close()
        try:
            await self._store.close()
        except CacheError:
            self.failures += 1


def open_answers(url: str, settings: CacheSettings, around: Around | None = None) -> Answers | None:
    """The kept answers at `url`; None if neither answers nor turns are kept. If its secret is missing nothing is kept:
    None, and a log line. `around` are settings for an embedding model.

    Raises CacheError when the store cannot be opened.
    """
    kept = settings.conversations
    if not settings.rules and not kept.enabled:
        return None
    around = around or Around()
    if is_memory(url):
        return _opened(url, settings, os.urandom(32), NoSeal(), _open_similar(settings, around))
    secret = settings.key.read() if settings.key is not None else None
    if secret is None or len(secret) < LEAST_SECRET:
        log.error("cache.key is missing or has fewer than %d characters: nothing is cached", LEAST_SECRET)
        return None
    found = hashlib.blake2b(secret.encode(), digest_size=32).digest()
    return _opened(url, settings, found, Sealed(found), _open_similar(settings, around))


def _opened(url: str, settings: CacheSettings, secret: bytes, seal: EntrySeal, similar: Similar | None) -> Answers:
    kept, caches = settings.conversations, bool(settings.rules)
    store = open_store(url if caches else MEMORY, memory=settings.memory, disk=settings.disk)
    answers = Answers(store, secret, seal, similar=similar)
    answers.caches = caches
    if kept.enabled:
        turns = open_store(url, memory=kept.memory, disk=kept.disk, name="turns")
        answers.turns = Answers(turns, secret, seal)
    return answers


def _open_similar(settings: CacheSettings, around: Around) -> Similar | None:
    """The kept questions; None if no rule compares questions by vectors. Without numpy: None, and a log line."""
    if not settings.is_semantic or settings.semantic.embeddings is None:
        return None
    try:
        from extproc.cache.similar.finder import Similar  # noqa: PLC0415 - an extra, and 20 MB
    except ImportError:
        log.error("cache.rules: `semantic` needs numpy: pip install 'llm-extproc[semantic]'")  # noqa: TRY400
        return None
    return Similar(settings.semantic, settings.semantic.embeddings, around)
