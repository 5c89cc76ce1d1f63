"""JSON mode without a schema. Without the word JSON in a message, OpenAI refuses it, and Cohere's models may never
stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = "Answer in JSON."


def add_word(turns: list[dict[str, Any]], role: str = "system", **more: Any) -> None:
    """Add the word JSON to a request without it: to the system prompt, or in a new first message with `role` and the
    fields `more`.
    """
    if any("json" in text.lower() for turn in turns for text in _texts(turn)):
        return
    first = turns[0] if turns else {}
    if first.get("role") == "system" and isinstance(first["content"], str):
        first["content"] += f"\n\n{_WORDS}"
    else:
        turns.insert(0, {**more, "role": role, "content": _WORDS})


def _texts(turn: Mapping[str, Any]) -> list[str]:
    content = turn.get("content") or turn.get("output") or ""
    return [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
