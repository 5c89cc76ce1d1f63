"""Messages that an API requires as one turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_APART = "\n\n"


def join(turn: list[dict[str, Any]], parts: Sequence[dict[str, Any]]) -> None:
    """Add another message's parts to a turn. A blank line separates two texts, because a model reads a turn's texts
    without a separator.
    """
    if turn and parts and _is_text(turn[-1]) and _is_text(parts[0]):
        parts[0]["text"] = apart(parts[0]["text"])
    turn += parts


def apart(text: str) -> str:
    """Text of another message, behind a blank line."""
    return text if text.startswith(_APART) else _APART + text


def _is_text(part: dict[str, Any]) -> bool:
    return isinstance(part.get("text"), str) and "thought" not in part
