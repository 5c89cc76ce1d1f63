"""Shapes of Anthropic's answers, events and usage, reduced to the fields that are read; and its stop reasons.

Source: https://platform.claude.com/docs/en/api/messages/create (message object) and
https://platform.claude.com/docs/en/build-with-claude/streaming (events).
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.words.messages import FinishReason

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
}
STOP: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_calls": "tool_use",
    "pause": "pause_turn",
    "refusal": "refusal",
    "content_filter": "refusal",
}
TIERS = {"standard": "default", "priority": "priority", "batch": "batch"}
"""Values of `usage.service_tier`, with OpenAI's words, which the neutral form uses."""

ERRORS = {
    "invalid_request_error": "invalid_request_error",
    "request_too_large": "invalid_request_error",
    "conflict_error": "invalid_request_error",
    "authentication_error": "authentication_error",
    "billing_error": "insufficient_quota",
    "permission_error": "permission_error",
    "not_found_error": "not_found_error",
    "rate_limit_error": "rate_limit_error",
    "timeout_error": "api_error",
    "api_error": "api_error",
    "overloaded_error": "overloaded_error",
}
"""Anthropic's error types, with OpenAI's types, which the neutral form uses."""

_NOTHING = msgspec.Raw(b"")


class Block(msgspec.Struct, gc=False):
    """A content block. Only the type of an unknown kind is read."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None  # encrypted thinking
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING


class Delta(msgspec.Struct, gc=False):
    """A delta of a content block, or of the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None


class Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    content: list[Block] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None
    usage: Any = None


class Event(Message, gc=False):
    """A stream's event, or a plain answer, which has a message's fields."""

    type: str = ""
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    error: Any = None


decode = msgspec.json.Decoder(Event).decode

NO_INPUT = frozenset((b"", b"{}", b"null"))
"""Input of a call whose input follows in pieces, or is empty."""


def explanation(stop_details: Any) -> str:
    """Reason in words why the model stopped; empty without one."""
    said = stop_details.get("explanation") if isinstance(stop_details, dict) else None
    return said if isinstance(said, str) else ""
