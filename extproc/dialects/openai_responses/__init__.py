"""OpenAI responses, as far as they need nothing that a provider stores or runs itself.

Source: https://developers.openai.com/api/reference/resources/responses
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.dialects import token_count
from extproc.dialects._effort import openai_reasons
from extproc.dialects.openai_chat import problem as problems
from extproc.dialects.openai_responses import (
    ask,
    client_answer,
    client_request,
    client_stream,
    problem,
    provider_answer,
    provider_request,
    provider_stream,
)
from extproc.dialects.openai_responses.shapes import Body, Output
from extproc.words import messages
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Destination, Dialect, Endpoint, Report, Text
from extproc.words.errors import Kind
from extproc.words.exchange import Usage


class _Said(Body):
    """An event, or a whole response, as far as the gateway reads it."""

    type: Any = None
    delta: Any = None
    item: Output | None = None
    response: Body | None = None


_read = msgspec.json.Decoder(_Said).decode


class OpenAIResponses(Dialect):
    name = "openai_responses"
    paths = {"/v1/responses": "chat"}  # noqa: RUF012
    usage_at = (("response", "usage"), ("usage",))
    traces = (b'"extproc:',)
    fields = ask.FIELDS
    lacks = frozenset(("choices", "audio"))
    reasons = staticmethod(openai_reasons)

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        return ask.read(body)

    def thinking(self, body: Mapping[str, Any]) -> int:
        return ask.thinking(body)

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        return ask.conversation(body)

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        return ask.texts(body)

    def observe(self, data: bytes, report: Report) -> bool:
        if data == b"[DONE]":
            return False
        try:
            said = _read(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            report.output_bytes += len(data)  # unreadable: count all of it rather than nothing
            report.output_events += 1
            return False
        if isinstance(said.delta, str):
            size = len(said.delta) if said.delta.isascii() else len(said.delta.encode())
            report.output_bytes += size
            report.output_events += size > 0
            return False
        if said.type == "error" or said.error is not None:
            report.error = "provider_error"
        whole = said.response if said.type is not None else said
        if whole is not None:
            _observe_response(whole, report)
        return False

    # --- a client speaks it

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "input": "Hello"}

    def decode_request(self, body: Mapping[str, Any]) -> messages.Prompt:
        return client_request.decode(body)

    def encode_answer(self, answer: messages.Answer) -> dict[str, Any]:
        return client_answer.encode(answer)

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """The error alone: only who began the response can say how it failed. Nor is its number in the order known."""
        said = problem.of_event(messages.Failed(message, kind.type, kind.code))
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode({"type": "error", "sequence_number": 0, **said})

    def encoder(self) -> client_stream.Encoder:
        return client_stream.Encoder()

    def encode_problem(self, status: int, problem: messages.Problem) -> dict[str, Any]:  # noqa: ARG002
        return problems.encode(problem)

    # --- a provider speaks it

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


def _observe_response(said: Body, report: Report) -> None:
    if isinstance(said.model, str) and said.model:
        report.model = said.model
    if said.error is not None or said.status == "failed":
        report.error = "provider_error"
    if said.status in ("completed", "incomplete"):
        parts = [part for item in said.output or () for part in provider_answer.parts_of(item)]
        if not report.output_bytes:  # a whole answer, or one of a provider without deltas
            report.output_bytes = sum(len(_text(part).encode(errors="replace")) for part in parts)
            report.output_events += report.output_bytes > 0
        called = any(isinstance(part, messages.ToolCall) for part in parts)
        report.finish_reasons[0] = provider_answer.reason_of(said, called=called, refused=False)
    if said.usage is not None:
        usage = _usage(said.usage)
        if usage is None:
            report.usage_refused = True
        else:
            report.usage = usage


def _text(part: messages.Part) -> str:
    if isinstance(part, messages.ToolCall):
        return part.name + part.arguments
    return part.text if isinstance(part, messages.TextPart | messages.RefusalPart | messages.ThinkingPart) else ""


def _usage(said: Any) -> Usage | None:
    """None when its numbers cannot be believed."""
    if not isinstance(said, dict) or token_count(said.get("input_tokens")) is None:
        return None
    counts = provider_answer.read_counts(said)
    if counts is None or token_count(said.get("output_tokens")) is None:
        return None
    return Usage(
        counts.input,
        counts.output,
        cached_tokens=min(counts.cached, counts.input),
        reasoning_tokens=min(counts.reasoning, counts.output),
        cache_write_tokens=min(counts.cache_write, counts.input),
    )


DIALECT = OpenAIResponses()
