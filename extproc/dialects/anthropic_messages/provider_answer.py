"""Plain answers, read from providers.

Source: https://platform.claude.com/docs/en/api/messages/create (message object)
"""

from __future__ import annotations

from extproc.dialects.anthropic_messages.shapes import FINISH, TIERS, Block, Event, explanation
from extproc.dialects.anthropic_messages.usage import read_usage
from extproc.wire.framing.shapes import reader
from extproc.words.messages import (
    Answer,
    Choice,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)

_read = reader(Event, "Anthropic messages")


def decode_answer(body: bytes) -> Answer:
    """The neutral form of a message. Raises ValueError for another value."""
    message = _read(body)
    if message.type != "message":
        raise ValueError("no message")
    parts = [part for block in message.content if (part := _part(block)) is not None]
    if words := explanation(message.stop_details):
        parts.append(RefusalPart(words))
    finish = FINISH.get(message.stop_reason or "", "stop")
    tier = message.usage.get("service_tier") if isinstance(message.usage, dict) else None
    return Answer(
        [Choice(parts, finish, message.stop_sequence or "")],
        message.id or "",
        message.model or "",
        usage=read_usage(message.usage),
        service_tier=TIERS.get(tier, "") if isinstance(tier, str) else "",
    )


def _part(block: Block) -> Part | None:
    """Neutral part of a block; None for blocks that only Anthropic's own tools write."""
    kind = block.type
    if kind == "text":
        return TextPart(block.text or "")
    if kind == "thinking":
        return ThinkingPart(block.thinking or "", block.signature or "")
    if kind == "redacted_thinking":
        return ThinkingPart(redacted=block.data or "")
    if kind == "tool_use":
        return ToolCall(block.id or "", block.name or "", bytes(block.input).decode(errors="replace") or "{}")
    return None
