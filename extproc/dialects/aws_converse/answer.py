"""An answer of Converse."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from extproc.messages import (
    Answer,
    Choice,
    Counts,
    FinishReason,
    Part,
    Problem,
    TextPart,
    ThinkingPart,
    ToolCall,
)

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "refusal",
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "api_error",
    424: "api_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Usage(Struct, rename="camel"):
    """TokenUsage. `inputTokens` leaves out what the cache served and what was written to it."""

    input_tokens: Any = 0
    output_tokens: Any = 0
    cache_read_input_tokens: Any = 0
    cache_write_input_tokens: Any = 0

    def counts(self) -> Counts | None:
        """None when these are no counts."""
        numbers = (
            self.input_tokens,
            self.output_tokens,
            self.cache_read_input_tokens or 0,
            self.cache_write_input_tokens or 0,
        )
        if not all(type(number) is int and number >= 0 for number in numbers):
            return None
        plain, output, cached, written = numbers
        return Counts(plain + cached + written, output, cached, written)


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str
    name: str
    input: Raw = Raw(b"{}")


class _ReasoningText(Struct):
    text: str = ""
    signature: str = ""


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str = ""


class _Cited(Struct):
    text: str = ""


class _Citations(Struct):
    content: list[_Cited] = []


class _Block(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Citations | None = None


class _Message(Struct):
    content: list[_Block] = []


class _Output(Struct):
    message: _Message


class _Answer(Struct, rename="camel"):
    output: _Output
    stop_reason: str = "end_turn"
    usage: Usage | None = None


class _Problem(Struct):
    message: str = ""
    Message: str = ""
    __type: str = ""


_decode = msgspec.json.Decoder(_Answer).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode


def decode(body: bytes) -> Answer:
    """Raises ValueError when it is no answer of Converse."""
    found = _decode(body)
    parts = [part for block in found.output.message.content for part in _parts(block)]
    choice = Choice(parts, FINISH.get(found.stop_reason, "stop"))
    return Answer([choice], usage=found.usage.counts() if found.usage else None)


def _parts(block: _Block) -> list[Part]:
    if block.text is not None:
        return [TextPart(block.text)]
    if (call := block.tool_use) is not None:
        return [ToolCall(call.tool_use_id, call.name, bytes(call.input).decode())]
    if (thought := block.reasoning_content) is not None:
        text = thought.reasoning_text or _ReasoningText()
        return [ThinkingPart(text.text, text.signature, thought.redacted_content)]
    if block.citations_content is not None:
        return [TextPart("".join(cited.text for cited in block.citations_content.content))]
    return []


def problem(status: int, body: bytes) -> Problem:
    """What an error answer says; its type follows from the status."""
    try:
        found = _decode_problem(body)
        message = found.message or found.Message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = ""
    return Problem(message or f"The provider answered {status}.", _TYPES.get(status, "api_error"))
