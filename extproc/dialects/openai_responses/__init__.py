"""OpenAI responses, except for features that need a provider's storage or its own tools.

Source: https://developers.openai.com/api/reference/resources/responses
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from extproc.dialects import azure
from extproc.dialects._effort import openai_reasons
from extproc.dialects.openai_chat import problem as problems
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
    said,
    turns,
)
from extproc.words import messages
from extproc.words.dialect import Destination, Dialect
from extproc.words.errors import Kind


class OpenAIResponses(ask.ResponsesView, Dialect):
    name = "openai_responses"
    comments = True
    paths = {"/v1/responses": "chat"}  # noqa: RUF012
    aliases = azure("/v1/responses")
    calls = {  # noqa: RUF012
        ("GET", "/v1/responses/{id}"): "retrieve_response",
        ("DELETE", "/v1/responses/{id}"): "delete_response",
        ("POST", "/v1/responses/{id}/cancel"): "cancel_response",
        ("GET", "/v1/responses/{id}/input_items"): "list_input_items",
    }
    call_query = ("include", "include[]", "stream", "starting_after", "include_obfuscation", "after", "limit", "order")
    objects = replace(ask.OBJECTS, turns=turns.ResponsesTurns())
    openings = (b'{"type":"response.completed","response":{', b"{")  # the longest event is the last, with all of it
    usage_at = (("response", "usage"), ("usage",))
    namespaces = True
    traces = (b'"extproc:', b'"rs_gw')
    asides = plain.ASIDES
    reads = report.FIELDS | provider_stream.FIELDS
    cache_key = "prompt_cache_key"
    plain = staticmethod(plain.is_plain)
    lacks = frozenset(("choices", "audio"))
    reasons = staticmethod(openai_reasons)
    observe = staticmethod(report.observe)
    said = staticmethod(said.said)

    def keeps(self, body: Mapping[str, Any]) -> bool:
        return body.get("store") is not False or body.get("background") is True

    # --- for clients

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "input": "Hello"}

    def decode_request(self, body: Mapping[str, Any]) -> messages.Prompt:
        return client_request.decode(body)

    def encode_answer(self, answer: messages.Answer) -> dict[str, Any]:
        return client_answer.encode(answer)

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """The error alone. A `response.failed` event would need the response that the provider began; its sequence
        number is not known either.
        """
        said = problem.of_event(messages.Failed(message, kind.type, kind.code))
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode({"type": "error", "sequence_number": 0, **said})

    def encoder(self) -> client_stream.Encoder:
        return client_stream.Encoder()

    def encode_problem(self, status: int, problem: messages.Problem) -> dict[str, Any]:  # noqa: ARG002
        return problems.encode(problem)

    # --- for providers

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002
        return "/responses"

    def encode_request(self, prompt: messages.Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode(prompt, destination)

    def decode_answer(self, body: bytes) -> messages.Answer:
        return provider_answer.decode(body)

    def decoder(self) -> provider_stream.Decoder:
        return provider_stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> messages.Problem:
        return problems.decode(status, body)


DIALECT = OpenAIResponses()
