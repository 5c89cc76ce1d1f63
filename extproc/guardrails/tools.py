"""Calls of tools, in answers and through the MCP gateway: which tools may be called, and with which arguments.

Controls: OWASP LLM03:2026 (excessive agency); MITRE ATLAS T0053; FINOS AIGF ri-24 / mi-18.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import re2
from pydantic import Field, model_validator

from extproc.guardrails import TOOL_CALL, TOOL_NAME, Detector, Excess, Finding, Judge, Measure, Whole
from extproc.guardrails._arguments import leaves
from extproc.guardrails._base import AskingSettings
from extproc.guardrails._patterns import compile_pattern, readable
from extproc.guardrails._rules import ArgumentRules, ArgumentsSettings
from extproc.words.exchange import Exchange
from extproc.words.values import Patterns


class ToolsSettings(AskingSettings):
    """A guardrail that limits the calls of tools."""

    kind: Literal["tools"] = Field(description="Kind of the guardrail. `tools`: calls of tools.")
    on: Sequence[Literal["tool_calls", "tool_arguments"]] = Field(
        ("tool_calls", "tool_arguments"),
        min_length=1,
        max_length=2,
        description="Calls that are checked. `tool_calls`: those in answers of models. `tool_arguments`: those through "
        "the MCP gateway, by the names that clients see.",
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
    arguments: Annotated[Mapping[str, ArgumentsSettings], Field(max_length=256)] = Field(
        default_factory=dict,
        description="Rules for arguments, by a pattern of the tool's name and the argument: "
        "`{shell: {command: {deny_pattern: 'rm -rf'}}, pay: {/amount: {maximum: 100}}}`. A JSON Pointer names one "
        "place. A name counts at any depth, in upper and lower case; `*` is for every argument. Arguments of these "
        "tools in answers are held back until they are complete, and refused where they cannot be read: no JSON, a key "
        "twice.",
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


class Tools(Detector, Judge, Measure):
    """Finds names of tools that are not allowed, and denied arguments: the Detector and the Judge in answers, the
    Measure in calls through the MCP gateway.
    """

    def __init__(self, settings: ToolsSettings) -> None:
        self.max_match = settings.longest
        self._allow = None if settings.allow is None else Patterns(settings.allow)
        self._deny = Patterns(settings.deny)
        self._arguments: list[tuple[str, re2._Regexp]] = [
            (name, compile_pattern(pattern)) for name, pattern in settings.deny_arguments.items()
        ]
        self._rules = ArgumentRules(settings.arguments)

    def reads(self, role: str, tool: str, answer: bool) -> bool:  # noqa: ARG002
        return role == TOOL_CALL and bool(self._rules.meant(tool))

    def judge(self, whole: Whole) -> Sequence[str]:
        return list(self._rules.broken(whole.tool, whole.text, json=whole.json))

    def rules(self, tool: str) -> Mapping[str, str]:
        return {kind: rule.text for kind, rule in self._rules.meant(tool)}

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        if role == TOOL_CALL:
            return [
                Finding(name, match.span()) for name, pattern in self._arguments for match in pattern.finditer(text)
            ]
        if role == TOOL_NAME and not self._may_call(text):
            return [Finding("tool", (0, len(text)))]
        return ()

    def measure(self, exchange: Exchange) -> Sequence[Excess]:
        found: dict[str, str] = {}
        for step in exchange.request.dialect.offers.tools.steps(exchange.request.json):
            tool = step.tool or ""
            if not self._may_call(tool):
                found["tool"] = f"tool {tool!r} may not be called."
            text = json.dumps(step.arguments, ensure_ascii=False, separators=(",", ":"))
            for name, pattern in self._arguments:
                if any(pattern.search(each) for each in (text, *leaves(step.arguments))):
                    found[name] = "the arguments match a denied pattern."
            if rules := self._rules.meant(tool):
                found |= {kind: f"{said}." for kind, said in self._rules.broken(tool, text, json=bool(rules)).items()}
        return [Excess(kind, "params.arguments", message) for kind, message in found.items()]

    def _may_call(self, tool: str) -> bool:
        return not self._deny(tool) and (self._allow is None or self._allow(tool))


SETTINGS = ToolsSettings
