"""Embeddings of the Gemini API: batchEmbedContents, for clients and for providers.

Source: https://ai.google.dev/api/embeddings#method:-models.batchembedcontents and
https://ai.google.dev/gemini-api/docs/embeddings (task types, and their replacement from gemini-embedding-2 on)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field

from extproc.dialects import _usual, safe_names, token_count
from extproc.dialects._batch import add_inputs
from extproc.dialects._conversation import inner, pieces
from extproc.dialects._observer import Observer
from extproc.dialects._refusals import unsupported, wrong
from extproc.dialects._usual import nothing_said
from extproc.dialects.gemini_generate_content import calls, naming, problem, replies
from extproc.dialects.gemini_generate_content.report import USAGE_KEY
from extproc.dialects.openai_embeddings import input_texts
from extproc.wire.framing.shapes import reader
from extproc.words.api import Able, AnswerFacts, ClientTranslation, Offers
from extproc.words.dialect import (
    NO_ENDPOINT,
    Ask,
    BatchLimits,
    Conversation,
    Decoder,
    Destination,
    Endpoint,
    Fields,
    Report,
    Text,
)
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings

TASKS = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "similarity": "SEMANTIC_SIMILARITY",
}
"""Task types by purpose of the vectors, for models with a task type."""

_PURPOSES = {task: purpose for purpose, task in TASKS.items()}
_PREFIXES = {
    "search_document": "title: none | text: ",
    "search_query": "task: search result | query: ",
    "classification": "task: classification | query: ",
    "clustering": "task: clustering | query: ",
    "similarity": "task: sentence similarity | query: ",
}
_WITH_TASKS = ("gemini-embedding-001", "gemini-embedding-exp")
_BATCH = BatchLimits(100)
_MOST_DIMENSIONS = 1_000_000
_SETTINGS = ("taskType", "outputDimensionality")
_CARRIED = frozenset(("model", "content", "title", "embedContentConfig", *_SETTINGS))
_HOLD_TEXT = ("requests", "content", "parts", "text")


class _Embedding(Struct):
    values: list[float]


class _Answer(Struct):
    embeddings: list[_Embedding]
    usage: Any = field(name="usageMetadata", default=None)


class _Counted(Struct):
    usage: Any = field(name="usageMetadata", default=None)


_decode = reader(_Answer, "batchEmbedContents")


def _read(answer: _Counted, report: Report) -> bool:
    if answer.usage is not None:
        report.add_usage(_read_usage(answer.usage))
    return False


_OBSERVER = Observer(_Counted, _read, openings=(b"{", b"[{"), key=USAGE_KEY, counts_unread=False)


class GeminiEmbeddings:
    """The client's side. A request has a list of requests, each for one vector."""

    name = "gemini_embeddings"
    family = "embeddings"
    endpoints = calls("embeddings", "batchEmbedContents")
    fields = Fields(
        model=None,
        fixed=("requests",),
        output_limits=(),
        needs={},
        spoken=frozenset(("requests",)),
        files=frozenset(("data",)),
        opaque=frozenset(("data",)),
    )
    answers = AnswerFacts(usage_at=(("usageMetadata",),), usage_key=USAGE_KEY)
    replies = replies
    observe, observe_edges = staticmethod(_OBSERVER.observe), staticmethod(_OBSERVER.observe_edges)
    said = staticmethod(nothing_said)

    # --- for clients

    @cached_property
    def offers(self) -> Offers:
        return Offers(naming=replace(naming, for_model=self.for_model))

    @cached_property
    def translation(self) -> ClientTranslation:
        return ClientTranslation(self.decode_request, self.encode_answer, problem.encode_problem)

    def requests(self, body: Mapping[str, Any]) -> list[Any]:
        """Requests for one vector each. Raises Refusal (400)."""
        found = body.get("requests")
        if not isinstance(found, list) or not found:
            raise wrong("'requests' must be a list with at least one request.", "requests")
        return found

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        if not endpoint.model:
            raise wrong("Name a model in the path: /v1beta/models/{model}:batchEmbedContents.", "model")
        ask, inputs = Ask(endpoint.model), []
        for request in self.requests(body):
            if not isinstance(request, dict):
                raise wrong("A request for a vector must be an object.", "requests")
            parts = inner(request, "content", "parts")
            said = [part for part in (parts if isinstance(parts, list) else ()) if isinstance(part, dict)]
            if not all(part.keys() <= {"text"} for part in said):
                ask.add_unseen("parts")
            inputs.append("".join(text for part in said if isinstance(text := part.get("text"), str)))
        add_inputs(ask, inputs)
        return ask

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        return _usual.texts(body, self.fields)

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        return Conversation(asked=pieces(body, _HOLD_TEXT))

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        name = f"models/{model.removeprefix('models/')}"
        return {**body, "requests": [{**request, "model": name} for request in self.requests(body)]}

    def smallest(self, model: str) -> dict[str, Any]:
        return {"requests": [{"model": f"models/{model}", "content": {"parts": [{"text": "Hello"}]}}]}

    def decode_request(self, body: Mapping[str, Any]) -> EmbeddingPrompt:
        body = naming.spelled(dict(body))
        requests = self.requests(body)
        texts: list[str | list[int]] = []
        settings: list[dict[str, Any]] = []
        ignored: dict[str, None] = {}
        for index, request in enumerate(requests):
            where = f"requests[{index}]"
            if not isinstance(request, dict):
                raise wrong(f"'{where}' must be an object.", where)
            texts.append(_text(request.get("content"), f"{where}.content"))
            given = request | (request.get("embedContentConfig") or {})
            settings.append({name: given[name] for name in _SETTINGS if given.get(name) is not None})
            ignored |= dict.fromkeys(name for name in request if name not in _CARRIED)
            if request.get("title"):
                ignored["title"] = None
        if any(one != settings[0] for one in settings):
            raise unsupported("The requests of one batch must have the same settings.", "requests")
        purpose, size = settings[0].get("taskType"), settings[0].get("outputDimensionality")
        if size is not None and (type(size) is not int or not 1 <= size <= _MOST_DIMENSIONS):
            raise wrong("'outputDimensionality' must be a whole number of at least 1.", "requests")
        known = _PURPOSES.get(purpose, "") if isinstance(purpose, str) else ""
        if purpose and not known:
            ignored["taskType"] = None
        return EmbeddingPrompt("", texts, dimensions=size, purpose=known, ignored=safe_names(ignored))

    def encode_answer(self, answer: Embeddings) -> dict[str, Any]:
        return {"embeddings": [{"values": vector} for vector in answer.vectors]} | _usage(answer)


def _text(content: Any, where: str) -> str:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not parts:
        raise wrong(f"'{where}.parts' must be a list with at least one part.", where)
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) < len(texts):
        raise unsupported(f"The target of this model takes text only, and '{where}' holds more.", where)
    return "".join(found)


def _usage(answer: Embeddings) -> dict[str, Any]:
    """The count of an answer; empty if the provider reported none, because a zero would look like a count."""
    return {} if answer.usage is None else {"usageMetadata": {"promptTokenCount": answer.usage.input_tokens}}


def _read_usage(said: Any) -> Usage | None:
    tokens = token_count(said.get("promptTokenCount")) if isinstance(said, dict) else None
    return None if tokens is None else Usage(tokens)


def model_name(destination: Destination) -> str:
    """The model's name without `models/`, which settings may have."""
    return destination.model.removeprefix("models/")


def for_purpose(purpose: str, texts: list[str], model: str) -> tuple[list[str], str]:
    """Texts and the task type, if any. Newer models read the purpose from a prefix of the text instead."""
    if not purpose:
        return texts, ""
    if model.startswith(_WITH_TASKS) or "gemini" not in model:
        return texts, TASKS.get(purpose, "")
    prefix = _PREFIXES.get(purpose, "")
    return [prefix + text for text in texts], ""


def decode_batch(body: bytes) -> Embeddings:
    """The neutral form of a BatchEmbedContentsResponse. Raises ValueError for another value."""
    answer = _decode(body)
    if not answer.embeddings:
        raise ValueError("an answer of batchEmbedContents has embeddings")
    vectors = [embedding.values for embedding in answer.embeddings]
    return Embeddings(vectors, usage=_read_usage(answer.usage))


CLIENT = GeminiEmbeddings()

# --- for providers

name, family = "gemini_embeddings", "embeddings"
able = Able(batch=lambda _model: _BATCH)
decode_problem = problem.decode
decoder: Callable[[], Decoder] | None = None


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - embeddings are not streamed
    return f"/models/{quote(model_name(destination), safe='@')}:batchEmbedContents"


def encode_request(prompt: EmbeddingPrompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
    name = model_name(destination)
    texts, task = for_purpose(prompt.purpose, input_texts(prompt, _BATCH.inputs), name)
    settings: dict[str, Any] = {"taskType": task} if task else {}
    if prompt.dimensions is not None:
        settings["outputDimensionality"] = prompt.dimensions
    model = f"models/{name}"
    requests = [{"model": model, "content": {"parts": [{"text": text}]}, **settings} for text in texts]
    return {"requests": requests}, ["user"] if prompt.user else []


def decode_answer(body: bytes) -> Embeddings:
    return decode_batch(body)
