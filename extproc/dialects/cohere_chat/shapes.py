"""Shapes of Cohere's answers, plain or streamed, reduced to the fields that are read.

Source: https://docs.cohere.com/reference/chat#response.body
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from extproc.words.messages import FinishReason

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class Content(Struct):
    text: str | None = None
    thinking: str | None = None


class Function(Struct):
    name: str | None = None
    arguments: str | None = None


class FunctionCall(Struct):
    id: str | None = None
    function: Function = field(default_factory=Function)


class Message(Struct):
    """A message or a delta. A message has lists; a delta has single objects, and sometimes empty lists."""

    content: list[Content] | Content | str | None = None
    plan: str | None = field(name="tool_plan", default=None)
    calls: list[FunctionCall] | FunctionCall | None = field(name="tool_calls", default=None)


BROKEN_OFF = frozenset(("ERROR", "TIMEOUT"))
"""Finish reasons of answers cut off by an error."""

_FINISH: Mapping[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop_sequence",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_LIMIT": "length",
    "ERROR_TOXIC": "content_filter",
}


def finish_reason(reason: Any, *, called: bool) -> FinishReason:
    found = _FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
    return "tool_calls" if called and found == "stop" else found


def call_id(id: str | None) -> str:
    return id or f"call_{uuid.uuid4().hex}"


def arguments(text: str) -> str:
    """Arguments as JSON text. Calls of tools without parameters have no arguments, or null."""
    return "{}" if text.strip() in ("", "null") else text


def logprobs(items: Any) -> dict[str, Any] | None:
    """Log probabilities in OpenAI chat's form; None without any. Cohere reports them by chunk of text, not always one
    token. A chunk's probability is the product of its tokens' probabilities.
    """
    content = []
    for item in items if isinstance(items, list) else ():
        values = item.get("logprobs") if isinstance(item, dict) else None
        if not isinstance(values, list) or not values or not all(type(value) in (float, int) for value in values):
            continue
        text = item.get("text")
        text = text if isinstance(text, str) else ""
        content.append({"token": text, "logprob": sum(values), "bytes": list(text.encode()), "top_logprobs": []})
    return {"content": content, "refusal": None} if content else None
