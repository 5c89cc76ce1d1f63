"""The tools of a request, for guardrails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
