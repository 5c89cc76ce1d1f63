"""Every path and its endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from urllib.parse import unquote

import msgspec

from tests.doubles import (
    answers,
    anthropic,
    anthropic_batches,
    audio,
    bedrock,
    cohere,
    converse,
    credentials,
    embeddings_gemini,
    files,
    gemini,
    gemini_batches,
    gemini_files,
    images,
    ocr,
    rerank,
    responses,
)
from tests.doubles.answers import Answer, Question, Refused
from tests.doubles.chat import chat
from tests.doubles.embeddings import embeddings
from tests.doubles.embeddings_cohere import embed
from tests.doubles.endpoints import Dialect, Endpoint
from tests.doubles.faults import Event
from tests.doubles.moderations import moderations


def _openai_failure(refused: Refused, _number: int) -> Event:
    return Event(msgspec.json.encode(answers.error(refused)))


OPENAI = Dialect("openai", answers.error, _openai_failure, credentials.openai)

ANTHROPIC_ON_VERTEX = "projects/{project}/locations/{location}/publishers/anthropic/models/{model}:"
GEMINI = ("/v1beta/models/{model}:", "/v1/models/{model}:")
GEMINI_ON_VERTEX = tuple(
    f"/{version}/{place}publishers/google/models/{{model}}:"
    for version in ("v1", "v1beta1")
    for place in ("projects/{project}/locations/{location}/", "")
)


def _everywhere(
    places: Iterable[str], dialect: Dialect, verbs: Mapping[str, Callable[[Question], Answer]]
) -> Mapping[str, Endpoint]:
    return {place + verb: Endpoint(dialect, answer) for place in places for verb, answer in verbs.items()}


# `{name}` stands for one segment of a path. `{model}` is read from it.
ROUTES = {
    "/v1/chat/completions": Endpoint(OPENAI, chat),
    "/v1/responses": Endpoint(responses.DIALECT, responses.create),
    "/v1/responses/input_tokens": Endpoint(responses.DIALECT, responses.input_tokens),
    "/v1/responses/compact": Endpoint(responses.DIALECT, responses.compact),
    "/v1/embeddings": Endpoint(OPENAI, embeddings),
    "/v1/rerank": Endpoint(OPENAI, rerank.others),
    "/v1/images/generations": Endpoint(OPENAI, images.generations),
    "/v1/images/edits": Endpoint(OPENAI, images.edits),
    "/v1/audio/speech": Endpoint(OPENAI, audio.speech),
    "/v1/audio/transcriptions": Endpoint(OPENAI, audio.transcriptions),
    "/v1/audio/translations": Endpoint(OPENAI, audio.translations),
    "/v1/files": Endpoint(OPENAI, files.upload),
    "/upload/v1beta/files": Endpoint(gemini.DIALECT, gemini_files.upload),
    "/v1/batches": Endpoint(OPENAI, files.create_batch),
    "/v1/moderations": Endpoint(OPENAI, moderations),
    "/v1/ocr": Endpoint(OPENAI, ocr.ocr),
    "/v2/rerank": Endpoint(cohere.DIALECT, rerank.cohere),
    "/v2/chat": Endpoint(cohere.DIALECT, cohere.chat),
    "/v2/embed": Endpoint(cohere.DIALECT, embed),
    "/model/{model}/converse": Endpoint(bedrock.CONVERSE, converse.converse),
    "/model/{model}/converse-stream": Endpoint(bedrock.CONVERSE, partial(converse.converse, stream=True)),
    "/model/{model}/invoke": Endpoint(bedrock.INVOKE, bedrock.invoke),
    "/model/{model}/invoke-with-response-stream": Endpoint(bedrock.INVOKE, bedrock.invoke_with_response_stream),
    "/v1/messages": Endpoint(anthropic.DIALECT, anthropic.messages),
    "/v1/messages/batches": Endpoint(anthropic.DIALECT, anthropic_batches.create),
    "/v1/messages/count_tokens": Endpoint(anthropic.DIALECT, anthropic.count_tokens),
    **_everywhere(
        ("/v1/" + ANTHROPIC_ON_VERTEX, "/v1beta1/" + ANTHROPIC_ON_VERTEX),
        anthropic.ON_VERTEX,
        {
            "rawPredict": partial(anthropic.vertex, stream=False),
            "streamRawPredict": partial(anthropic.vertex, stream=True),
        },
    ),
    **_everywhere(
        GEMINI,
        gemini.DIALECT,
        {
            "generateContent": gemini.generate_content,
            "streamGenerateContent": partial(gemini.generate_content, stream=True),
            "countTokens": gemini.count_tokens,
            "batchEmbedContents": embeddings_gemini.batch,
            "embedContent": partial(embeddings_gemini.embed, vertex=False),
            "batchGenerateContent": gemini_batches.create,
        },
    ),
    **_everywhere(
        GEMINI_ON_VERTEX,
        gemini.ON_VERTEX,
        {
            "generateContent": partial(gemini.generate_content, vertex=True),
            "streamGenerateContent": partial(gemini.generate_content, vertex=True, stream=True),
            "countTokens": partial(gemini.count_tokens, vertex=True),
            "batchEmbedContents": partial(embeddings_gemini.batch, vertex=True),
            "embedContent": embeddings_gemini.embed,
            "predict": embeddings_gemini.predict,
        },
    ),
}

UNNAMED = ("/v1/files", "/upload/v1beta/files", "/v1/batches", "/v1/messages/batches")
"""Paths whose requests name no model themselves."""
_BY_MODEL = [
    (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))), endpoint)
    for path, endpoint in ROUTES.items()
    if "{" in path
]


@lru_cache(maxsize=1024)
def find(path: str) -> tuple[Endpoint | None, str]:
    """The endpoint of a path, and the model that the path names."""
    endpoint = ROUTES.get(path)
    if endpoint is not None:
        return endpoint, "none" if path in UNNAMED else ""
    for pattern, each in _BY_MODEL:
        match = pattern.fullmatch(path)
        if match is not None:
            return each, unquote(match["model"])
    return None, ""
