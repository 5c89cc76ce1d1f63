"""Tools: those of a request, and calls of them in an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tooling:
    """The tools of a request, and the schema of the answer it asks for."""

    answer: Any = None  # JSON Schema; an empty one for any JSON object
    offered: dict[str, Any] = field(default_factory=dict)  # tools that the client runs: name -> schema of the arguments
    turns: int = 0  # messages of the user
    results: list[str] = field(default_factory=list)  # tools whose results the conversation holds; "": an unknown tool


@dataclass(slots=True, frozen=True)
class Called:
    """A call whose arguments are an object, in one event. Their strings are pieces of their own, too."""

    where: str
    tool: Any  # its name, as the provider gave it
    arguments: Any
    named: bool = True  # its name is a piece of its own, too
