"""Cohere's Embed API, version 2, for providers only.

Source: https://docs.cohere.com/reference/embed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, field

from extproc.dialects import token_count
from extproc.dialects.cohere_chat import problem
from extproc.dialects.cohere_chat.usage import whole
from extproc.dialects.openai_embeddings import input_texts
from extproc.wire.framing.shapes import reader
from extproc.words.api import Able
from extproc.words.dialect import BatchLimits, Decoder, Destination
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings

_TYPES = frozenset(("search_document", "search_query", "classification", "clustering"))
_USUAL_TYPE = "search_document"  # default type of input; the API requires a type
_BATCH = BatchLimits(96)


class _ByType(Struct):
    floats: list[list[float]] = field(name="float")


class _Answer(Struct):
    embeddings: _ByType
    meta: Any = None


_decode = reader(_Answer, "Cohere's embed")


name, family = "cohere_embed", "embeddings"
able = Able(batch=lambda _model: _BATCH)
decode_problem = problem.decode
decoder: Callable[[], Decoder] | None = None


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - embeddings are not streamed
    return "/embed"


def encode_request(prompt: EmbeddingPrompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
    known = prompt.purpose in _TYPES
    body: dict[str, Any] = {
        "model": destination.model,
        "texts": input_texts(prompt, _BATCH.inputs),
        "input_type": prompt.purpose if known else _USUAL_TYPE,
        "embedding_types": ["float"],
    }
    if prompt.dimensions is not None:
        body["output_dimension"] = prompt.dimensions
    ignored = ["input_type"] if prompt.purpose and not known else []
    if prompt.user:
        ignored.append("user")
    return body, ignored


def decode_answer(body: bytes) -> Embeddings:
    answer = _decode(body)
    if not answer.embeddings.floats:
        raise ValueError("an answer of Cohere's embed has embeddings")
    return Embeddings(answer.embeddings.floats, usage=_usage(answer.meta))


def _usage(meta: Any) -> Usage | None:
    """Usage from the billed units, which are the whole input. In chats, billed units exclude Cohere's own prompt."""
    billed = meta.get("billed_units") if isinstance(meta, dict) else None
    tokens = token_count(whole(billed.get("input_tokens"))) if isinstance(billed, dict) else None
    return None if tokens is None else Usage(tokens)
