"""Amazon Titan's embeddings, through Bedrock's InvokeModel, for providers only.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html (V2 and G1) and
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-mm.html (Multimodal G1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field

from extproc.dialects import token_count
from extproc.dialects.aws_converse import problem
from extproc.dialects.openai_embeddings import input_texts
from extproc.wire.framing.shapes import reader
from extproc.words.api import Able
from extproc.words.dialect import BatchLimits, Decoder, Destination
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings

_BATCH = BatchLimits(1)
_OF_THE_FIRST = 1536  # dimensions of Titan Embeddings G1 - Text


class _Answer(Struct):
    embedding: list[float]
    tokens: Any = field(name="inputTextTokenCount", default=None)


_decode = reader(_Answer, "Titan Embeddings")


name, family = "aws_titan_embed", "embeddings"
able = Able(batch=lambda _model: _BATCH)
decode_problem = problem.decode
decoder: Callable[[], Decoder] | None = None


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - embeddings are not streamed
    return f"/model/{quote(destination.model, safe='')}/invoke"


def encode_request(prompt: EmbeddingPrompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
    (text,) = input_texts(prompt, _BATCH.inputs)
    body: dict[str, Any] = {"inputText": text}
    if "embed-image" in destination.model:
        if prompt.dimensions is not None:
            body["embeddingConfig"] = {"outputEmbeddingLength": prompt.dimensions}
    elif "embed-text-v1" not in destination.model and "embed-g1" not in destination.model:
        if prompt.dimensions is not None:
            body["dimensions"] = prompt.dimensions
        body["normalize"] = True
    elif prompt.dimensions not in (None, _OF_THE_FIRST):
        raise Refusal(
            UNSUPPORTED_BY_TARGETS,
            f"The target of this model gives {_OF_THE_FIRST} dimensions only: leave 'dimensions' out.",
            param="dimensions",
        )
    ignored = ["input_type"] if prompt.purpose else []
    if prompt.user:
        ignored.append("user")
    return body, ignored


def decode_answer(body: bytes) -> Embeddings:
    answer = _decode(body)
    if not answer.embedding:
        raise ValueError("an answer of Titan Embeddings has an embedding")
    tokens = token_count(answer.tokens)
    return Embeddings([answer.embedding], usage=None if tokens is None else Usage(tokens))
