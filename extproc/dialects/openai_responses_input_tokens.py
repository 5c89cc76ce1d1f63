"""OpenAI's endpoint to count the tokens of a Responses request. It only passes through.

Source: https://developers.openai.com/api/reference/resources/responses/subresources/input_tokens/methods/count
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.dialects import azure
from extproc.dialects import openai_responses as chat
from extproc.dialects._usual import observe_nothing
from extproc.words.api import ClientTranslation, Endpoints, Stored
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint

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
replies, texts, conversation, said = chat.replies, chat.texts, chat.conversation, chat.said
observe, observe_edges, smallest = observe_nothing, chat.observe_edges, chat.smallest


def read(body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
    found = chat.read(body, endpoint)
    found.free, found.stream, found.lasting = True, False, False
    found.output_field = found.max_output_tokens = None
    return found
