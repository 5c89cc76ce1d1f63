"""OpenAI embeddings, for clients and for providers.

Source: https://platform.openai.com/docs/api-reference/embeddings.

`input_type` is an extension of other servers of this API: the purpose of the vectors.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from extproc.dialects import _replies, _usual, azure, read_integer, read_model, safe_names
from extproc.dialects._batch import add_inputs
from extproc.dialects._conversation import pieces
from extproc.dialects._inputs import Inputs
from extproc.dialects._observer import Observer
from extproc.dialects.openai_chat import problem as chat_problem
from extproc.dialects.openai_chat.usage import read_usage
from extproc.wire.framing.shapes import reader
from extproc.words.api import Able, AnswerFacts, ClientTranslation, Endpoints, Offers, Reuse
from extproc.words.dialect import (
    NO_ENDPOINT,
    Ask,
    Conversation,
    Decoder,
    Destination,
    Endpoint,
    Fields,
    Report,
    Text,
)
from extproc.words.errors import INVALID_REQUEST, UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import EmbeddingPrompt, Embeddings

_MOST_DIMENSIONS = 1_000_000
_CARRIED = frozenset(("model", "input", "dimensions", "encoding_format", "user"))
_PURPOSES = {
    "search_document": "search_document",
    "document": "search_document",
    "passage": "search_document",
    "search_query": "search_query",
    "query": "search_query",
    "classification": "classification",
    "clustering": "clustering",
    "similarity": "similarity",
}


class _Answer(msgspec.Struct):
    model: str | None = None
    usage: Any = None


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(_Answer):
    data: list[_Vector] = []


_decode_vectors = reader(_Vectors, "embeddings")


name, family = "openai_embeddings", "embeddings"
endpoints = Endpoints(paths={"/v1/embeddings": "embeddings"}, aliases=azure("/v1/embeddings"))
fields = Fields(
    model="model",
    fixed=("model", "input"),
    output_limits=(),
    needs={},
    spoken=frozenset(("input",)),
    files=frozenset(),
    opaque=frozenset(),
)
replies, said = _replies.openai, _usual.nothing_said
answers = AnswerFacts(usage_at=(("usage",),))
offers = Offers(reuse=Reuse(asides=frozenset(("user",)), varies=lambda _body: False, inputs=Inputs()))


def texts(body: Mapping[str, Any]) -> Iterator[Text]:
    return _usual.texts(body, fields)


def read(body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG001
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise Refusal(INVALID_REQUEST, "'input' must be a string or a list, not empty.", param="input")
    tokens = isinstance(given, list) and not all(isinstance(item, str) for item in given)
    ask = Ask(model=read_model(body), unreadable="input" if tokens else "")
    add_inputs(ask, given)
    if tokens and any(isinstance(item, dict) for item in given):  # images, in the form of Jina and others
        ask.add_unseen("input")
    return ask


def conversation(body: Mapping[str, Any]) -> Conversation:
    return Conversation(asked=pieces(body.get("input"), ()))


def _read(answer: _Answer, report: Report) -> bool:
    report.model = answer.model or report.model
    if answer.usage is not None:
        report.add_usage(read_usage(answer.usage))
    return False


_OBSERVER = Observer(_Answer, _read, counts_unread=False)
observe, observe_edges = _OBSERVER.observe, _OBSERVER.observe_edges


def smallest(model: str) -> dict[str, Any]:
    return {"model": model, "input": "Hello"}


def decode_request(body: Mapping[str, Any]) -> EmbeddingPrompt:
    purpose = body.get("input_type")
    known = _PURPOSES.get(purpose, "") if isinstance(purpose, str) else ""
    ignored = {
        name for name, value in body.items() if name not in _CARRIED and value is not None and value is not False
    }
    if known:
        ignored.discard("input_type")
    return EmbeddingPrompt(
        model=read_model(body),
        input=_inputs(body.get("input")),
        dimensions=read_integer(body, "dimensions", 1, _MOST_DIMENSIONS),
        encoding=_encoding(body.get("encoding_format")),
        purpose=known,
        user=_user(body.get("user")),
        ignored=safe_names(sorted(ignored)),
    )


def encode_answer(answer: Embeddings) -> dict[str, Any]:
    """The answer in this API. Without the provider's usage it has no `usage`, because a zero would look like a
    count.
    """
    vectors: Sequence[Any] = answer.vectors
    if answer.encoding == "base64":
        vectors = [_base64(vector) for vector in answer.vectors]
    body: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "model": answer.model,
    }
    if answer.usage is not None:
        tokens = answer.usage.input_tokens
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return body


translation = ClientTranslation(decode_request, encode_answer, lambda _status, found: chat_problem.encode(found))


# --- for providers

able = Able()
decode_problem = chat_problem.decode
decoder: Callable[[], Decoder] | None = None


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - embeddings are not streamed
    return "/embeddings"


def encode_request(prompt: EmbeddingPrompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
    body: dict[str, Any] = {"model": destination.model, "input": prompt.input, "encoding_format": "float"}
    if prompt.dimensions is not None:
        body["dimensions"] = prompt.dimensions
    if prompt.user:
        body["user"] = prompt.user
    return body, ["input_type"] if prompt.purpose else []


def decode_answer(body: bytes) -> Embeddings:
    answer = _decode_vectors(body)
    if not answer.data:
        raise ValueError("an answer of embeddings has vectors")
    vectors = [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
    return Embeddings(vectors, answer.model or "", None if answer.usage is None else read_usage(answer.usage))


def input_texts(prompt: EmbeddingPrompt, most: int) -> list[str]:
    """Input texts for a provider that accepts only text, at most `most` in one request. Raises Refusal (400)."""
    texts = [item for item in prompt.input if isinstance(item, str)]
    if len(texts) != len(prompt.input):
        raise Refusal(
            UNSUPPORTED_BY_TARGETS, "The target of this model takes text only: send strings, not tokens.", param="input"
        )
    if len(texts) > most:
        some = "one input per request: send each in a request of its own" if most == 1 else f"{most} inputs per request"
        raise Refusal(UNSUPPORTED_BY_TARGETS, f"The target of this model takes {some}.", param="input")
    return texts


def _inputs(given: Any) -> list[str | list[int]]:
    """`input` in one of its four forms: a string, strings, tokens, lists of tokens. Raises Refusal (400)."""
    found: list[Any] = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    if found and type(found[0]) is int:
        found = [found]
    if found and (all(map(_is_text, found)) or all(map(_are_tokens, found))):
        return found
    raise Refusal(
        INVALID_REQUEST, "'input' must be a string, strings, tokens or lists of tokens, none empty.", param="input"
    )


def _is_text(item: Any) -> bool:
    return isinstance(item, str) and item != ""


def _are_tokens(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(type(token) is int and token >= 0 for token in item)


def _encoding(given: Any) -> Literal["float", "base64"]:
    if given is None or given == "float":
        return "float"
    if given == "base64":
        return "base64"
    raise Refusal(INVALID_REQUEST, "'encoding_format' must be float or base64.", param="encoding_format")


def _user(given: Any) -> str:
    if given is None or isinstance(given, str):
        return given or ""
    raise Refusal(INVALID_REQUEST, "'user' must be a string.", param="user")


def _base64(vector: Sequence[float]) -> str:
    """Numbers as little-endian 32-bit floats, in base64."""
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return b64encode(values).decode()
