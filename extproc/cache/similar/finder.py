"""The nearest kept question, and new ones. Never raises: without a vector a request is asked as any other."""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extproc.cache.settings import SAMPLES, SimilarSettings
from extproc.cache.similar.index import Found, Index, Row, Vector, np
from extproc.cache.similar.model import Model
from extproc.cache.similar.wording import Said, features, said
from extproc.guardrails import Around, Failure

if TYPE_CHECKING:
    from extproc.cache.similar.fleet import Fleet

_WIDTH = 1024
"""Numbers of a vector of words. Features are hashed into them with a sign."""
_NEAR = 0.1  # below the threshold, for samples


@dataclass(slots=True)
class Asked:
    """A question: its partition, and what it is compared by."""

    partition: bytes
    text: str
    said: Said | None  # None: `guard` is off
    vector: Vector = None  # None: not known


class Similar:
    """Outlives a configuration; thresholds are those of the request's."""

    def __init__(self, settings: SimilarSettings, around: Around, fleet: Fleet | None = None) -> None:
        self.fleet = fleet  # None: this process compares its own questions alone
        self._model = None if settings.embeddings is None else Model(settings.embeddings, around)
        self.index = Index(settings.memory)
        self.samples: deque[Mapping[str, Any]] = deque(maxlen=SAMPLES)
        self.failures = 0  # vectors that the model did not give

    @property
    def at_once(self) -> bool:
        """True where a vector needs no call."""
        return self._model is None

    def asked(self, digest: bytes, text: str, *, guard: bool) -> Asked:
        """The question of a request. `digest` stands for everything else in it."""
        found = said(text) if guard else None
        parts = [digest, b"words" if self._model is None else self._model.name.encode()]
        if found is not None:
            parts += [fact.encode(errors="replace") for fact in found.facts]
        hashed = hashlib.blake2b(digest_size=16)
        for part in parts:
            hashed.update(len(part).to_bytes(4, "big") + part)
        return Asked(hashed.digest(), text, found)

    async def nearest(self, asked: Asked, threshold: float, now: float) -> Found | None:
        """The nearest kept question, down to a little below the threshold. Writes the vector."""
        if self._model is None:
            asked.vector = words(asked.text)
        else:
            try:
                asked.vector = np.asarray(await self._model.vector(asked.text), np.float32)
                if not np.isfinite(asked.vector).all():
                    raise Failure("bad_answer")
            except Failure:
                asked.vector = None
                self.failures += 1
                return None
            asked.vector /= float(np.linalg.norm(asked.vector)) or 1.0
        return await self.index.best(asked.partition, asked.vector, asked.said, threshold - _NEAR, now)

    def add(self, asked: Asked, key: bytes, owner: bytes, ends: float, *, texts: bool) -> None:
        """Keep a question whose answer is kept now."""
        if asked.vector is not None:
            kept = Said((), array("I"), frozenset()) if asked.said is None else asked.said._replace(facts=())
            row = Row(key, owner, ends, kept, asked.text if texts else "")
            self.take(asked.partition, asked.vector, row)
            if self.fleet is not None:
                self.fleet.share(asked.partition, asked.vector, row)

    def take(self, partition: bytes, vector: Vector, row: Row) -> None:
        """Compare with a kept question, of this process or of another."""
        self.index.add(partition, vector, row)

    def drop(self, owner: bytes | None) -> None:
        """Forget the questions of an owner, or all, in this process."""
        if owner is None:
            self.index.clear()
        else:
            self.index.forget(owner)
        self.samples.clear()

    async def forget(self, owner: bytes | None) -> None:
        """Forget the questions of an owner, or all, in every process. Raises CacheError."""
        self.drop(owner)  # also those that came in the meantime
        if self.fleet is not None:
            await self.fleet.delete(owner)

    def sample(self, asked: Asked, found: Found, about: Mapping[str, Any], *, texts: bool) -> None:
        """Remember a pair for operators: digests and the score, and the texts only where the settings say so."""
        entry: dict[str, Any] = {
            "score": round(found.score, 4),
            "asked": short(asked.partition + asked.text.encode(errors="replace")),
            "kept": short(found.row.key),
            **about,
        }
        if texts:
            entry |= {"asked_text": asked.text, "kept_text": found.row.text}
        self.samples.append(entry)


def words(text: str) -> Vector:
    """The vector of the words in a text; it is as long as the text."""
    vector = np.zeros(_WIDTH, np.float32)
    for code, weight in features(text).items():
        vector[code % _WIDTH] += weight if code >> 31 else -weight
    return vector


def short(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
