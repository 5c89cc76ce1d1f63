"""Gemini's endpoint to count a request's tokens. It only passes through.

The request is a conversation alone, or a whole request inside `generateContentRequest`. The gateway reads both as the
request itself.

Source: https://ai.google.dev/api/tokens#method:-models.counttokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from extproc.dialects import gemini_generate_content as chat
from extproc.dialects._refusals import wrong
from extproc.dialects._usual import observe_nothing
from extproc.dialects.gemini_generate_content import spelling
from extproc.words.api import ClientTranslation, Naming
from extproc.words.dialect import NO_ENDPOINT, Ask, Destination, Endpoint

_WHOLE = "generateContentRequest"


def spelled(body: dict[str, Any]) -> dict[str, Any]:
    """See `Naming.spelled`."""
    body = spelling.spelled(body)
    whole = body.get(_WHOLE)
    if whole is None:
        return body
    if not isinstance(whole, dict) or len(body) > 1:
        raise wrong(f"'{_WHOLE}' must be an object, and the only field.", _WHOLE)
    return whole


def for_model(body: dict[str, Any], model: str) -> dict[str, Any]:
    """The body for another model: a conversation alone, or a whole request, which repeats the model's name."""
    return body if body.keys() == {"contents"} else {_WHOLE: {**body, "model": f"models/{model}"}}


def path(destination: Destination, stream: bool) -> str:  # noqa: ARG001
    """See `Naming.path`."""
    return f"/models/{quote(destination.model.removeprefix('models/'), safe='@')}:countTokens"


name, family = "gemini_count_tokens", "count_tokens"
endpoints = chat.calls("count_tokens", "countTokens")
fields = replace(chat.fields, output_limits=())
answers = chat.answers
offers = replace(
    chat.offers,
    naming=Naming(spelled=spelled, for_model=for_model, path=path),
    encode_count=lambda tokens: {"totalTokens": tokens},
)
translation: ClientTranslation | None = None
replies, texts, conversation, said = chat.replies, chat.texts, chat.conversation, chat.said
observe, observe_edges, smallest = observe_nothing, chat.observe_edges, chat.smallest


def read(body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
    found = chat.read(body, endpoint)
    found.free = True
    found.output_field = found.max_output_tokens = None
    found.thinking = 0
    return found
