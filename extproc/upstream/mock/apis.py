"""The APIs of the mock: every dialect of the gateway's clients, read and written by the gateway's code."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

import msgspec

from extproc.dialects import Finder, client_apis
from extproc.upstream.mock import conversation
from extproc.upstream.mock.endpoints import Headers, Json, MockAnswer, MockEndpoint, Question, Refused
from extproc.upstream.mock.faults import Faults
from extproc.words.api import ClientAPI, translation_of
from extproc.words.dialect import NO_ENDPOINT
from extproc.words.dialect import Endpoint as Served
from extproc.words.errors import Refusal
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings, Event, Failed, Problem

SSE = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
MODELS = ("gpt-4o", "gpt-4o-mini", "stub", "text-embedding-3-small")
_IDS = {"openai_chat": "chatcmpl-", "anthropic_messages": "msg_"}


def answer(dialect: ClientAPI, question: Question, served: Served = NO_ENDPOINT) -> MockAnswer:
    """Answer a request to the endpoint `served`. Raises Refused if the gateway would refuse the request."""
    translation = translation_of(dialect)
    try:
        prompt = translation.decode_request(question.body)
        if served.model:
            prompt.model = served.model
            if not isinstance(prompt, EmbeddingPrompt):
                prompt.stream = dialect.read(dialect.offers.naming.spelled(question.body), served).stream
    except Refusal as refusal:
        raise Refused(refusal.kind.status, refusal.message, param=refusal.param, code=refusal.kind.code) from None
    if isinstance(prompt, EmbeddingPrompt):
        return MockAnswer(translation.encode_answer(embed(prompt, question.faults)))
    said = conversation.answer(prompt, question.faults, _IDS.get(dialect.name, "") + question.digest)
    if not prompt.stream:
        return MockAnswer(translation.encode_answer(said))
    events = [*conversation.events(said, usage=not dialect.offers.usage_request(question.body))]
    return MockAnswer(None, _frames(dialect, events, question.faults.errorevent), len(events), SSE)


def error(dialect: ClientAPI, refused: Refused) -> tuple[Json, Headers]:
    problem = Problem(refused.message, refused.type, refused.code or "", refused.param)
    return translation_of(dialect).encode_problem(refused.status, problem), ()


def _frames(dialect: ClientAPI, events: Iterable[Event], most: int | None) -> Iterator[bytes]:
    """The events of a stream as bytes: all of them, or `most` and then an error."""
    encoder = translation_of(dialect).encoder()
    yield from islice((each + b"\n\n" for event in events for each in encoder.feed(event).split(b"\n\n")[:-1]), most)
    if most is not None:
        yield encoder.feed(Failed("A fault was asked for: errorevent.", "server_error", "mock_fault"))


def embed(prompt: EmbeddingPrompt, faults: Faults) -> Embeddings:
    tokens = sum(len(each if isinstance(each, list) else each.split()) for each in prompt.input)
    vectors = [vector(each, prompt.dimensions or 8).tolist() for each in prompt.input]
    usage = None if faults.usage == "none" else Usage(max(1, tokens))
    return Embeddings(vectors, prompt.model, usage, prompt.encoding)


def vector(text: str | list[int], dimensions: int) -> array[float]:
    """A vector of unit length from the hash of a text, as the 32-bit floats that APIs carry."""
    random = hashlib.shake_128(msgspec.json.encode(text)).digest(4 * dimensions)
    values = [int.from_bytes(random[at : at + 4], "little") - 2**31 for at in range(0, len(random), 4)]
    length = math.hypot(*values)
    return array("f", [value / length for value in values])


def models() -> Json:
    """The answer to GET /v1/models."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> Json:
    """The answer to GET /v1/models/{id}: every name is served."""
    return {"id": name, "object": "model", "created": conversation.CREATED, "owned_by": "mock"}


SERVED = [dialect for dialect in client_apis().values() if dialect.translation is not None]
_ENDPOINTS = Finder(SERVED)


def find(path: str) -> tuple[MockEndpoint | None, str]:
    """The endpoint of a path, and the model that the path names."""
    if (found := _ENDPOINTS.find(path)) is None:
        return None, ""
    dialect, served = found
    return MockEndpoint(dialect.name, partial(answer, dialect, served=served), partial(error, dialect)), served.model
