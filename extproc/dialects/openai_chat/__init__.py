"""OpenAI chat completions, as OpenAI and many other providers serve them.

Source: https://platform.openai.com/docs/api-reference/chat (request, chat completion object, chunk object).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extproc.dialects import azure
from extproc.dialects._effort import openai_reasons
from extproc.dialects.openai_chat import (
    ask,
    client_answer,
    client_request,
    client_stream,
    plain,
    provider_answer,
    provider_request,
    provider_stream,
    report,
    said,
    shapes,
)
from extproc.dialects.openai_chat import problem as problems
from extproc.words import messages
from extproc.words.dialect import (
    Decoder,
    Destination,
    Dialect,
    Encoder,
)


class OpenAIChat(ask.ChatView, Dialect):
    name = "openai_chat"
    comments = True
    images = True
    paths = {"/v1/chat/completions": "chat"}  # noqa: RUF012
    aliases = azure("/v1/chat/completions")
    usage_at = (("usage",),)
    traces = (b'"thinking_blocks"', b'"thought_signature"')
    rates = "x-ratelimit-"  # https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    asides = plain.ASIDES
    reads = frozenset(shapes.Body.__struct_encode_fields__)
    cache_key = "prompt_cache_key"
    plain = staticmethod(plain.is_plain)
    lacks = frozenset()
    reasons = staticmethod(openai_reasons)
    observe = staticmethod(report.observe)
    said = staticmethod(said.said)

    # --- for clients

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}

    def decode_request(self, body: Mapping[str, Any]) -> messages.Prompt:
        return client_request.decode(body)

    def encode_answer(self, answer: messages.Answer) -> dict[str, Any]:
        return client_answer.encode(answer)

    def encoder(self) -> Encoder:
        return client_stream.Encoder()

    def encode_problem(self, status: int, problem: messages.Problem) -> dict[str, Any]:  # noqa: ARG002 - it has none
        return problems.encode(problem)

    # --- for providers

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002 - the same for all
        return "/chat/completions"

    def encode_request(self, prompt: messages.Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode(prompt, destination, destination.more)

    def decode_answer(self, body: bytes) -> messages.Answer:
        return provider_answer.decode(body)

    def decoder(self) -> Decoder:
        return provider_stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> messages.Problem:
        return problems.decode(status, body)


DIALECT = OpenAIChat()
