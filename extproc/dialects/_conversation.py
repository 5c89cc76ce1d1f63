"""A conversation read from its end, for `ClientAPI.conversation`. The work is bounded for a body of any size: only the
last messages, the ends of lists, and some values of each message are read. Accepts any JSON and never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from extproc.dialects._effort import LEVELS
from extproc.words.messages import Effort

_MESSAGES = 32  # messages read, from the end
_PARTS = 8  # parts of a list read from each end
_VALUES = 64  # values of one message that are read


def last_said(
    messages: Any, names: Sequence[str], is_result: Callable[[dict[str, Any]], bool]
) -> tuple[list[str], list[str] | None]:
    """Texts of the user's last message with text, and texts of the last message if it is a tool's result.

    `names` are the fields for text in a message or a part. A message without a role is the user's. Without messages,
    the texts of all items.
    """
    result: list[str] | None = None
    items = messages if isinstance(messages, list) else []
    for index in range(len(items) - 1, max(len(items) - 1 - _MESSAGES, -1), -1):
        item = items[index]
        if isinstance(item, str):
            return [item], result
        if not isinstance(item, dict):
            continue
        if is_result(item):
            if index == len(items) - 1:
                result = pieces(item, names)
        elif item.get("role", "user") == "user" and (texts := pieces(item, names)):
            return texts, result
    return [] if result else pieces(messages, names), result


def first_instructions(messages: Any) -> Any:
    """Content of a first message that is the system's or the developer's."""
    first = messages[0] if isinstance(messages, list) and messages else None
    return first.get("content") if isinstance(first, dict) and first.get("role") in ("system", "developer") else None


def pieces(value: Any, names: Sequence[str]) -> list[str]:
    """Texts at or below `value`, in order. Of objects only the fields `names` are read."""
    found: list[str] = []
    todo = [value]
    for _ in range(_VALUES):
        if not todo:
            break
        node = todo.pop()
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, list):
            todo.extend(reversed(ends(node)))
        elif isinstance(node, dict):
            todo.extend(node[name] for name in names if name in node)
    return found


def ends(values: list[Any]) -> list[Any]:
    """The first and last items of a list."""
    return values if len(values) <= 2 * _PARTS else values[:_PARTS] + values[-_PARTS:]


def count(value: Any) -> int:
    """Length of a list; 0 for another value."""
    return len(value) if isinstance(value, list) else 0


def inner(body: Mapping[str, Any], name: str, key: str) -> Any:
    """The field `key` of the object in field `name`; None without such an object."""
    value = body.get(name)
    return value.get(key) if isinstance(value, dict) else None


def effort_of(*levels: Any) -> Effort | None:
    """The first of `levels` that is present, in neutral words."""
    found = next((level for level in levels if isinstance(level, str)), "")
    return LEVELS.get(found)
