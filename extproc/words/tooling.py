"""The tools of a request, for guardrails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_INSIDE = ("content", "source", "resource")
"""Fields of parts of a result that hold further parts."""

Withheld = Callable[[str], bool]
"""True for the name of a tool that a request must not offer."""
Without = tuple[dict[str, Any], list[str]]
"""The fields of a request that change without some tools, None for those that go; and the names of these tools."""


@dataclass(slots=True)
class Tooling:
    """The tools of a request, and the schema of the answer it asks for."""

    answer: Any = None  # JSON Schema; an empty one for any JSON object
    offered: dict[str, Any] = field(default_factory=dict)  # tools that the client runs: name -> schema of the arguments
    turns: int = 0  # messages of the user
    results: list[str] = field(default_factory=list)  # tools whose results the conversation holds; "": an unknown tool


@dataclass(slots=True)
class Result:
    """The result of a tool in a request, which stands at `holder[key]`. `written(text)` is what stands there with a
    text in its place, and nothing else of the result. None: it cannot be replaced.
    """

    tool: str  # "": an unknown tool
    content: Any
    holder: Any
    key: Any
    written: Callable[[str], Any] | None
    omitted: int = 0  # media beside the content

    def said(self) -> tuple[str, int]:
        """The text of the result, and the number of its parts that are no text."""
        text, omitted = worded(self.content)
        return text, omitted + self.omitted


def worded(content: Any) -> tuple[str, int]:
    """The text of a result: a string, a list of parts, or any JSON; and the number of parts that are no text."""
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        return "" if content is None else _encode(content).decode(errors="replace"), 0
    found: list[str] = []
    omitted = 0
    waiting = content[::-1]
    while waiting:
        part = waiting.pop()
        inner = next((part[name] for name in _INSIDE if name in part), None) if isinstance(part, dict) else None
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, list):
            waiting += inner[::-1]
        elif isinstance(inner, dict):
            waiting.append(inner)
        else:
            omitted += 1
    return "\n".join(found), omitted
