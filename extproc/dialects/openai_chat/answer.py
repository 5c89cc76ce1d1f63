"""Whole chat completions, read from providers and written for clients.

Source: https://platform.openai.com/docs/api-reference/chat/object

Providers of this API differ: `reasoning_content` (DeepSeek, vLLM) or `reasoning` (Groq, OpenRouter), content in parts
with thinking among them (Mistral), arguments as objects (Ollama), usage beside the choices or inside them (Groq,
Moonshot), output that does not include the reasoning (xAI). All of that is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from extproc.dialects import text_size
from extproc.dialects.openai_chat.provider_request import thoughts
from extproc.dialects.openai_chat.usage import read_usage, write_usage
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

MAX_CHOICES = 128  # OpenAI's own limit for n


# Without gc: events come by the thousand, and no JSON has circles.
class SaidFunction(Struct, gc=False):
    name: Any = None
    arguments: Any = None


class SaidCall(Struct, gc=False):
    index: Any = None
    id: Any = None
    function: SaidFunction | None = None
    extra_content: Any = None


class Said(Struct, gc=False):
    """A message, or a piece of one."""

    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[SaidCall] | None = None
    function_call: SaidFunction | None = None  # of clients that offered `functions`
    thinking_blocks: Any = None


class SeenChoice(Struct, gc=False):
    """A choice, as far as the gateway reads one that it lets pass."""

    index: Any = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: Any = None
    usage: Any = None


class Seen(Struct, gc=False):
    """A completion or a chunk of one, as far as the gateway reads one that it lets pass."""

    model: Any = None
    choices: list[SeenChoice] | None = None
    usage: Any = None
    x_groq: Any = None
    error: Any = None


class SaidChoice(SeenChoice, gc=False):
    logprobs: Any = None


class Body(Seen, gc=False):
    """A completion or a chunk of one."""

    choices: list[SaidChoice] | None = None  # type: ignore[assignment]
    id: Any = None
    created: Any = None
    service_tier: Any = None
    object: Any = None
    message: Any = None
    type: Any = None
    code: Any = None


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `read_body` and `read_seen` raise."""

read_seen = msgspec.json.Decoder(Seen).decode
read_body = msgspec.json.Decoder(Body).decode
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
"""Finish reasons that say the answer broke off: OpenRouter's, Z.ai's, DeepSeek's."""
_TIERS = {tier: tier for tier in ("auto", "default", "flex", "scale", "priority", "fast")} | {"standard": "default"}


# --- from a provider


def decode(body: bytes) -> Answer:
    """Raises ValueError when it is no chat completion."""
    try:
        said = read_body(body)
    except UNREADABLE:
        raise ValueError("The answer is no chat completion.") from None
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
    calls = [_call(call) for call in said.tool_calls or ()]
    parts += calls
    return Choice(
        parts, reason_of(choice.finish_reason, called=bool(calls), refused=bool(refusal)), "", choice.logprobs
    )


def _content(content: Any) -> tuple[str, str]:
    """Thinking and text of a message's content in parts, as Mistral sends it."""
    thinking = text = ""
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict) and part.get("type") == "thinking":
            inner = part.get("thinking")
            thinking += inner if isinstance(inner, str) else _content(inner)[1]
        elif isinstance(part, dict):
            text += text_of(part.get("text"))
    return thinking, text


def words_of(said: Said) -> tuple[str, str, str]:
    """Thoughts, text and refusal of a message. `thinking_blocks` and `reasoning_details` only repeat the thoughts."""
    content = said.content
    thinking, text = ("", content) if isinstance(content, str) else _content(content)  # a string nearly always
    thinking = text_of(said.reasoning_content) or text_of(said.reasoning) or thinking
    return thinking, text, text_of(said.refusal)


def text_bytes(said: Said) -> int:
    """The bytes of all that a message says: its words, and the names and arguments of its calls."""
    if (  # text alone, nearly always
        type(text := said.content) is str
        and said.reasoning_content is None
        and said.reasoning is None
        and said.refusal is None
        and said.tool_calls is None
        and said.function_call is None
    ):
        return text_size(text)
    size = sum(map(text_size, words_of(said)))
    for function in _functions(said) if said.tool_calls or said.function_call else ():
        size += text_size(text_of(function.name)) + text_size(arguments_of(function.arguments))
    return size


def _functions(said: Said) -> Iterator[SaidFunction]:
    for call in said.tool_calls or ():
        if call.function is not None:
            yield call.function
    if said.function_call is not None:
        yield said.function_call


def blocks_of(said: Said) -> list[ThinkingPart]:
    """The thinking with its signatures, as `outgoing.thoughts` writes it."""
    return [
        ThinkingPart(text_of(block.get("thinking")), text_of(block.get("signature")), text_of(block.get("data")))
        for block in (said.thinking_blocks if isinstance(said.thinking_blocks, list) else ())
        if isinstance(block, dict)
    ]


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
    """JSON text, also of those who send the object itself."""
    if isinstance(arguments, str):
        return arguments
    return _write(arguments).decode() if isinstance(arguments, dict) else ""


def signature_of(extra: Any) -> str:
    """Gemini's thought signature beside a tool call."""
    google = extra.get("google") if isinstance(extra, dict) else None
    return text_of(google.get("thought_signature")) if isinstance(google, dict) else ""


def reason_of(reason: Any, *, called: bool, refused: bool) -> FinishReason:
    """A forced call ends with `stop` at OpenAI, and so does a refusal; here they say what they are."""
    found = REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
    if found == "stop":
        return "tool_calls" if called else "refusal" if refused else "stop"
    return found


def find_usage(said: Seen) -> Any:
    """The usage object, wherever it stands: beside the choices, at Groq in `x_groq`, at Moonshot inside a choice."""
    if said.usage is not None:
        return said.usage
    if said.x_groq is not None and isinstance(said.x_groq, dict):
        return said.x_groq.get("usage")
    for choice in said.choices or ():
        if choice.usage is not None:
            return choice.usage
    return None


# --- for a client


def encode(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": answer.id or new_id(),
        "object": "chat.completion",
        "created": answer.created or int(time.time()),
        "model": answer.model,
        "choices": [_said_choice(index, choice) for index, choice in enumerate(answer.choices)],
    }
    if answer.usage is not None:
        body["usage"] = write_usage(answer.usage)
    if tier := _TIERS.get(answer.service_tier):
        body["service_tier"] = tier
    return body


def new_id() -> str:
    return f"chatcmpl-{uuid4().hex}"


def _said_choice(index: int, choice: Choice) -> dict[str, Any]:
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
    if calls:
        message["tool_calls"] = calls
    if images:
        message["images"] = images  # as OpenRouter and others give them
    return {
        "index": index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": write_reason(choice.finish, refused=bool(refusal)),
    }


def said_call(id: str, name: str, arguments: str, signature: str) -> dict[str, Any]:
    call: dict[str, Any] = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if signature:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def write_reason(reason: FinishReason, *, refused: bool) -> str:
    """A refusal in words ends with `stop` here; one without must still be told from an answer."""
    if reason == "refusal":
        return "stop" if refused else "content_filter"
    return "stop" if reason in ("stop_sequence", "pause") else reason
