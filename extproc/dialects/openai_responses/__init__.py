"""OpenAI responses, except for features that need a provider's storage or its own tools.

Source: https://developers.openai.com/api/reference/resources/responses
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from extproc.dialects import azure
from extproc.dialects._effort import openai_reasons
from extproc.dialects._prefix import prefix
from extproc.dialects._tooling import without_tools
from extproc.dialects._variety import varies
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
    tooling,
    turns,
)
from extproc.words import messages
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Destination, Dialect, Endpoint, Text
from extproc.words.errors import Kind


class OpenAIResponses(Dialect):
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
    usage_at = (("response", "usage"), ("usage",))
    namespaces = True
    traces = (b'"extproc:', b'"rs_gw')
    fields = ask.FIELDS
    asides = plain.ASIDES
    reads = report.FIELDS | provider_stream.FIELDS
    cache_key = "prompt_cache_key"
    varies = staticmethod(varies)
    plain = staticmethod(plain.is_plain)
    lacks = frozenset(("choices", "audio"))
    reasons = staticmethod(openai_reasons)
    observe = staticmethod(report.observe)
    said = staticmethod(said.said)
    observe_edges = staticmethod(report.observe_edges)
    results = staticmethod(tooling.results)
    tooling = staticmethod(tooling.tooling)
    without_tools = staticmethod(without_tools)

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        return ask.read(body)

    def thinking(self, body: Mapping[str, Any]) -> int:
        return ask.thinking(body)

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        return ask.conversation(body)

    def keeps(self, body: Mapping[str, Any]) -> bool:
        return body.get("store") is not False or body.get("background") is True

    def prefix(self, body: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        return prefix(body, ("tools", "instructions"), "input")

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        return ask.texts(body)

    def without_hosted(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
        return ask.without_hosted(body)

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
