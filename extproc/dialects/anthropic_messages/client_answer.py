"""Plain answers, written for clients.

A `tool_use` block has no field for Gemini's thought signature. It is written as `extra_content`, which SDKs keep and
send back.

Source: https://platform.claude.com/docs/en/api/messages/create (message object)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from extproc.dialects.anthropic_messages.provider_request import arguments, new_id
from extproc.dialects.anthropic_messages.shapes import STOP, TIERS
from extproc.dialects.anthropic_messages.usage import write_usage
from extproc.words.exchange import Usage
from extproc.words.messages import (
    Answer,
    Choice,
    FinishReason,
    ImagePart,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)

_TIERS = {neutral: name for name, neutral in TIERS.items()}


def encode_answer(answer: Answer) -> dict[str, Any]:
    """The first choice as a message; a client of this API cannot ask for more."""
    choice = answer.choices[0] if answer.choices else Choice([])
    usage = write_usage(answer.usage or Usage())
    if tier := _TIERS.get(answer.service_tier):
        usage["service_tier"] = tier
    refused = any(type(part) is RefusalPart for part in choice.parts)
    return {
        "id": answer.id or new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": list(_blocks(choice.parts)),
        "stop_reason": stop_reason(choice.finish, refused=refused),
        "stop_sequence": choice.stop_sequence or None,
        "usage": usage,
    }


def _blocks(parts: list[Part]) -> Iterable[dict[str, Any]]:
    """Blocks of a message. A thinking signature without text at the end moves in front of the text, because clients
    take the last block for the answer. Gemini sends such signatures
    (https://ai.google.dev/gemini-api/docs/thought-signatures, "non-function-call parts"), and gets it back with the
    text.
    """
    proofs = len(parts)
    while proofs > 1 and isinstance(last := parts[proofs - 1], ThinkingPart) and not (last.text or last.redacted):
        proofs -= 1
    for part in [*parts[: proofs - 1], *parts[proofs:], *parts[proofs - 1 : proofs]]:
        if isinstance(part, TextPart | RefusalPart):
            if part.text:
                yield {"type": "text", "text": part.text}
        elif isinstance(part, ImagePart):
            yield {"type": "text", "text": left_out(part.media_type)}
        elif isinstance(part, ToolCall):
            yield encode_tool_call(part.id, part.name, part.signature, arguments(part.arguments))
        elif isinstance(part, ThinkingPart):
            if part.redacted:
                yield {"type": "redacted_thinking", "data": part.redacted}
            else:
                yield {"type": "thinking", "thinking": part.text, "signature": part.signature}


def left_out(media_type: str) -> str:
    """A text in place of an image, because this API's answers have no images."""
    return f"[An image ({media_type or 'image/png'}) was left out: answers of this API cannot hold images.]"


def encode_tool_call(id: str, name: str, signature: str, input: dict[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_use", "id": id or new_id("toolu"), "name": name, "input": input}
    if signature:
        block["extra_content"] = {"google": {"thought_signature": signature}}
    return block


def stop_reason(finish: FinishReason, *, refused: bool) -> str:
    """The stop reason. `refused`: the model declined in words, which other APIs report as a normal end."""
    return "refusal" if refused and finish == "stop" else STOP[finish]
