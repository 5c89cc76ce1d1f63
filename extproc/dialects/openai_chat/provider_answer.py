"""Whole chat completions, read from providers.

Source: https://platform.openai.com/docs/api-reference/chat/object

Providers of this API differ: `reasoning_content` (DeepSeek, vLLM) or `reasoning` (Groq, OpenRouter), content in parts
with thinking among them (Mistral), arguments as objects (Ollama), usage beside the choices or inside them (Groq,
Moonshot), output that does not include the reasoning (xAI). All of that is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec

from extproc.dialects import token_count
from extproc.dialects.openai_chat.shapes import Body, Said, SaidCall, SaidChoice, SaidFunction
from extproc.words.messages import (
    Answer,
    Choice,
    Counts,
    FinishReason,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)

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


def decode(body: bytes) -> Answer:
    """Raises ValueError when it is no chat completion."""
    try:
        said = read_body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("The answer is no chat completion.") from None
    if said.error is not None or not said.choices:
        raise ValueError("The answer holds no choices.")
    choices = sorted(said.choices, key=lambda choice: choice.index if type(choice.index) is int else 0)
    return Answer(
        choices=[_choice(choice) for choice in choices],
        id=text_of(said.id),
        model=text_of(said.model),
        created=said.created if type(said.created) is int and said.created > 0 else 0,
        usage=usage_in(said),
        service_tier=text_of(said.service_tier),
    )


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _choice(choice: SaidChoice) -> Choice:
    said = choice.message or choice.delta or Said()
    if text_of(choice.finish_reason) in FAILURES:
        raise ValueError("The provider broke off.")
    thinking, text = content_of(said.content)
    blocks = blocks_of(said)
    if not blocks and (thinking := thinking_of(said) or thinking):
        blocks = [ThinkingPart(thinking)]
    parts: list[Part] = [*blocks]
    if text:
        parts.append(TextPart(text))
    refusal = text_of(said.refusal)
    if refusal:
        parts.append(RefusalPart(refusal))
    calls = [_call(call) for call in said.tool_calls or ()]
    parts += calls
    return Choice(
        parts, reason_of(choice.finish_reason, called=bool(calls), refused=bool(refusal)), "", choice.logprobs
    )


def content_of(content: Any) -> tuple[str, str]:
    """Thinking and text of a message's content, which may be in parts."""
    if isinstance(content, str):
        return "", content
    thinking = text = ""
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            thinking += inner if isinstance(inner, str) else content_of(inner)[1]
        else:
            text += text_of(part.get("text"))
    return thinking, text


def thinking_of(said: Said) -> str:
    return text_of(said.reasoning_content) or text_of(said.reasoning)


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


def usage_in(said: Body) -> Counts | None:
    """What was used, wherever it stands."""
    if isinstance(said.usage, dict):
        return read_counts(said.usage)
    if isinstance(said.x_groq, dict) and isinstance(usage := said.x_groq.get("usage"), dict):
        return read_counts(usage)
    for choice in said.choices or ():
        if isinstance(choice.usage, dict):
            return read_counts(choice.usage)
    return None


def read_counts(usage: Mapping[str, Any]) -> Counts | None:
    """None when it counts nothing."""
    input, output = token_count(usage.get("prompt_tokens")), token_count(usage.get("completion_tokens"))
    if input is None and output is None:
        return None
    of_input, of_output = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    of_input = of_input if isinstance(of_input, dict) else {}
    of_output = of_output if isinstance(of_output, dict) else {}
    counts = Counts(
        input or 0,
        output or 0,
        _first(of_input.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens")),
        _first(of_input.get("cache_write_tokens")),
        _first(of_output.get("reasoning_tokens"), usage.get("reasoning_tokens")),
    )
    if counts.reasoning and token_count(usage.get("total_tokens")) == counts.input + counts.output + counts.reasoning:
        counts.output += counts.reasoning  # xAI counts it beside the output
    return counts


def _first(*values: Any) -> int:
    return next((count for value in values if (count := token_count(value)) is not None), 0)
