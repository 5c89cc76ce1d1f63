"""Steps since the user's last turn: tool calls with their results, and answers in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from extproc.dialects._tooling import objects
from extproc.dialects._view import Node, View
from extproc.words.dialect import Step


def steps_of(view: View, body: Mapping[str, Any]) -> Sequence[Step]:
    """See `Tools.steps`."""
    found: list[Step] = []
    places: dict[Any, str] = {}  # steps by key of their call, to find a result's step
    for turn in _after_user(view, body.get(view.turns_at)):
        called = len(found)
        for node in _nodes(view, turn):
            for call in view.calls_in(node):
                places.update(dict.fromkeys(call.keys, str(len(found))))
                found.append(Step(call.tool, call.arguments))
            for tool, content, _, _ in view.results_in(node, places):
                if tool.isdecimal() and int(tool) < len(found):
                    found[int(tool)].result = content
                elif view.is_result(node):
                    found.append(Step(None, result=content))
        words = turn.get("type", "message") == "message" and bool(turn.get(view.parts_at))
        if called == len(found) and words and view.speaker(turn) == "assistant":
            found.append(Step(""))
    return found


def _after_user(view: View, turns: Any) -> list[Node]:
    """Turns behind the user's last one. A turn with tool results is not the user's."""
    found: list[Node] = []
    for turn in reversed(turns) if isinstance(turns, list) else ():
        if not isinstance(turn, dict):
            continue
        if view.speaker(turn) == "user" and not any(map(view.is_result, _nodes(view, turn))):
            break
        found.append(turn)
    return found[::-1]


def _nodes(view: View, turn: Node) -> Iterable[Node]:
    """Objects of a turn that may be calls and results."""
    return objects(turn.get(view.parts_at)) if view.deep else (turn,)
