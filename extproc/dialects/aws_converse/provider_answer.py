"""An answer of Converse.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html (response syntax)
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from extproc.dialects.aws_converse.usage import read_usage
from extproc.words.messages import (
    Answer,
    Choice,
    FinishReason,
    ImagePart,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
)

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "content_filter",  # a client must not take this for a complete answer
    "malformed_tool_use": "content_filter",
    "refusal": "refusal",
}
_TIERS = frozenset(("default", "flex", "priority"))


SERVER_TOOL = "server_tool_use"
"""Type of a hosted tool's call, such as `nova_grounding`; its result is in the same answer.

Source: https://docs.aws.amazon.com/nova/latest/userguide/grounding.html
"""


class _ToolUse(Struct, rename="camel"):
    type: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")


class _ReasoningText(Struct):
    text: str | None = None
    signature: str | None = None


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None


class _Cited(Struct):
    text: str | None = None


class _Citations(Struct):
    content: list[_Cited] | None = None


class _Bytes(Struct):
    bytes: str | None = None


class _Image(Struct):
    format: str | None = None
    source: _Bytes | None = None


class _Block(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Citations | None = None
    image: _Image | None = None


class _Message(Struct):
    content: list[_Block] | None = None


class _Output(Struct):
    message: _Message


class Stop(Struct, rename="camel"):
    """A stop reason. `fields` are fields of Claude's own answer that the request asked for."""

    stop_reason: str | None = None
    fields: Any = field(name="additionalModelResponseFields", default=None)

    def reason(self, *, called: bool) -> FinishReason:
        found = _FINISH.get(self.stop_reason or "", "stop")
        return "tool_calls" if called and found == "stop" else found

    def sequence(self) -> str:
        said = self.fields.get("stop_sequence") if isinstance(self.fields, dict) else None
        return said if isinstance(said, str) else ""


class _Tier(Struct):
    type: str | None = None


class _Answer(Stop, rename="camel", kw_only=True):
    output: _Output
    usage: Any = None
    service_tier: _Tier | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def decode(body: bytes) -> Answer:
    """The neutral form of an answer. Raises ValueError for another value."""
    try:
        found = _decode(body)
        parts = [part for block in found.output.message.content or () for part in _parts(block)]
    except UNREADABLE as error:
        raise ValueError("no answer of Converse") from error
    reason = found.reason(called=any(isinstance(part, ToolCall) for part in parts))
    tier = found.service_tier.type if found.service_tier is not None else None
    return Answer(
        [Choice(parts, reason, found.sequence())],
        usage=read_usage(found.usage),
        service_tier=tier if tier in _TIERS else "",
    )


def _parts(block: _Block) -> list[Part]:
    if block.text is not None:
        return [TextPart(block.text)] if block.text else []
    if (call := block.tool_use) is not None:
        if call.type == SERVER_TOOL:
            return []
        return [ToolCall(call.tool_use_id or "", call.name or "", bytes(call.input).decode())]
    if (thought := block.reasoning_content) is not None:
        text = thought.reasoning_text or _ReasoningText()
        part = ThinkingPart(text.text or "", text.signature or "", thought.redacted_content or "")
        return [part] if part.text or part.signature or part.redacted else []
    if (cited := block.citations_content) is not None:
        return [TextPart("".join(piece.text or "" for piece in cited.content or ()))]
    if block.image is not None and block.image.source is not None and block.image.source.bytes:
        return [ImagePart(block.image.source.bytes, f"image/{block.image.format or 'png'}")]
    return []
