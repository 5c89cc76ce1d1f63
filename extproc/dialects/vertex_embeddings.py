"""Embeddings of Vertex AI, for providers only.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api (predict) and, for the
Gemini models, https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.publishers.models
(batchEmbedContents), which accepts several inputs; their predict accepts one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from extproc.dialects import token_count
from extproc.dialects._usage import make_usage
from extproc.dialects.gemini_embeddings import TASKS, decode_batch, for_purpose, model_name
from extproc.dialects.gemini_generate_content import problem
from extproc.dialects.openai_embeddings import input_texts
from extproc.wire.framing.shapes import reader
from extproc.words.api import Able
from extproc.words.dialect import BatchLimits, Decoder, Destination
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings

# https://docs.cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings#api-limits
_INSTANCES = BatchLimits(250, 20_000)
_CONTENTS = BatchLimits(100)


class _Embedding(Struct):
    values: list[float]
    statistics: Any = None


class _Prediction(Struct):
    embeddings: _Embedding


class _Answer(Struct):
    predictions: list[_Prediction] | None = None


_decode = reader(_Answer, "predict")


name, family = "vertex_embeddings", "embeddings"
able = Able(batch=lambda model: _CONTENTS if _is_gemini(model) else _INSTANCES)
decode_problem = problem.decode
decoder: Callable[[], Decoder] | None = None


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - embeddings are not streamed
    name = model_name(destination)
    return f"/models/{quote(name, safe='@')}:{'batchEmbedContents' if _is_gemini(name) else 'predict'}"


def encode_request(prompt: EmbeddingPrompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
    ignored = ["user"] if prompt.user else []
    name = model_name(destination)
    return _contents(prompt, name) if _is_gemini(name) else _instances(prompt), ignored


def decode_answer(body: bytes) -> Embeddings:
    answer = _decode(body)
    if not answer.predictions:
        return decode_batch(body)
    found = [prediction.embeddings for prediction in answer.predictions]
    return Embeddings([embedding.values for embedding in found], usage=_usage(found))


def _is_gemini(model: str) -> bool:
    return "gemini" in model


def _contents(prompt: EmbeddingPrompt, model: str) -> dict[str, Any]:
    """A BatchEmbedContentsRequest."""
    texts, task = for_purpose(prompt.purpose, input_texts(prompt, _CONTENTS.inputs), model)
    settings: dict[str, Any] = {"taskType": task} if task else {}
    if prompt.dimensions is not None:
        settings["outputDimensionality"] = prompt.dimensions
    more = {"embedContentConfig": settings} if settings else {}
    return {"requests": [{"content": {"parts": [{"text": text}]}, **more} for text in texts]}


def _instances(prompt: EmbeddingPrompt) -> dict[str, Any]:
    """A PredictRequest."""
    task = TASKS.get(prompt.purpose)
    more = {"task_type": task} if task else {}
    body: dict[str, Any] = {
        "instances": [{"content": text, **more} for text in input_texts(prompt, _INSTANCES.inputs)],
    }
    if prompt.dimensions is not None:
        body["parameters"] = {"outputDimensionality": prompt.dimensions}
    return body


def _usage(found: list[_Embedding]) -> Usage | None:
    """Sum of the tokens; None if an embedding has no count."""
    total = 0
    for embedding in found:
        tokens = embedding.statistics.get("token_count") if isinstance(embedding.statistics, dict) else None
        if type(tokens) is float and tokens.is_integer():  # the API's counts have the type number
            tokens = int(tokens)
        if (count := token_count(tokens)) is None:
            return None
        total += count
    return make_usage(total)
