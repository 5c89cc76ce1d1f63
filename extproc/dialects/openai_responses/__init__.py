"""OpenAI responses, as far as they need nothing that a provider stores or runs itself.

    needs.py             what a request asks for     shapes.py, client_request.py  a client's request
    provider_request.py  a request for a provider    answer.py                     whole responses
    provider_stream.py   streams of providers        client_stream.py              streams for clients
    thinking.py          how signatures travel       custom.py                     custom tools elsewhere
    usage.py             usage, both ways

Source: https://developers.openai.com/api/reference/resources/responses
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.dialects import text_size
from extproc.dialects._effort import openai_reasons
from extproc.dialects.openai_chat import problem as problems
from extproc.dialects.openai_responses import answer, client_request, needs, problem, provider_request
from extproc.dialects.openai_responses.answer import Body, Output
from extproc.dialects.openai_responses.client_stream import Encoder
from extproc.dialects.openai_responses.provider_stream import Decoder
from extproc.dialects.openai_responses.usage import read_usage
from extproc.words import messages
from extproc.words.dialect import Ask, Destination, Dialect, Report, Text, strings
from extproc.words.errors import Kind


class _Said(Body, gc=False):
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
    lacks = frozenset(("choices", "audio"))
    reasons = staticmethod(openai_reasons)

    def read(self, body: Mapping[str, Any]) -> Ask:
        return needs.read(body)

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        for key, value in body.items():
            if key == "model":
                continue
            role = "system" if key == "instructions" else "user" if key == "input" else "request"
            if isinstance(value, str):
                yield Text(role, key, body, key)
            elif key == "input" and isinstance(value, list):
                for index, item in enumerate(value):
                    yield from strings(item, _role(item), f"input[{index}]")
            else:
                yield from strings(value, role, key)

    def observe(self, data: bytes, report: Report) -> bool:
        if data == b"[DONE]":
            return False
        try:
            said = _read(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            report.add_text(len(data))  # all of it rather than nothing
            return False
        if isinstance(said.delta, str):
            report.add_text(text_size(said.delta))
            return False
        if said.type == "error" or said.error is not None:
            report.error = "provider_error"
        whole = said.response if said.type is not None else said
        if whole is not None:
            _observe_response(whole, report)
        elif said.item is not None and said.type == "response.output_item.added":
            report.add_text(text_size(answer.text_of(said.item.name)))  # its arguments come in pieces
        return False

    # --- a client speaks it

    def decode_request(self, body: Mapping[str, Any]) -> messages.Prompt:
        return client_request.decode(body)

    def encode_answer(self, answered: messages.Answer) -> dict[str, Any]:
        return answer.encode(answered)

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """The error alone: only who began the response can say how it failed. Nor is its number in the order known."""
        said = problem.of_event(messages.Failed(message, kind.type, kind.code))
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode({"type": "error", "sequence_number": 0, **said})

    def encoder(self) -> Encoder:
        return Encoder()

    def encode_problem(self, status: int, problem: messages.Problem) -> dict[str, Any]:  # noqa: ARG002
        return problems.encode(problem)

    # --- a provider speaks it

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002
        return "/responses"

    def encode_request(self, prompt: messages.Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode(prompt, destination)

    def decode_answer(self, body: bytes) -> messages.Answer:
        return answer.decode(body)

    def decoder(self) -> Decoder:
        return Decoder()

    def decode_problem(self, status: int, body: bytes) -> messages.Problem:
        return problems.decode(status, body)


def _role(item: Any) -> str:
    """Who says an item: its role, else what kind it is of."""
    if not isinstance(item, dict):
        return ""
    role, kind = item.get("role"), item.get("type")
    if isinstance(role, str):
        return role
    if not isinstance(kind, str):
        return ""
    return "tool" if kind.endswith("_output") else "assistant"


def _observe_response(said: Body, report: Report) -> None:
    if isinstance(said.model, str) and said.model:
        report.model = said.model
    if said.error is not None or said.status == "failed":
        report.error = "provider_error"
    if said.status in ("completed", "incomplete"):
        parts = [part for item in said.output or () for part in answer.parts_of(item)]
        size = sum(text_size(_text(part)) for part in parts)
        if size > report.output_bytes:  # a whole answer, or one of a provider without deltas
            report.add_text(size - report.output_bytes)
        called = any(isinstance(part, messages.ToolCall) for part in parts)
        report.finish_reasons[0] = answer.reason_of(said, called=called, refused=False)
    if said.usage is not None:
        report.add_usage(read_usage(said.usage))


def _text(part: messages.Part) -> str:
    if isinstance(part, messages.ToolCall):
        return part.name + part.arguments
    return part.text if isinstance(part, messages.TextPart | messages.RefusalPart | messages.ThinkingPart) else ""


DIALECT = OpenAIResponses()
