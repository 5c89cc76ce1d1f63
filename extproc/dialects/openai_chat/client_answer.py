"""Plain chat completions, written for clients.

Source: https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from extproc.dialects.openai_chat.provider_request import thoughts
from extproc.dialects.openai_chat.usage import write_usage
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

_TIERS = {tier: tier for tier in ("auto", "default", "flex", "scale", "priority", "fast")} | {"standard": "default"}


def encode(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": answer.id or new_id(),
        "object": "chat.completion",
        "created": answer.created or int(time.time()),
        "model": answer.model,
        "choices": [_said_choice(index, choice, answer.one_call) for index, choice in enumerate(answer.choices)],
    }
    if answer.usage is not None:
        body["usage"] = write_usage(answer.usage)
    if tier := _TIERS.get(answer.service_tier):
        body["service_tier"] = tier
    return body


def new_id() -> str:
    return f"chatcmpl-{uuid4().hex}"


def _said_choice(index: int, choice: Choice, one_call: bool) -> dict[str, Any]:
    text = refusal = ""
    thinking: list[ThinkingPart] = []
    calls: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for part in choice.parts:
        if isinstance(part, TextPart):
            text += part.text
        elif isinstance(part, ToolCall):
            calls.append(said_call(part.id, part.name, part.arguments, part.signature))
        elif isinstance(part, ThinkingPart):
            thinking.append(part)
        elif isinstance(part, RefusalPart):
            refusal += part.text
        elif isinstance(part, ImagePart):
            url = f"data:{part.media_type};base64,{part.data}" if part.data else part.url
            images.append({"type": "image_url", "image_url": {"url": url}})
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not (calls or refusal) else None,
        "refusal": refusal or None,
    }
    if thinking:
        message |= thoughts(thinking)
    if calls and one_call:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    if images:
        message["images"] = images  # field of OpenRouter and others
    return {
        "index": index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": write_reason(choice.finish, refused=bool(refusal), one_call=one_call),
    }


def said_call(id: str, name: str, arguments: str, signature: str) -> dict[str, Any]:
    call: dict[str, Any] = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if signature:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def write_reason(reason: FinishReason, *, refused: bool, one_call: bool = False) -> str:
    """The finish reason. A refusal in words ends with `stop`; a refusal without words must not look like an answer."""
    if reason == "tool_calls" and one_call:
        return "function_call"
    if reason == "refusal":
        return "stop" if refused else "content_filter"
    return "stop" if reason in ("stop_sequence", "pause") else reason
