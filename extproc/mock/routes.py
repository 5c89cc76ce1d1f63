"""Every path and what answers it."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from urllib.parse import unquote

import msgspec

from extproc.mock import answers, anthropic, credentials
from extproc.mock.answers import Refused
from extproc.mock.chat import chat
from extproc.mock.embeddings import embeddings
from extproc.mock.endpoints import Dialect, Endpoint
from extproc.mock.faults import Event


def _openai_failure(refused: Refused, _number: int) -> Event:
    return Event(msgspec.json.encode(answers.error(refused)))


OPENAI = Dialect("openai", answers.error, _openai_failure, credentials.openai)

VERTEX = "/v1/projects/{project}/locations/{location}/"

# `{name}` stands for one segment of a path, of which `{model}` is read.
ROUTES = {
    "/v1/chat/completions": Endpoint(OPENAI, chat),
    "/v1/embeddings": Endpoint(OPENAI, embeddings),
    "/v1/messages": Endpoint(anthropic.DIALECT, anthropic.messages),
    "/v1/messages/count_tokens": Endpoint(anthropic.DIALECT, anthropic.count_tokens),
    VERTEX + "publishers/anthropic/models/{model}:rawPredict": Endpoint(
        anthropic.ON_VERTEX, partial(anthropic.vertex, stream=False)
    ),
    VERTEX + "publishers/anthropic/models/{model}:streamRawPredict": Endpoint(
        anthropic.ON_VERTEX, partial(anthropic.vertex, stream=True)
    ),
}

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
        return endpoint, ""
    for pattern, each in _BY_MODEL:
        match = pattern.fullmatch(path)
        if match is not None:
            return each, unquote(match["model"])
    return None, ""
