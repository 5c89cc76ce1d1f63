"""OpenAI's count of the tokens of a Responses request, before it is sent. It passes through only.

Source: https://developers.openai.com/api/reference/resources/responses/subresources/input_tokens/methods/count
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.dialects import azure
from extproc.dialects import openai_responses as chat
from extproc.dialects._usual import observe_nothing as observe
from extproc.dialects.openai_responses import (
    conversation,
    observe_edges,
    replies,
    said,
    smallest,
    texts,
)
from extproc.words.api import ClientTranslation, Endpoints, Stored
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint

__all__ = [
    "answers",
    "conversation",
    "endpoints",
    "family",
    "fields",
    "name",
    "observe",
    "observe_edges",
    "offers",
    "read",
    "replies",
    "said",
    "smallest",
    "texts",
    "translation",
]

name, family = "openai_responses_input_tokens", "count_tokens"
endpoints = Endpoints(paths={"/v1/responses/input_tokens": "count_tokens"}, aliases=azure("/v1/responses/input_tokens"))
fields = replace(chat.fields, output_limits=())
answers = chat.answers
offers = replace(
    chat.offers,
    stored=Stored(objects=chat.offers.stored.objects),
    encode_count=lambda tokens: {"object": "response.input_tokens", "input_tokens": tokens},
)
translation: ClientTranslation | None = None


def read(body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
    found = chat.read(body, endpoint)
    found.free, found.stream, found.lasting = True, False, False
    found.output_field = found.max_output_tokens = None
    return found
