"""Text of an answer, piece by piece.

Source: https://platform.openai.com/docs/api-reference/chat/object and
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.words.said import ANSWER, CALL, Called, Closed, Piece, loose

QUIET = frozenset(
    (
        *("id", "object", "model", "created", "type", "role", "index", "system_fingerprint", "service_tier"),
        *("usage", "finish_reason", "native_finish_reason", "provider", "logprobs"),
        *("data", "signature", "format", "expires_at"),
    )
)
"""Fields that hold no words of the model; `logprobs` goes with the text that it belongs to."""

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


def said(event: Any) -> Iterator[Piece | Closed | Called]:
    """See `Dialect.said`."""
    choices = event.get("choices") if isinstance(event, dict) else None
    if not isinstance(choices, list):
        yield from loose(event, "answer", QUIET)
        return
    for number, choice in enumerate(choices):
        if isinstance(choice, dict):
            yield from _choice(choice, number)
    yield from loose(event, "answer", QUIET, without=("choices",))


def _choice(choice: dict[str, Any], number: int) -> Iterator[Piece | Closed | Called]:
    index = choice.get("index", number)
    index = index if type(index) is int else number
    where = f"choices[{index}]"
    for name, value in choice.items():
        if name in ("delta", "message") and isinstance(value, dict):
            yield from _message(value, choice, f"{where}.{name}", index if name == "delta" else None)
        elif isinstance(value, dict | list) and name not in QUIET:
            yield from loose(value, f"{where}.{name}", QUIET)
    if choice.get("finish_reason") is not None:
        yield Closed((index,))


def _message(
    message: dict[str, Any], choice: dict[str, Any], where: str, index: int | None
) -> Iterator[Piece | Closed | Called]:
    """Text of a message. `index` is the choice in a stream; None: the message is whole."""
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
        elif isinstance(value, str) and name not in QUIET:
            yield Piece(at, message, name)
        elif name == "images":
            yield from (piece for piece in loose(value, at, QUIET) if not piece.value.startswith("data:image/"))
        elif isinstance(value, dict | list) and name not in QUIET:
            yield from loose(value, at, QUIET)


def _channel(index: int | None, *names: Any) -> tuple[Any, ...] | None:
    return None if index is None else (index, *names)


def _parts(parts: list[Any], where: str, index: int | None) -> Iterator[Piece]:
    for number, part in enumerate(parts):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield Piece(f"{where}[{number}].text", part, "text", _channel(index, "content"), whole=ANSWER)
            yield from loose(part, f"{where}[{number}]", QUIET, without=("text",))
        elif isinstance(part, str):
            yield Piece(f"{where}[{number}]", parts, number, _channel(index, "content"), whole=ANSWER)
        else:
            yield from loose(part, f"{where}[{number}]", QUIET)


def _call(call: dict[str, Any], where: str, channel: tuple[Any, ...] | None) -> Iterator[Piece | Called]:
    for name, value in call.items():
        if name in ("function", "custom") and isinstance(value, dict):
            yield from _function(value, f"{where}.{name}", channel)
        elif isinstance(value, dict | list) and name not in QUIET:
            yield from loose(value, f"{where}.{name}", QUIET, call=True)


def _function(function: dict[str, Any], where: str, channel: tuple[Any, ...] | None) -> Iterator[Piece | Called]:
    for name, value in function.items():
        if name in ("arguments", "input") and isinstance(value, str):
            inner = None if channel is None else (*channel, name)
            json = name == "arguments"
            yield Piece(f"{where}.{name}", function, name, inner, call=True, json=json, of=channel, whole=CALL)
        elif isinstance(value, dict | list):  # arguments of providers that write an object
            yield Called(f"{where}.{name}", function.get("name"), value)
            yield from loose(value, f"{where}.{name}", frozenset(), call=True, numbers=True)
        elif isinstance(value, str):
            yield Piece(f"{where}.{name}", function, name, call=True, name=name == "name", of=channel)
