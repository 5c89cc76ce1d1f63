"""Whole responses, read from providers and written for clients.

Source: https://developers.openai.com/api/reference/resources/responses (the response object)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from extproc.dialects.openai_responses import custom, thinking
from extproc.dialects.openai_responses.usage import read_usage, write_usage
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


class Output(Struct, gc=False):
    """An item of the output."""

    type: Any = None
    id: Any = None
    call_id: Any = None
    name: Any = None
    arguments: Any = None
    content: Any = None
    summary: Any = None
    encrypted_content: Any = None


class Body(Struct, gc=False):
    id: Any = None
    model: Any = None
    created_at: Any = None
    status: Any = None
    output: list[Output] | None = None
    usage: Any = None
    service_tier: Any = None
    error: Any = None
    incomplete_details: Any = None


_read = msgspec.json.Decoder(Body).decode
_TIERS = frozenset(("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"))


# --- from a provider


def decode(body: bytes) -> Answer:
    """Raises ValueError when it is no finished response."""
    try:
        said = _read(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("The answer is no response.") from None
    if said.output is None or said.error is not None or said.status not in (None, "completed", "incomplete"):
        raise ValueError("The answer holds no finished response.")
    parts: list[Part] = []
    logprobs: list[Any] = []
    for item in said.output:
        parts += parts_of(item)
        if item.type == "message":
            for piece in pieces(item.content):
                if isinstance(found := piece.get("logprobs"), list):
                    logprobs += found
    called = any(isinstance(part, ToolCall) for part in parts)
    refused = any(isinstance(part, RefusalPart) for part in parts)
    reason = reason_of(said, called=called, refused=refused)
    return Answer(
        choices=[Choice(parts, reason, "", chat_logprobs(logprobs))],
        id=text_of(said.id),
        model=text_of(said.model),
        created=created_of(said),
        usage=read_usage(said.usage),
        service_tier=text_of(said.service_tier),
    )


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def pieces(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a list, whatever it is."""
    return (piece for piece in (value if isinstance(value, list) else ()) if isinstance(piece, dict))


def created_of(said: Body) -> int:
    at = said.created_at
    return int(at) if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 1e12 else 0


def parts_of(item: Output) -> list[Part]:
    """What an item says; nothing where it is none of a model's own."""
    if item.type == "message":
        found: list[Part] = []
        for piece in pieces(item.content):
            if text := text_of(piece.get("text")):
                found.append(TextPart(text))
            elif refusal := text_of(piece.get("refusal")):
                found.append(RefusalPart(refusal))
        return found
    if item.type == "function_call":
        return [ToolCall(call_id(item), text_of(item.name), text_of(item.arguments) or "{}")]
    if item.type == "reasoning":
        text, signature = thought_of(item), signature_of(item)
        return [ThinkingPart(text, signature)] if text or signature else []
    return []


def call_id(item: Output) -> str:
    return text_of(item.call_id) or text_of(item.id) or new_id("call")


def thought_of(item: Output) -> str:
    """The summary, or the thinking itself of models that show it."""
    shown = [text_of(piece.get("text")) for piece in pieces(item.summary)]
    shown = shown or [text_of(piece.get("text")) for piece in pieces(item.content)]
    return "\n\n".join(text for text in shown if text)


def signature_of(item: Output) -> str:
    return thinking.mark(text_of(item.id), text_of(item.encrypted_content))


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
    """As chat completions write them."""
    return {"content": list(found), "refusal": None} if found else None


# --- for a client


def encode(answer: Answer) -> dict[str, Any]:
    """Of several choices the first, as this API has but one."""
    choice = answer.choices[0] if answer.choices else Choice([])
    refused = any(isinstance(part, RefusalPart) for part in choice.parts)
    status, why = outcome(choice.finish, refused=refused)
    made = response(new_response_id(answer.id), answer.model, answer.created or int(time.time()))
    made["status"] = status
    made["incomplete_details"] = why
    made["output"] = _items(choice)
    if made["output"] and status == "incomplete" and "status" in (last := made["output"][-1]):
        last["status"] = "incomplete"
    made["usage"] = None if answer.usage is None else write_usage(answer.usage)
    if answer.service_tier:
        made["service_tier"] = answer.service_tier if answer.service_tier in _TIERS else "default"
    return made


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


def new_response_id(id: str) -> str:
    """A provider's own id as this API writes ids."""
    return id if id.startswith("resp_") else f"resp_{id}" if id else new_id("resp")


def response(id: str, model: str, created: int) -> dict[str, Any]:
    """A response that has just begun, of a request that is not known here."""
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
    }


def outcome(finish: FinishReason, *, refused: bool) -> tuple[str, dict[str, str] | None]:
    """Status and `incomplete_details`. A refusal without words must still be told from an answer."""
    if finish == "length":
        return "incomplete", {"reason": "max_output_tokens"}
    if finish == "content_filter" or (finish == "refusal" and not refused):
        return "incomplete", {"reason": "content_filter"}
    return "completed", None


def _items(choice: Choice) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    message: dict[str, Any] | None = None
    logprobs = write_logprobs(choice.logprobs)
    for part in choice.parts:
        if isinstance(part, TextPart | RefusalPart):
            if message is None:
                message = message_item(new_id("msg"), [])
                items.append(message)
            if isinstance(part, TextPart):
                message["content"].append(text_piece(part.text, logprobs))
                logprobs = []
            else:
                message["content"].append(refusal_piece(part.text))
            continue
        message = None
        if isinstance(part, ThinkingPart):
            items.append(reasoning_item(new_id("rs"), part.text, thinking.pack(part.signature, part.redacted)))
        elif isinstance(part, ToolCall):
            if part.signature:
                items.append(reasoning_item(new_id("rs"), "", thinking.pack(calls={part.id: part.signature})))
            items.append(call_item(part.id, part.name, part.arguments))
        elif isinstance(part, ImagePart) and part.data:
            items.append(
                {
                    "id": new_id("ig"),
                    "type": "image_generation_call",
                    "status": "completed",
                    "result": part.data,
                    "output_format": part.media_type.rpartition("/")[2] or "png",
                }
            )
    return items


def message_item(id: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def text_piece(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def refusal_piece(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def reasoning_item(id: str, text: str, encrypted: str | None) -> dict[str, Any]:
    item: dict[str, Any] = {"id": id, "type": "reasoning", "summary": [summary_piece(text)] if text else []}
    if encrypted is not None:
        item["encrypted_content"] = encrypted
    return item


def summary_piece(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def call_item(id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a function or, where the arguments are those of one, of a custom tool."""
    input = custom.input_of(arguments)
    if input is not None:
        return custom_item(new_id("ctc"), id, name, input)
    return function_item(new_id("fc"), id, name, arguments or "{}")


def custom_item(item: str, id: str, name: str, input: str, status: str = "completed") -> dict[str, Any]:
    return {"id": item, "type": "custom_tool_call", "status": status, "call_id": id, "name": name, "input": input}


def function_item(item: str, id: str, name: str, arguments: str, status: str = "completed") -> dict[str, Any]:
    return {"id": item, "type": "function_call", "status": status, "call_id": id, "name": name, "arguments": arguments}


def write_logprobs(logprobs: Any) -> list[dict[str, Any]]:
    """Those of chat completions; here every token has its bytes."""
    if not isinstance(logprobs, dict):
        return []
    return [
        {**_token(token), "top_logprobs": [_token(other) for other in pieces(token.get("top_logprobs"))]}
        for token in pieces(logprobs.get("content"))
    ]


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    bytes, logprob = token.get("bytes"), token.get("logprob")
    return {
        "token": text_of(token.get("token")),
        "bytes": bytes if isinstance(bytes, list) else [],
        "logprob": logprob if isinstance(logprob, int | float) else 0.0,
    }
