"""Calls of tools in answers: which tools a model may call, and what it may not call them with.

Controls: OWASP LLM03:2026 (excessive agency); MITRE ATLAS T0053; FINOS AIGF ri-24 / mi-18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import re2
from pydantic import Field, model_validator

from extproc.guardrails import TOOL_CALL, TOOL_NAME, Detector, Finding, Judge, Whole
from extproc.guardrails._arguments import Unreadable, forms, leaves, named, plain, read
from extproc.guardrails._base import UnmaskableSettings
from extproc.guardrails._normal import normalised
from extproc.guardrails._patterns import compile_pattern, readable
from extproc.words.values import Pattern, Patterns, Section


class ArgumentSettings(Section):
    """A rule for one argument of a tool."""

    deny_pattern: str | None = Field(
        None,
        description="RE2 pattern that no value may match anywhere. A list is matched item by item, and as its items "
        "with spaces between; text also without disguises and decoded once.",
    )
    allow_pattern: str | None = Field(
        None, description="RE2 pattern that each value must match as a whole. Default: any value."
    )

    @model_validator(mode="after")
    def _compiles(self) -> ArgumentSettings:
        given = {"deny_pattern": self.deny_pattern, "allow_pattern": self.allow_pattern}
        for name, pattern in given.items():
            if pattern is not None:
                readable(name, pattern)
        if not any(given.values()):
            raise ValueError("give deny_pattern or allow_pattern")
        return self


_Arguments = Annotated[Mapping[str, ArgumentSettings], Field(min_length=1, max_length=64)]


class ToolsSettings(UnmaskableSettings):
    """A guardrail that limits the calls of tools in answers."""

    kind: Literal["tools"] = Field(description="Kind of the guardrail. `tools`: calls of tools in answers.")
    on: Sequence[Literal["tool_calls"]] = Field(
        ("tool_calls",), min_length=1, max_length=1, description="Text that is checked: `tool_calls`."
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
    arguments: Annotated[Mapping[str, _Arguments], Field(max_length=256)] = Field(
        default_factory=dict,
        description="Rules for arguments, by a pattern of the tool's name and the argument's name: "
        "`{shell: {command: {deny_pattern: 'rm -rf'}}}`. The name counts at any depth, in upper and lower case; `*` is "
        "for every argument. Arguments of these tools are held back until they are complete, and refused where they "
        "cannot be read: no JSON, a key twice.",
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
        if self.allow is None and not self.deny and not self.deny_arguments and not self.arguments:
            raise ValueError("give allow, deny, deny_arguments or arguments")
        return self

    def build(self) -> Tools:
        return Tools(self)


class _Rule:
    """The rule for one argument. `kind` names its findings."""

    def __init__(self, tool: str, argument: str, settings: ArgumentSettings) -> None:
        self.kind = f"{tool}.{argument}"
        self._tool = Pattern(tool)
        self._argument = Pattern(plain(argument))
        self._deny = compile_pattern(settings.deny_pattern) if settings.deny_pattern is not None else None
        self._allow = compile_pattern(settings.allow_pattern) if settings.allow_pattern is not None else None

    def meant(self, tool: str) -> bool:
        """True for a call of `tool`; a call without a name may call any tool."""
        return not tool or self._tool(tool) or self._tool(normalised(tool))

    def breaks(self, name: str, value: object) -> bool:
        """True for a forbidden argument."""
        if not self._argument(name):
            return False
        if self._allow is not None and not all(self._allow.fullmatch(text) for text in leaves(value)):
            return True
        return self._deny is not None and any(self._deny.search(text) for text in forms(value))


class Tools(Detector, Judge):
    """Finds names of tools that are not allowed, and denied arguments."""

    def __init__(self, settings: ToolsSettings) -> None:
        self.max_match = settings.longest
        self._allow = None if settings.allow is None else Patterns(settings.allow)
        self._deny = Patterns(settings.deny)
        self._arguments: list[tuple[str, re2._Regexp]] = [
            (name, compile_pattern(pattern)) for name, pattern in settings.deny_arguments.items()
        ]

        self._rules = [
            _Rule(tool, name, rule) for tool, rules in settings.arguments.items() for name, rule in rules.items()
        ]

    def reads(self, role: str, tool: str, answer: bool) -> bool:  # noqa: ARG002
        return role == TOOL_CALL and any(rule.meant(tool) for rule in self._rules)

    def judge(self, whole: Whole) -> Sequence[str]:
        rules = [rule for rule in self._rules if rule.meant(whole.tool)]
        found: dict[str, None] = {}
        try:
            for name, value in named(read(whole.text, json=whole.json)):
                found |= dict.fromkeys(
                    rule.kind for rule in rules if rule.kind not in found and rule.breaks(name, value)
                )
        except Unreadable:
            found["unreadable"] = None
        return list(found)

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        if role == TOOL_CALL:
            return [
                Finding(name, match.span()) for name, pattern in self._arguments for match in pattern.finditer(text)
            ]
        if role == TOOL_NAME and not self._may_call(text):
            return [Finding("tool", (0, len(text)))]
        return ()

    def _may_call(self, tool: str) -> bool:
        return not self._deny(tool) and (self._allow is None or self._allow(tool))


SETTINGS = ToolsSettings
