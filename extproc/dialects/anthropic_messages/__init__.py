"""Anthropic messages, for clients and for providers.

Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extproc.dialects.anthropic_messages import (
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
from extproc.dialects.anthropic_messages import problem as problems
from extproc.words.dialect import Destination, Dialect, Listed
from extproc.words.errors import (
    FOREIGN_OBJECT,
    OBJECT_NOT_FOUND,
    OVERLOADED,
    UNBOUNDED_INPUT,
    UNSUPPORTED_BY_TARGETS,
    Kind,
)
from extproc.words.messages import Answer, Problem, Prompt

_THREAD_CODES = {
    **dict.fromkeys((UNSUPPORTED_BY_TARGETS, UNBOUNDED_INPUT), "thread_unsupported_request"),
    **dict.fromkeys((OBJECT_NOT_FOUND, FOREIGN_OBJECT), "thread_not_found"),
}
"""Codes with which SDKs send the whole conversation instead, without a thread or as a new one:
anthropic-sdk-python/src/anthropic/lib/threads/_thread_state.py
"""


class AnthropicMessages(ask.MessagesView, Dialect):
    name = "anthropic_messages"
    comments = True
    paths = {"/v1/messages": "chat"}  # noqa: RUF012
    cache_marks = True
    tool_names = 128  # https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
    request_id = "request-id"  # https://platform.claude.com/docs/en/api/errors#request-id
    version = "anthropic-version"  # https://platform.claude.com/docs/en/api/versioning
    rates = "anthropic-ratelimit-"  # https://platform.claude.com/docs/en/api/rate-limits#response-headers
    # The last two are thinking that its provider does not sign, which Anthropic refuses.
    traces = (b'"gemini:', b'"openai:', b'"extra_content"', b'"signature":""', b'"signature": ""')
    asides = plain.ASIDES
    reads = frozenset(shapes.Event.__struct_encode_fields__)
    plain = staticmethod(plain.is_plain)
    observe = staticmethod(report.observe)
    said = staticmethod(said.said)
    lacks = frozenset(("choices", "logprobs", "audio"))

    def keeps(self, body: Mapping[str, Any]) -> bool:
        """A thread goes on from the id of its last message, and so does the diagnosis of the prompt cache."""
        return body.get("thread") is not None or body.get("diagnostics") is not None

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        type = "overloaded_error" if kind is OVERLOADED else problems.type_of(kind.status, kind.type)
        code = kind.code
        if param is not None and param.partition(".")[0] == "thread":
            code = _THREAD_CODES.get(kind, code)
        return problems.encode_error(message, type, code, param)

    def model(self, listed: Listed) -> dict[str, Any]:
        """Source: https://platform.claude.com/docs/en/api/models. The epoch stands for an unknown date."""
        return {
            "type": "model",
            "id": listed.name,
            "display_name": listed.name,
            "created_at": "1970-01-01T00:00:00Z",
            "lifecycle": "active",
            "max_input_tokens": listed.context,
            "max_tokens": listed.max_output_tokens,
        }

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        first, last = (listed[0].name, listed[-1].name) if listed else (None, None)
        return {"data": [self.model(one) for one in listed], "has_more": False, "first_id": first, "last_id": last}

    def cut_off(self, kind: Kind, message: str) -> bytes:
        return b"event: error\n" + super().cut_off(kind, message)

    # --- for clients

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "max_tokens": 256, "messages": [{"role": "user", "content": "Hello"}]}

    def decode_request(self, body: Mapping[str, Any]) -> Prompt:
        return client_request.decode_request(body)

    def encode_answer(self, answer: Answer) -> dict[str, Any]:
        return client_answer.encode_answer(answer)

    def encoder(self) -> client_stream.Encoder:
        return client_stream.Encoder()

    def encode_problem(self, status: int, problem: Problem) -> dict[str, Any]:
        return problems.encode_problem(status, problem)

    def frame(self, data: bytes) -> tuple[bytes, bool]:
        return client_stream.frame(data)

    # --- for providers

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002
        return "/messages"

    def encode_request(self, prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode_request(prompt, destination)

    def decode_answer(self, body: bytes) -> Answer:
        return provider_answer.decode_answer(body)

    def decoder(self) -> provider_stream.Decoder:
        return provider_stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return problems.decode_problem(status, body)


DIALECT = AnthropicMessages()
