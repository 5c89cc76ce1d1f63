"""Plain chat completions, read from providers.

Source: https://platform.openai.com/docs/api-reference/chat/object

Providers of this API differ: `reasoning_content` (DeepSeek, vLLM) or `reasoning` (Groq, OpenRouter), content in parts
with thinking among them (Mistral), arguments as objects (Ollama), `images` (OpenRouter, Vercel), usage beside the
choices or inside them (Groq, Moonshot), output that excludes the reasoning (xAI). This module reads all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec

from extproc.dialects.openai_chat.shapes import Body, Said, SaidCall, SaidChoice, SaidFunction, Seen
from extproc.dialects.openai_chat.usage import read_usage
from extproc.wire.framing.shapes import reader
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

read_body = msgspec.json.Decoder(Body).decode
_read_answer = reader(Body, "chat completions")
_write = msgspec.json.Encoder().encode

REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "model_length": "length",
    "max_tokens": "length",
    "sensitive": "content_filter",
}
FAILURES = frozenset(("error", "network_error", "insufficient_system_resource"))
"""Finish reasons of answers cut off by an error: OpenRouter's, Z.ai's, DeepSeek's."""


def decode(body: bytes) -> Answer:
    """The neutral form of an answer. Raises ValueError for another value."""
    said = _read_answer(body)
    if said.error is not None or not said.choices:
        raise ValueError("The answer holds no choices.")
    choices = sorted(said.choices, key=lambda choice: choice.index if type(choice.index) is int else 0)
    return Answer(
        choices=[_choice(choice) for choice in choices],
        id=text_of(said.id),
        model=text_of(said.model),
        created=said.created if type(said.created) is int and said.created > 0 else 0,
        usage=read_usage(find_usage(said)),
        service_tier=text_of(said.service_tier),
    )


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _choice(choice: SaidChoice) -> Choice:
    said = choice.message or choice.delta or Said()
    if text_of(choice.finish_reason) in FAILURES:
        raise ValueError("The provider broke off.")
    thinking, text, refusal = words_of(said)
    blocks = blocks_of(said)
    if not blocks and thinking:
        blocks = [ThinkingPart(thinking)]
    parts: list[Part] = [*blocks]
    if text:
        parts.append(TextPart(text))
    if refusal:
        parts.append(RefusalPart(refusal))
    if said.images:
        parts += images_of(said.images)
    calls = [_call(call) for call in said.tool_calls or ()]
    parts += calls
    return Choice(
        parts, reason_of(choice.finish_reason, called=bool(calls), refused=bool(refusal)), "", choice.logprobs
    )


def _content(content: Any) -> tuple[str, str]:
    """Thinking and text of a content in parts, the form of Mistral and Databricks."""
    thinking = text = ""
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict) and part.get("type") == "thinking":
            inner = part.get("thinking")
            thinking += inner if isinstance(inner, str) else _content(inner)[1]
        elif isinstance(part, dict) and part.get("type") == "reasoning":
            thinking += _content(part.get("summary"))[1]
        elif isinstance(part, dict):
            text += text_of(part.get("text"))
    return thinking, text


def words_of(said: Said) -> tuple[str, str, str]:
    """Thoughts, text and refusal of a message. `thinking_blocks` and `reasoning_details` repeat the thoughts."""
    content = said.content
    if type(content) is str:  # nearly always a text
        if said.reasoning_content is None and said.reasoning is None and said.refusal is None:
            return "", content, ""
        thinking, text = "", content
    else:
        thinking, text = _content(content)
    thinking = text_of(said.reasoning_content) or text_of(said.reasoning) or thinking
    return thinking, text, text_of(said.refusal)


def blocks_of(said: Said) -> list[ThinkingPart]:
    """Thinking with signatures, in the blocks that `provider_request.thoughts` writes."""
    return [
        ThinkingPart(text_of(block.get("thinking")), text_of(block.get("signature")), text_of(block.get("data")))
        for block in (said.thinking_blocks if isinstance(said.thinking_blocks, list) else ())
        if isinstance(block, dict)
    ]


def images_of(images: Any) -> list[ImagePart | TextPart]:
    """Images that the model made. An image by address becomes a text that shows it.

    Source: https://openrouter.ai/docs/features/multimodal/image-generation
    """
    found: list[ImagePart | TextPart] = []
    for image in images if isinstance(images, list) else ():
        holder = image.get("image_url") if isinstance(image, dict) else None
        url = text_of(holder.get("url") if isinstance(holder, dict) else holder)
        head, comma, data = url.partition(",")
        if comma and head.startswith("data:") and head.endswith(";base64"):
            found.append(ImagePart(data, head[5:-7]))
        elif url.startswith(("https://", "http://")):
            found.append(TextPart(f"![image]({url})"))
    return found


def _call(call: SaidCall) -> ToolCall:
    function = call.function or SaidFunction()
    return ToolCall(
        text_of(call.id) or new_call_id(),
        text_of(function.name),
        arguments_of(function.arguments) or "{}",
        signature_of(call.extra_content),
    )


def new_call_id() -> str:
    return f"call_{uuid4().hex}"


def arguments_of(arguments: Any) -> str:
    """Arguments as JSON text, even if the provider sends an object."""
    if isinstance(arguments, str):
        return arguments
    return _write(arguments).decode() if isinstance(arguments, dict) else ""


def signature_of(extra: Any) -> str:
    """Gemini's thought signature beside a tool call."""
    google = extra.get("google") if isinstance(extra, dict) else None
    return text_of(google.get("thought_signature")) if isinstance(google, dict) else ""


def reason_of(reason: Any, *, called: bool, refused: bool) -> FinishReason:
    """The finish reason. At OpenAI a forced call ends with `stop`, and so does a refusal; the neutral form has a reason
    for each.
    """
    found = REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
    if found == "stop":
        return "tool_calls" if called else "refusal" if refused else "stop"
    return found


def find_usage(said: Seen) -> Any:
    """The usage object: beside the choices, in `x_groq` (Groq), or inside a choice (Moonshot)."""
    if said.usage is not None:
        return said.usage
    if said.x_groq is not None and isinstance(said.x_groq, dict):
        return said.x_groq.get("usage")
    for choice in said.choices or ():
        if choice.usage is not None:
            return choice.usage
    return None
