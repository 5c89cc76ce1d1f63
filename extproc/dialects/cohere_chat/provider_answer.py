"""A plain answer.

Source: https://docs.cohere.com/reference/chat#response.body
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from extproc.dialects.cohere_chat.names import unescape
from extproc.dialects.cohere_chat.shapes import (
    BROKEN_OFF,
    Content,
    FunctionCall,
    Message,
    arguments,
    call_id,
    finish_reason,
    logprobs,
)
from extproc.dialects.cohere_chat.usage import read_usage
from extproc.wire.framing.shapes import reader
from extproc.words.messages import Answer, Choice, Part, TextPart, ThinkingPart, ToolCall


class _Answer(Struct):
    message: Message
    id: str | None = None
    finish_reason: Any = None
    usage: Any = None
    logprobs: Any = None


_decode = reader(_Answer, "Cohere's chat")


def decode_answer(body: bytes) -> Answer:
    """The neutral form of an answer. Raises ValueError for another value, and for an answer that broke off."""
    said = _decode(body)
    if isinstance(said.finish_reason, str) and said.finish_reason in BROKEN_OFF:
        raise ValueError("the answer broke off")
    calls = _calls(said.message.calls)
    parts: list[Part] = [*_contents(said.message), *calls]
    choice = Choice(parts, finish_reason(said.finish_reason, called=bool(calls)), logprobs=logprobs(said.logprobs))
    return Answer([choice], id=said.id or "", usage=read_usage(said.usage))


def _contents(message: Message) -> list[Part]:
    """Contents in order: thinking, the plan for tool calls, text."""
    content = message.content
    if isinstance(content, str):
        content = [Content(content)]
    elif isinstance(content, Content):
        content = [content]
    thoughts: list[Part] = [ThinkingPart(part.thinking) for part in content or () if part.thinking]
    if message.plan:
        thoughts.append(ThinkingPart(message.plan))
    return [*thoughts, *(TextPart(part.text) for part in content or () if part.text)]


def _calls(calls: list[FunctionCall] | FunctionCall | None) -> list[ToolCall]:
    return [
        ToolCall(call_id(call.id), unescape(call.function.name or ""), arguments(call.function.arguments or ""))
        for call in ([calls] if isinstance(calls, FunctionCall) else calls or ())
    ]
