"""OpenAI chat completions, as OpenAI and many other providers serve them.

Source: https://platform.openai.com/docs/api-reference/chat (request, chat completion object, chunk object).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.dialects import token_count
from extproc.dialects._effort import openai_reasons
from extproc.dialects.openai_chat import (
    ask,
    client_answer,
    client_request,
    client_stream,
    provider_answer,
    provider_request,
    provider_stream,
)
from extproc.dialects.openai_chat import problem as problems
from extproc.dialects.openai_chat.shapes import MAX_CHOICES
from extproc.words import messages
from extproc.words.dialect import (
    NO_ENDPOINT,
    Ask,
    Conversation,
    Decoder,
    Destination,
    Dialect,
    Encoder,
    Endpoint,
    Report,
    Text,
)
from extproc.words.exchange import Usage


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    """A completion or a chunk of one, as far as the gateway reads it."""

    model: str | None = None
    choices: list[_Choice] = []
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


class OpenAIChat(Dialect):
    name = "openai_chat"
    paths = {"/v1/chat/completions": "chat"}  # noqa: RUF012
    usage_at = (("usage",),)
    traces = (b'"thinking_blocks"', b'"thought_signature"')
    fields = ask.FIELDS
    lacks = frozenset()
    reasons = staticmethod(openai_reasons)

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        return ask.read(body)

    def thinking(self, body: Mapping[str, Any]) -> int:
        return ask.thinking(body)

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        return ask.conversation(body)

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        return ask.texts(body)

    def usage_request(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return ask.usage_request(body)

    def observe(self, data: bytes, report: Report) -> bool:
        if data == b"[DONE]":
            return False
        try:
            said = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            report.output_bytes += len(data)  # unreadable: count all of it rather than nothing
            report.output_events += 1
            return False
        if said.model:
            report.model = said.model
        if said.error is not None:
            report.error = "provider_error"
        for choice in said.choices:
            delta = choice.delta or choice.message
            if delta is not None:
                size = _text_bytes(delta)
                report.output_bytes += size
                report.output_events += size > 0
            if choice.finish_reason is not None and 0 <= choice.index < MAX_CHOICES:
                report.finish_reasons[choice.index] = choice.finish_reason
        if said.usage is not None:
            usage = read_usage(said.usage)
            if usage is None:
                report.usage_refused = True
            else:
                report.usage = usage
            return not said.choices and said.error is None
        return False

    # --- a client speaks it

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

    # --- a provider speaks it

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


def read_usage(usage: Mapping[str, Any]) -> Usage | None:
    """OpenAI's usage object; None when its numbers cannot be believed. Shared with embeddings."""
    input_tokens, output_tokens = token_count(usage.get("prompt_tokens")), token_count(usage.get("completion_tokens"))
    if input_tokens is None or output_tokens is None:
        return None
    input_details = usage.get("prompt_tokens_details")
    output_details = usage.get("completion_tokens_details")
    cached = token_count(input_details.get("cached_tokens")) if isinstance(input_details, dict) else None
    written = token_count(input_details.get("cache_write_tokens")) if isinstance(input_details, dict) else None
    reasoning = token_count(output_details.get("reasoning_tokens")) if isinstance(output_details, dict) else None
    return Usage(
        input_tokens,
        output_tokens,
        cached_tokens=min(cached or 0, input_tokens),
        reasoning_tokens=min(reasoning or 0, output_tokens),
        cache_write_tokens=min(written or 0, input_tokens),
    )


def _text_bytes(delta: _Delta) -> int:
    size = 0
    for text in (delta.content, delta.refusal, delta.reasoning_content):
        if text:
            size += len(text) if text.isascii() else len(text.encode())
    for call in delta.tool_calls or ():
        if call.function is not None:
            size += len(call.function.name or "") + len((call.function.arguments or "").encode())
    return size


DIALECT = OpenAIChat()
