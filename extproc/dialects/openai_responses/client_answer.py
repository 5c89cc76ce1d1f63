"""Plain responses, written for clients.

Source: https://developers.openai.com/api/reference/resources/responses (the response object)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from extproc.dialects.openai_responses import custom, signature
from extproc.dialects.openai_responses.provider_answer import pieces, text_of
from extproc.dialects.openai_responses.shapes import new_id
from extproc.dialects.openai_responses.usage import write_usage
from extproc.words.messages import (
    Answer,
    Choice,
    FinishReason,
    ImagePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)

_TIERS = frozenset(("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"))


class NamedCall(Protocol):
    """A call's id, tool name and group."""

    id: str
    name: str
    namespace: str


def encode(answer: Answer) -> dict[str, Any]:
    """The response, of the first choice only, because this API has one."""
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


def new_response_id(id: str) -> str:
    """A provider's id, in the form of this API's ids."""
    return f"resp_gw{id.removeprefix('resp_')}" if id else new_id("resp")


def response(id: str, model: str, created: int) -> dict[str, Any]:
    """A response at its beginning, without the settings of its request."""
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
    """Status and `incomplete_details`. A refusal without words must not look like an answer."""
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
            items.append(reasoning_item(new_id("rs"), part.text, signature.pack(part.signature, part.redacted)))
        elif isinstance(part, ToolCall):
            if part.signature:
                items.append(reasoning_item(new_id("rs"), "", signature.pack(calls={part.id: part.signature})))
            items.append(call_item(part))
        elif isinstance(part, ImagePart) and part.data:
            items.append(image_item(part.data, part.media_type))
    return items


def image_item(data: str, media_type: str) -> dict[str, Any]:
    return {
        "id": new_id("ig"),
        "type": "image_generation_call",
        "status": "completed",
        "result": data,
        "output_format": media_type.rpartition("/")[2] or "png",
    }


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


def call_item(call: ToolCall) -> dict[str, Any]:
    """Item of a function call, or of a custom tool's call if the arguments have its form."""
    input = custom.input_of(call.arguments)
    if input is not None:
        return custom_item(new_id("ctc"), call, input)
    return function_item(new_id("fc"), call, call.arguments or "{}")


def custom_item(item: str, call: NamedCall, input: str, status: str = "completed") -> dict[str, Any]:
    return {"id": item, "type": "custom_tool_call", "status": status, **_called(call), "input": input}


def function_item(item: str, call: NamedCall, arguments: str, status: str = "completed") -> dict[str, Any]:
    return {"id": item, "type": "function_call", "status": status, **_called(call), "arguments": arguments}


def _called(call: NamedCall) -> dict[str, str]:
    named = {"call_id": call.id, "name": call.name}
    return named | {"namespace": call.namespace} if call.namespace else named


def write_logprobs(logprobs: Any) -> list[dict[str, Any]]:
    """Chat completions' log probabilities in this API, in which every token has its bytes."""
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
