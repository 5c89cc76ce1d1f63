"""Calls of tools in answers: which tools a model may call, and what it may not call them with.

Controls: OWASP LLM06 (excessive agency); MITRE ATLAS T0053; FINOS AIGF ri-24 / mi-18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import re2
from pydantic import Field, model_validator

from extproc.guardrails import TOOL_CALL, TOOL_NAME, Finding, GuardrailSettings
from extproc.guardrails.regex import compile_pattern, readable
from extproc.words.values import Pattern


class ToolsSettings(GuardrailSettings):
    """A guardrail that limits the calls of tools in answers."""

    kind: Literal["tools"] = Field(description="Kind of the guardrail. `tools`: calls of tools in answers.")
    on: Sequence[Literal["tool_calls"]] = Field(
        ("tool_calls",), min_length=1, max_length=1, description="Text that is checked: `tool_calls`."
    )
    action: Literal["block", "annotate", "audit"] = Field(
        "block",
        description="Effect of a call that is not allowed. `block`: the answer is refused. `annotate`: the call is "
        "recorded, and told in the header `x-ai-guardrails` of the answer. `audit`: the call is recorded.",
    )
    allow: Annotated[Sequence[str], Field(max_length=1000)] | None = Field(
        None, description="Patterns of the tools that may be called, with `*` for any characters. Default: all."
    )
    deny: Annotated[Sequence[str], Field(max_length=1000)] = Field(
        (), description="Patterns of tools that may not be called. They win over `allow`."
    )
    deny_arguments: Annotated[Mapping[str, str], Field(max_length=256)] = Field(
        default_factory=dict,
        description="RE2 patterns, by a name of your choice, that the arguments of no call may match. They are matched "
        "against the JSON of the arguments with its escapes decoded.",
    )
    longest: int = Field(
        256,
        ge=1,
        le=16384,
        description="Length in characters of the longest match of `deny_arguments`, 1 to 16384. Streamed arguments "
        "are held back this far from their end.",
    )

    @model_validator(mode="after")
    def _compiles(self) -> ToolsSettings:
        for name, pattern in self.deny_arguments.items():
            readable(name, pattern)
        if self.allow is None and not self.deny and not self.deny_arguments:
            raise ValueError("give allow, deny or deny_arguments")
        return self

    def build(self) -> Tools:
        return Tools(self)


class Tools:
    """Finds names of tools that are not allowed, and denied arguments."""

    def __init__(self, settings: ToolsSettings) -> None:
        self.max_match = settings.longest
        self._allow = None if settings.allow is None else [Pattern(text) for text in settings.allow]
        self._deny = [Pattern(text) for text in settings.deny]
        self._arguments: list[tuple[str, re2._Regexp]] = [
            (name, compile_pattern(pattern)) for name, pattern in settings.deny_arguments.items()
        ]

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        if role == TOOL_CALL:
            return [
                Finding(name, match.span()) for name, pattern in self._arguments for match in pattern.finditer(text)
            ]
        if role == TOOL_NAME and not self._may_call(text):
            return [Finding("tool", (0, len(text)))]
        return ()

    def _may_call(self, tool: str) -> bool:
        if any(pattern(tool) for pattern in self._deny):
            return False
        return self._allow is None or any(pattern(tool) for pattern in self._allow)


SETTINGS = ToolsSettings
