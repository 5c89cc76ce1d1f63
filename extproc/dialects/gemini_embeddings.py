"""Embeddings of the Gemini API: batchEmbedContents, for providers only.

Source: https://ai.google.dev/api/embeddings#method:-models.batchembedcontents and
https://ai.google.dev/gemini-api/docs/embeddings (task types, and their replacement from gemini-embedding-2 on)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from extproc.dialects import gemini_generate_content, token_count
from extproc.dialects.openai_embeddings import input_texts
from extproc.words.dialect import Batch, Destination, Dialect
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings, Problem

TASKS = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "similarity": "SEMANTIC_SIMILARITY",
}
"""The purpose of the vectors, in the words of models with a task type."""

_PREFIXES = {
    "search_document": "title: none | text: ",
    "search_query": "task: search result | query: ",
    "classification": "task: classification | query: ",
    "clustering": "task: clustering | query: ",
    "similarity": "task: sentence similarity | query: ",
}
_WITH_TASKS = ("gemini-embedding-001", "gemini-embedding-exp")
_BATCH = Batch(100)


class _Embedding(Struct):
    values: list[float]


class _Answer(Struct):
    embeddings: list[_Embedding]
    usage: Any = field(name="usageMetadata", default=None)


_decode = msgspec.json.Decoder(_Answer).decode


class GeminiEmbeddings(Dialect):
    name = "gemini_embeddings"
    family = "embeddings"

    def batch(self, model: str) -> Batch:  # noqa: ARG002
        return _BATCH

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002 - embeddings are not streamed
        return f"/models/{quote(model_name(destination), safe='@')}:batchEmbedContents"

    def encode_request(self, prompt: EmbeddingPrompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        name = model_name(destination)
        texts, task = for_purpose(prompt.purpose, input_texts(prompt, _BATCH.inputs), name)
        settings: dict[str, Any] = {"taskType": task} if task else {}
        if prompt.dimensions is not None:
            settings["outputDimensionality"] = prompt.dimensions
        model = f"models/{name}"
        requests = [{"model": model, "content": {"parts": [{"text": text}]}, **settings} for text in texts]
        return {"requests": requests}, ["user"] if prompt.user else []

    def decode_answer(self, body: bytes) -> Embeddings:
        return decode_batch(body)

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return gemini_generate_content.DIALECT.decode_problem(status, body)


def model_name(destination: Destination) -> str:
    """The model's name, with or without `models/` in the settings."""
    return destination.model.removeprefix("models/")


def for_purpose(purpose: str, texts: list[str], model: str) -> tuple[list[str], str]:
    """The texts and the task type, if there is one. Newer models read the purpose from a prefix of the text instead."""
    if not purpose:
        return texts, ""
    if model.startswith(_WITH_TASKS) or "gemini" not in model:
        return texts, TASKS.get(purpose, "")
    prefix = _PREFIXES.get(purpose, "")
    return [prefix + text for text in texts], ""


def decode_batch(body: bytes) -> Embeddings:
    """A BatchEmbedContentsResponse. Raises ValueError when it is none."""
    try:
        answer = _decode(body)
    except RecursionError as error:
        raise ValueError("not an answer of batchEmbedContents") from error
    if not answer.embeddings:
        raise ValueError("an answer of batchEmbedContents has embeddings")
    tokens = token_count(answer.usage.get("promptTokenCount")) if isinstance(answer.usage, dict) else None
    vectors = [embedding.values for embedding in answer.embeddings]
    return Embeddings(vectors, usage=None if tokens is None else Usage(tokens))


DIALECT = GeminiEmbeddings()
