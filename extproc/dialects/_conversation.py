"""A conversation read from its end, for `ClientAPI.conversation`. The work is bounded whatever the size of the body:
the last messages, the ends of lists, so many values of each message. Takes any JSON and never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from extproc.dialects._effort import LEVELS
from extproc.words.messages import Effort

_MESSAGES = 32  # messages from the end
_PARTS = 8  # parts of a list, from each end
_VALUES = 64  # values of one message


def last_said(
    messages: Any, names: Sequence[str], is_result: Callable[[dict[str, Any]], bool]
) -> tuple[list[str], list[str] | None]:
    """Texts of the user's last message that holds any, and those of the last message if it is the result of a tool.

    `names` are the fields that hold the text of a message or of a part of it. A message without a role is the user's.
    Without any message, the texts of all items.
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
    """The content of a first message that is the system's or the developer's."""
    first = messages[0] if isinstance(messages, list) and messages else None
    return first.get("content") if isinstance(first, dict) and first.get("role") in ("system", "developer") else None


def pieces(value: Any, names: Sequence[str]) -> list[str]:
    """The texts at or below `value`, in order. In objects only the fields `names` are read."""
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
    """The first and the last of a list."""
    return values if len(values) <= 2 * _PARTS else values[:_PARTS] + values[-_PARTS:]


def count(value: Any) -> int:
    """Length of a list; 0 for anything else."""
    return len(value) if isinstance(value, list) else 0


def inner(body: Mapping[str, Any], name: str, key: str) -> Any:
    """The field `key` of the object in the field `name`; None where there is no such object."""
    value = body.get(name)
    return value.get(key) if isinstance(value, dict) else None


def effort_of(*levels: Any) -> Effort | None:
    """The first of `levels` that is given, in the neutral words."""
    found = next((level for level in levels if isinstance(level, str)), "")
    return LEVELS.get(found)
