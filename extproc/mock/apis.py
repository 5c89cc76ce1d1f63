"""The APIs of the mock: each dialect that clients of the gateway may speak, read and written by the gateway's code."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from urllib.parse import unquote

import msgspec

from extproc.dialects import Dialect, by_path
from extproc.errors import Refusal
from extproc.messages import Counts, EmbeddingPrompt, Embeddings, Event, Failed, Problem
from extproc.mock import conversation
from extproc.mock.endpoints import Answer, Endpoint, Headers, Json, Question, Refused

SSE = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
MODELS = ("gpt-4o", "gpt-4o-mini", "stub", "text-embedding-3-small")
_IDS = {"openai_chat": "chatcmpl-", "anthropic_messages": "msg_"}


def answer(dialect: Dialect, question: Question) -> Answer:
    """Answer a request. Raises Refused where the gateway would refuse it."""
    try:
        prompt = dialect.decode_request(question.body)
    except Refusal as refusal:
        raise Refused(refusal.kind.status, refusal.message, param=refusal.param, code=refusal.kind.code) from None
    faults, embeds = question.faults, isinstance(prompt, EmbeddingPrompt)
    said = embed(prompt) if embeds else conversation.answer(prompt, faults.words, question.digest)
    if faults.usage == "none":
        said.usage = None
    if embeds:
        return Answer(dialect.encode_answer(said))
    said.id = _IDS.get(dialect.name, "") + question.digest
    if not prompt.stream:
        return Answer(dialect.encode_answer(said))
    events = [*conversation.events(said, usage=not dialect.usage_request(question.body))]
    return Answer(None, _frames(dialect, events, faults.errorevent), len(events), SSE)


def error(dialect: Dialect, refused: Refused) -> tuple[Json, Headers]:
    problem = Problem(refused.message, refused.type, refused.code or "", refused.param)
    return dialect.encode_problem(refused.status, problem), ()


def _frames(dialect: Dialect, events: Iterable[Event], most: int | None) -> Iterator[bytes]:
    """The events of a stream as bytes: all of them, or `most` and then an error."""
    encoder = dialect.encoder()
    yield from islice((frame for event in events for frame in _split(encoder.feed(event))), most)
    if most is not None:
        yield from _split(encoder.feed(Failed("A fault was asked for: errorevent.", "server_error", "mock_fault")))


def _split(frames: bytes) -> Iterator[bytes]:
    return (frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1])


def embed(prompt: EmbeddingPrompt) -> Embeddings:
    tokens = sum(len(each) if isinstance(each, list) else conversation.count_words(each) for each in prompt.input)
    vectors = [vector(each, prompt.dimensions or 8).tolist() for each in prompt.input]
    return Embeddings(vectors, prompt.model, Counts(max(1, tokens)), prompt.encoding)


def vector(text: str | list[int], dimensions: int) -> array[float]:
    """A vector of unit length from the hash of a text, as the 32-bit floats that APIs carry."""
    random = hashlib.shake_128(msgspec.json.encode(text)).digest(4 * dimensions)
    values = [int.from_bytes(random[at : at + 4], "little") - 2**31 for at in range(0, len(random), 4)]
    length = math.hypot(*values)
    return array("f", [value / length for value in values])


def models(path: str) -> Json | None:
    """GET /v1/models and /v1/models/{id}: every name is served."""
    if path == "/v1/models":
        return {"object": "list", "data": [models(f"{path}/{name}") for name in MODELS]}
    name = unquote(path.removeprefix("/v1/models/")) if path.startswith("/v1/models/") else ""
    return {"id": name, "object": "model", "created": conversation.CREATED, "owned_by": "mock"} if name else None


ENDPOINTS = {
    path: Endpoint(dialect.name, partial(answer, dialect), partial(error, dialect))
    for path, dialect in by_path().items()
    if dialect.translates_from
}


def find(path: str) -> tuple[Endpoint | None, str]:
    """The endpoint of a path, and the model that the path names."""
    return ENDPOINTS.get(path), ""
