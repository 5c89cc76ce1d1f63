"""Texts of an answer, for guardrails.

Source: https://platform.openai.com/docs/api-reference/chat/object and
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.words.said import ANSWER, CALL, Called, Closed, Piece, apart, loose

QUIET = frozenset(
    (
        *("id", "object", "model", "created", "type", "role", "index", "system_fingerprint", "service_tier"),
        *("usage", "finish_reason", "native_finish_reason", "provider", "logprobs"),
        *("data", "signature", "thought_signature", "format", "expires_at"),
    )
)
"""Fields without a model's words; `logprobs` is read with its text."""

PADDED = ("choices", "obfuscation")
"""Fields of an event that are read separately, or never. `obfuscation` is random padding that hides a text's length.
Source: `stream_options.include_obfuscation`.
"""

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_THOUGHTS = ("reasoning_details", "thinking_blocks")
"""Thinking in parts. Sources: https://openrouter.ai/docs/use-cases/reasoning-tokens (`text` and `summary`),
https://docs.litellm.ai/docs/reasoning_content
"""
_WHOLE = frozenset(("annotations", "citations", "search_results", "executed_tools", "images", "channel"))
"""Fields of a delta with complete values. Source of `executed_tools` and `channel`: the types of groq's SDK."""


def said(event: Any) -> Iterator[Piece | Closed | Called]:
    """See `ClientAPI.said`."""
    choices = event.get("choices") if isinstance(event, dict) else None
    if not isinstance(choices, list):
        yield from loose(event, "answer", QUIET)
        return
    for number, choice in enumerate(choices):
        if isinstance(choice, dict):
            yield from _choice(choice, number)
    yield from loose(event, "answer", QUIET, without=PADDED)


def _choice(choice: dict[str, Any], number: int) -> Iterator[Piece | Closed | Called]:
    index = choice.get("index", number)
    index = index if type(index) is int else number
    where = f"choices[{index}]"
    for name, value in choice.items():
        if name in ("delta", "message") and isinstance(value, dict):
            yield from _message(value, choice, f"{where}.{name}", index if name == "delta" else None)
        elif isinstance(value, dict | list) and name not in QUIET:
            yield from loose(value, f"{where}.{name}", QUIET)
        elif isinstance(value, str) and name not in QUIET:
            yield Piece(f"{where}.{name}", choice, name, (index, "choice", name), unknown=True)
    said = choice.get("delta", choice.get("message"))
    if not (isinstance(said, dict) and any(isinstance(said.get(name), str) and said[name] for name in _TEXTS)):
        yield from apart(choice, "logprobs", where, (index,))
    if choice.get("finish_reason") is not None:
        yield Closed((index,))


def _message(
    message: dict[str, Any], choice: dict[str, Any], where: str, index: int | None
) -> Iterator[Piece | Closed | Called]:
    """Texts of a message. `index` is the choice in a stream; None: the message is complete."""
    for name, value in message.items():
        at = f"{where}.{name}"
        if name in _TEXTS and isinstance(value, str):
            beside = (choice, "logprobs", None) if choice.get("logprobs") is not None else None
            yield Piece(
                at, message, name, _channel(index, name), beside=beside, whole=ANSWER if name == "content" else ""
            )
        elif name == "content" and isinstance(value, list):
            yield from _parts(value, at, index)
        elif name == "tool_calls" and isinstance(value, list):
            for number, call in enumerate(value):
                if isinstance(call, dict):
                    count = call.get("index", number)
                    yield from _call(call, f"{at}[{number}]", _channel(index, name, count))
        elif name == "function_call" and isinstance(value, dict):
            yield from _function(value, at, _channel(index, name))
        elif name == "audio" and isinstance(value, dict) and isinstance(value.get("transcript"), str):
            yield Piece(f"{at}.transcript", value, "transcript", _channel(index, name))
        elif name == "images":
            yield from (piece for piece in loose(value, at, QUIET) if not piece.value.startswith("data:image/"))
        elif name not in QUIET:
            channel = None if name in _WHOLE else _channel(index, name)
            if isinstance(value, str):
                yield Piece(at, message, name, channel, unknown=True)
            else:
                yield from loose(value, at, QUIET, channel=channel, known=name in _THOUGHTS)


def _channel(index: int | None, *names: Any) -> tuple[Any, ...] | None:
    return None if index is None else (index, *names)


def _parts(parts: list[Any], where: str, index: int | None) -> Iterator[Piece]:
    """Texts of a content's parts. Parts without text are thinking: Mistral's `thinking` (`ThinkChunk` in its SDK) and
    Databricks' `reasoning`, both lists of parts.
    """
    text, other = _channel(index, "content"), _channel(index, "content", "other")
    for number, part in enumerate(parts):
        at = f"{where}[{number}]"
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield Piece(f"{at}.text", part, "text", text, whole=ANSWER)
            yield from loose(part, at, QUIET, without=("text",), channel=other, known=True)
        elif isinstance(part, str):
            yield Piece(at, parts, number, text, whole=ANSWER)
        else:
            yield from loose(part, at, QUIET, channel=other, known=True)


def _call(call: dict[str, Any], where: str, channel: tuple[Any, ...] | None) -> Iterator[Piece | Called]:
    for name, value in call.items():
        inner = None if channel is None else (*channel, "call", name)
        if name in ("function", "custom") and isinstance(value, dict):
            yield from _function(value, f"{where}.{name}", channel)
        elif name in QUIET:
            continue
        elif isinstance(value, dict | list):
            yield from loose(value, f"{where}.{name}", QUIET, call=True, channel=inner)
        elif isinstance(value, str):
            yield Piece(f"{where}.{name}", call, name, inner, call=True, unknown=True)


def _function(function: dict[str, Any], where: str, channel: tuple[Any, ...] | None) -> Iterator[Piece | Called]:
    for name, value in function.items():
        inner = None if channel is None else (*channel, name)
        if name in ("arguments", "input") and isinstance(value, str):
            json = name == "arguments"
            yield Piece(f"{where}.{name}", function, name, inner, call=True, json=json, of=channel, whole=CALL)
        elif isinstance(value, dict | list):  # some providers send arguments as an object
            yield Called(f"{where}.{name}", function.get("name"), value)
            yield from loose(value, f"{where}.{name}", frozenset(), call=True, numbers=True)
        elif name == "name" and isinstance(value, str):
            yield Piece(f"{where}.{name}", function, name, call=True, name=True, of=channel)
        elif isinstance(value, str):
            yield Piece(f"{where}.{name}", function, name, inner, call=True, of=channel, unknown=True)
