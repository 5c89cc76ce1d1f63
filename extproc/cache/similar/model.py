"""Vectors of an embedding model that the gateway serves, requested through its own listener as a separate consumer.

So each vector is an exchange, with a row in the ledger, a cost, that consumer's budgets and guardrails, and the model's
fallbacks and translation. Equal texts are paid once if a rule of the cache applies to that consumer.
"""

from __future__ import annotations

import time

import msgspec

from extproc.cache.settings import SimilarModelSettings
from extproc.dialects import openai_embeddings
from extproc.guardrails import Around
from extproc.wire.outbound.service import Failure, Service, key_of
from extproc.words.dialect import Destination
from extproc.words.messages import EmbeddingPrompt

_PATH = next(iter(openai_embeddings.endpoints.paths))
_MOST = 16_384  # most numbers of a vector


class EmbeddingModel:
    """Asks for vectors. Raises Failure."""

    def __init__(self, settings: SimilarModelSettings, around: Around) -> None:
        self._settings = settings
        self._key = around.keys.get(settings.consumer)
        self._service = Service(settings.url or around.door, settings)
        self.name = f"{settings.model} {settings.dimensions or ''}"

    async def vector(self, text: str) -> list[float]:
        settings = self._settings
        prompt = EmbeddingPrompt(settings.model, [text], settings.dimensions)
        body = msgspec.json.encode(openai_embeddings.encode_request(prompt, Destination(settings.model))[0])
        headers = {"authorization": f"Bearer {key_of(self._key)}"}
        answer = await self._service.post(_PATH, body, headers, time.monotonic() + settings.timeout)
        try:
            [vector] = openai_embeddings.decode_answer(answer).vectors
        except ValueError:
            raise Failure("bad_answer") from None
        if not 0 < len(vector) <= _MOST:
            raise Failure("bad_answer")
        return vector
