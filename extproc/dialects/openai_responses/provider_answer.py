"""Plain responses, read from providers.

Source: https://developers.openai.com/api/reference/resources/responses (the response object)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects._turns import apart
from extproc.dialects.openai_responses import signature
from extproc.dialects.openai_responses.shapes import Body, Output, new_id
from extproc.dialects.openai_responses.usage import billed
from extproc.wire.framing.shapes import reader
from extproc.words.messages import (
    Answer,
    Choice,
    FinishReason,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)

_read = reader(Body, "responses")


def decode(body: bytes) -> Answer:
    """The neutral form of an answer. Raises ValueError for another value than a finished response."""
    said = _read(body)
    if said.output is None or said.error is not None or said.status not in (None, "completed", "incomplete"):
        raise ValueError("The answer holds no finished response.")
    parts: list[Part] = []
    logprobs: list[Any] = []
    for item in said.output:
        found = parts_of(item)
        if item.type == "message" and any(isinstance(part, TextPart) for part in parts):
            first = next((part for part in found if isinstance(part, TextPart)), None)
            if first is not None:  # other APIs have one message, whose texts clients join
                first.text = apart(first.text)
        parts += found
        if item.type == "message":
            for piece in pieces(item.content):
                if isinstance(likely := piece.get("logprobs"), list):
                    logprobs += likely
    called = any(isinstance(part, ToolCall) for part in parts)
    refused = any(isinstance(part, RefusalPart) for part in parts)
    reason = reason_of(said, called=called, refused=refused)
    return Answer(
        choices=[Choice(parts, reason, "", chat_logprobs(logprobs))],
        id=text_of(said.id),
        model=text_of(said.model),
        created=created_of(said),
        usage=billed(said),
        service_tier=text_of(said.service_tier),
    )


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def pieces(value: Any) -> Iterator[Mapping[str, Any]]:
    """Objects of a list; none for another value."""
    return (piece for piece in (value if isinstance(value, list) else ()) if isinstance(piece, dict))


def created_of(said: Body) -> int:
    at = said.created_at
    return int(at) if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 1e12 else 0


def parts_of(item: Output) -> list[Part]:
    """Neutral parts of an item; none for items that the model did not write."""
    if item.type == "message":
        found: list[Part] = []
        for piece in pieces(item.content):
            if text := text_of(piece.get("text")):
                found.append(TextPart(text))
            elif refusal := text_of(piece.get("refusal")):
                found.append(RefusalPart(refusal))
        return found
    if item.type == "function_call":
        arguments = text_of(item.arguments) or "{}"
        return [ToolCall(call_id(item), text_of(item.name), arguments, namespace=text_of(item.namespace))]
    if item.type == "reasoning":
        text, signed = thought_of(item), signature_of(item)
        return [ThinkingPart(text, signed)] if text or signed else []
    return []


def call_id(item: Output) -> str:
    return text_of(item.call_id) or text_of(item.id) or new_id("call")


def thought_of(item: Output) -> str:
    """The summary of the thinking, or the thinking of models that show it."""
    shown = [text_of(piece.get("text")) for piece in pieces(item.summary)]
    shown = shown or [text_of(piece.get("text")) for piece in pieces(item.content)]
    return "\n\n".join(text for text in shown if text)


def signature_of(item: Output) -> str:
    return signature.mark(text_of(item.id), text_of(item.encrypted_content))


def reason_of(said: Body, *, called: bool, refused: bool) -> FinishReason:
    if said.status == "incomplete":
        details = said.incomplete_details
        why = details.get("reason") if isinstance(details, dict) else None
        if why == "content_filter":
            return "content_filter"
        if why != "steered":
            return "length"
    return "tool_calls" if called else "refusal" if refused else "stop"


def chat_logprobs(found: Sequence[Any]) -> dict[str, Any] | None:
    """Log probabilities in chat completions' form."""
    return {"content": list(found), "refusal": None} if found else None
