"""Finds the nearest kept question, asks for a verdict about it, and keeps new questions.

Nothing here raises: without a vector or a verdict a request goes to its provider.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from extproc.cache.settings import SAMPLES, SimilarModelSettings, SimilarSettings
from extproc.cache.similar.index import Index, KeptQuestion, Near, Vector, np
from extproc.cache.similar.model import EmbeddingModel
from extproc.cache.similar.verify import Verify, conversation
from extproc.guardrails import Around
from extproc.wire.outbound.service import Failure
from extproc.words.messages import Prompt

_NEAR = 0.1  # similarity below the threshold, up to which a question is found too: for samples, not for answers

Verdict = Literal["same", "different", "none"]
"""A model's verdict about two questions. `none`: no clear answer in time."""


@dataclass(slots=True)
class SimilarQuestion:
    """A question: its partition, its text, and the request around it."""

    partition: bytes
    text: str
    prompt: Prompt  # the request's prompt without the question
    vector: Vector = None  # vector of length 1; None: not known


class Similar:
    """The kept questions. They outlive a configuration; thresholds come from the request's configuration."""

    def __init__(self, settings: SimilarSettings, embeddings: SimilarModelSettings, around: Around) -> None:
        self._model = EmbeddingModel(embeddings, around)
        self._verify = None if settings.verify is None else Verify(settings.verify, around)
        self.index = Index(settings.memory)
        self.samples: deque[Mapping[str, Any]] = deque(maxlen=SAMPLES)
        self.failures = 0  # number of vectors that the model failed to give
        self.verdicts: dict[Verdict, int] = {"same": 0, "different": 0, "none": 0}

    @property
    def verifies(self) -> bool:
        """True if a model is asked about near questions. Without such a model no similar answer is given."""
        return self._verify is not None

    def asked(self, digest: bytes, text: str, prompt: Prompt) -> SimilarQuestion:
        """The question of a request. `digest` stands for the rest of the request, which `prompt` holds."""
        name = self._model.name.encode()
        return SimilarQuestion(hashlib.blake2b(digest + name, digest_size=16).digest(), text, prompt)

    async def nearest(self, asked: SimilarQuestion, threshold: float, now: float) -> Near | None:
        """The nearest kept question, down to `_NEAR` below the threshold. Writes the question's vector."""
        try:
            vector = np.asarray(await self._model.vector(asked.text), np.float32)
        except Failure:
            self.failures += 1
            return None
        norm = float(np.linalg.norm(vector))
        if not 0 < norm < float("inf"):  # catches NaN, too
            self.failures += 1
            return None
        asked.vector = vector / norm
        return await self.index.best(asked.partition, asked.vector, threshold - _NEAR, now)

    async def verdict(self, asked: SimilarQuestion, kept: KeptQuestion, deadline: float) -> Verdict:
        """The model's verdict about a near question, until `deadline`, monotonic seconds."""
        said: Verdict = "none"
        if self._verify is not None:
            try:
                same = await self._verify.same(conversation(asked.prompt), kept.text, asked.text, deadline)
                said = "same" if same else "different"
            except (Failure, RecursionError, ValueError):
                pass
        self.verdicts[said] += 1
        return said

    def add(self, asked: SimilarQuestion, key: bytes, owner: bytes, ends: float, *, texts: bool) -> None:
        """Keep a question whose answer is kept now."""
        if asked.vector is not None:
            text = asked.text if texts or self._verify is not None else ""
            self.index.add(asked.partition, asked.vector, KeptQuestion(key, owner, ends, text))

    def forget(self, owner: bytes | None) -> None:
        """Forget the questions of an owner, or all."""
        if owner is None:
            self.index.clear()
        else:
            self.index.forget(owner)
        self.samples.clear()

    def sample(self, asked: SimilarQuestion, found: Near, about: Mapping[str, Any], *, texts: bool) -> None:
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


def short(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
