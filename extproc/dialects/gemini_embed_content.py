"""Embeddings of the Gemini API, one text at a time: embedContent, for clients. Providers of this API get the request
without translation; translations into the API use batchEmbedContents.

Source: https://ai.google.dev/api/embeddings#method:-models.embedcontent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

from extproc.dialects._refusals import wrong
from extproc.dialects.gemini_embeddings import GeminiEmbeddings, model_name
from extproc.dialects.gemini_generate_content import calls, naming
from extproc.words.api import Offers
from extproc.words.dialect import Destination, Fields
from extproc.words.messages import Embeddings


def path(destination: Destination, stream: bool) -> str:  # noqa: ARG001 - embeddings are not streamed
    """See `Naming.path`."""
    return f"/models/{quote(model_name(destination), safe='@')}:embedContent"


class GeminiEmbedContent(GeminiEmbeddings):
    name = "gemini_embed_content"
    endpoints = calls("embeddings", "embedContent")
    fields = Fields(
        model=None,
        fixed=("content",),
        output_limits=(),
        needs={},
        spoken=frozenset(("content",)),
        files=frozenset(("data",)),
        opaque=frozenset(("data",)),
        also=("model",),
    )

    @cached_property
    def offers(self) -> Offers:
        return Offers(naming=replace(naming, path=path))

    def requests(self, body: Mapping[str, Any]) -> list[Any]:
        if not isinstance(body.get("content"), dict):
            raise wrong("'content' must be an object.", "content")
        return [body]

    def smallest(self, model: str) -> dict[str, Any]:  # noqa: ARG002 - the path has it
        return {"content": {"parts": [{"text": "Hello"}]}}

    def encode_answer(self, answer: Embeddings) -> dict[str, Any]:
        batch = super().encode_answer(answer)
        [embedding, *_] = batch.pop("embeddings")
        return {"embedding": embedding, **batch}


CLIENT = GeminiEmbedContent()
