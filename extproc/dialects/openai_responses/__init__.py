"""OpenAI responses, except for features that need a provider's storage or its own tools.

Source: https://developers.openai.com/api/reference/resources/responses
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from extproc.dialects import azure
from extproc.dialects._effort import openai_reasons
from extproc.dialects._replies import OpenAIReplies
from extproc.dialects._steps import steps_of
from extproc.dialects.openai_chat import problem as chat_problem
from extproc.dialects.openai_responses import (
    ask,
    client_answer,
    client_request,
    client_stream,
    plain,
    problem,
    provider_answer,
    provider_request,
    provider_stream,
    report,
    turns,
)
from extproc.dialects.openai_responses.provider_stream import Decoder
from extproc.dialects.openai_responses.report import LATE, OBSERVER
from extproc.dialects.openai_responses.said import said as said
from extproc.words import messages
from extproc.words.api import Able, AnswerFacts, ClientTranslation, Endpoints, Offers, Reuse, Stored, Tools
from extproc.words.dialect import Destination
from extproc.words.errors import Kind


class Replies(OpenAIReplies):
    def cut_off(self, kind: Kind, message: str) -> bytes:
        """The error event alone. A `response.failed` event would need the response that the provider began, and its
        sequence number; neither is known.
        """
        said = problem.of_event(messages.Failed(message, kind.type, kind.code))
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode({"type": "error", "sequence_number": 0, **said})


name, family = "openai_responses", "chat"
endpoints = Endpoints(
    paths={"/v1/responses": "chat"},
    aliases=azure("/v1/responses"),
    calls={
        ("GET", "/v1/responses/{id}"): "retrieve_response",
        ("DELETE", "/v1/responses/{id}"): "delete_response",
        ("POST", "/v1/responses/{id}/cancel"): "cancel_response",
        ("GET", "/v1/responses/{id}/input_items"): "list_input_items",
    },
    call_query=(
        *("include", "include[]", "stream", "starting_after", "include_obfuscation"),
        *("after", "limit", "order"),
    ),
)
view = ask.ResponsesView()
fields = view.fields

# --- for clients


def keeps(body: Mapping[str, Any]) -> bool:
    return body.get("store") is not False or body.get("background") is True


replies = Replies()
_READ = report.FIELDS | provider_stream.FIELDS
_TEXTS = (("delta",),)
answers = AnswerFacts(usage_at=(("response", "usage"), ("usage",)), reads=_READ, texts_at=_TEXTS, comments=True)
offers = Offers(
    tools=Tools(view.tooling, view.results, partial(steps_of, view), view.without_tools),
    stored=Stored(objects=replace(ask.OBJECTS, turns=turns.ResponsesTurns()), keeps=keeps, late=LATE),
    reuse=Reuse(
        asides=plain.ASIDES,
        varies=view.varies,
        plain=plain.is_plain,
        prefix=view.prefix,
        cache_key="prompt_cache_key",
    ),
    thinking=view.thinking,
)
translation = ClientTranslation(
    client_request.decode,
    client_answer.encode,
    lambda _status, found: chat_problem.encode(found),
    client_stream.Encoder,
    view.without_hosted,
    traces=(b'"extproc:', b'"rs_gw'),
)
read, texts, conversation = view.read, view.texts, view.conversation
observe, observe_edges = OBSERVER.observe, OBSERVER.observe_edges


def smallest(model: str) -> dict[str, Any]:
    return {"model": model, "input": "Hello"}


# --- for providers

able = Able(
    lacks=frozenset(("choices", "audio")),
    reads=_READ,
    texts_at=_TEXTS,
    namespaces=True,
    reasons=openai_reasons,
)
encode_request = provider_request.encode
decoder, decode_answer, decode_problem = Decoder, provider_answer.decode, chat_problem.decode


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001
    return "/responses"
