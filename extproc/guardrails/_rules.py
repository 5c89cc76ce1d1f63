"""Rules for the arguments of tools: one form for calls in answers, calls through the MCP gateway, and approvals.

A rule names an argument by a JSON Pointer (RFC 6901), `/order/amount`, or by a pattern of its name at any depth.
Arguments keep a rule if each value of the argument meets all conditions. A value that cannot be compared breaks it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from extproc.guardrails._arguments import Unreadable, forms, leaves, named, plain, read, scalars
from extproc.guardrails._normal import normalised
from extproc.guardrails._patterns import compile_pattern, readable
from extproc.words.values import Pattern, Section

_MOST = 1 << 53  # beyond it, readers with floating-point numbers alone confuse two numbers
_Whole = Annotated[int, Field(ge=-_MOST, le=_MOST)]
_Number = Annotated[float, Field(ge=-_MOST, le=_MOST)]
_upward = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)").search
_BOUNDS = ("minimum", "maximum", "exclusive_minimum", "exclusive_maximum")
UNREADABLE = "unreadable"
"""Kind of the finding in arguments that two readers could take differently."""


class ArgumentSettings(Section):
    """A rule for one argument of a tool: conditions that each of its values must meet."""

    deny_pattern: str | None = Field(
        None,
        description="RE2 pattern that no value may match anywhere. A list is matched item by item, and as its items "
        "with spaces between; text also without disguises and decoded once.",
    )
    allow_pattern: str | None = Field(
        None, description="RE2 pattern that each value must match as a whole. Default: any value."
    )
    prefix: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Text that each value must begin with. A value with the path segment `..` does not count."
    )
    enum: Annotated[Sequence[bool | _Whole | _Number | str], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="List of the values that are allowed: texts, numbers, `true`, `false`."
    )
    minimum: _Number | None = Field(None, description="Least number. A value that is no JSON number is refused.")
    maximum: _Number | None = Field(None, description="Greatest number.")
    exclusive_minimum: _Number | None = Field(None, description="Number that each value must be greater than.")
    exclusive_maximum: _Number | None = Field(None, description="Number that each value must be less than.")
    optional: bool = Field(
        False,
        description="Let the argument of a JSON Pointer be absent or null. Default: it must be there. An argument that "
        "is named without a pointer may always be absent.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> ArgumentSettings:
        for name in ("deny_pattern", "allow_pattern"):
            if (pattern := getattr(self, name)) is not None:
                readable(name, pattern)
        if all(getattr(self, name) is None for name in type(self).model_fields if name != "optional"):
            raise ValueError("give deny_pattern, allow_pattern, prefix, enum, or a bound such as maximum")
        return self


ArgumentsSettings = Annotated[Mapping[str, ArgumentSettings], Field(min_length=1, max_length=64)]
"""Rules by the argument: a JSON Pointer, or a pattern of names."""


class ArgumentRule:
    """A compiled rule. `text` says it in words, for refusals and explanations."""

    def __init__(self, argument: str, settings: ArgumentSettings) -> None:
        self._pointer = _tokens(argument) if argument.startswith("/") else None
        self._name = Pattern(plain(argument))
        self._optional, self._prefix = settings.optional, settings.prefix
        self._deny = compile_pattern(settings.deny_pattern) if settings.deny_pattern is not None else None
        self._allow = compile_pattern(settings.allow_pattern) if settings.allow_pattern is not None else None
        self._enum = None if settings.enum is None else frozenset(map(_typed, settings.enum))
        self._bounds = {name: bound for name in _BOUNDS if (bound := getattr(settings, name)) is not None}
        self.text = f"argument {argument!r} {_said(settings)}"

    def breaks(self, tree: Any) -> bool:
        """True for arguments that break the rule. Raises Unreadable."""
        if self._pointer is None:
            return any(self._name(name) and self._refuses(value) for name, value in named(tree))
        value = _at(tree, self._pointer)
        if all(each is None for each in scalars(value)):
            return not self._optional
        return self._refuses(value)

    def _refuses(self, value: Any) -> bool:
        if self._allow is not None and not all(self._allow.fullmatch(text) for text in leaves(value)):
            return True
        if self._deny is not None and any(self._deny.search(text) for text in forms(value)):
            return True
        found = [each for each in scalars(value) if each is not None]
        if self._prefix is not None and (
            any(not isinstance(each, str) or not each.startswith(self._prefix) for each in found)
            or any(_upward(text) for text in forms(value))
        ):
            return True
        if self._enum is not None and any(_typed(each) not in self._enum for each in found):
            return True
        return bool(self._bounds) and not all(map(self._within, found))

    def _within(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        bounds = self._bounds
        return (
            value >= bounds.get("minimum", value)
            and value <= bounds.get("maximum", value)
            and ("exclusive_minimum" not in bounds or value > bounds["exclusive_minimum"])
            and ("exclusive_maximum" not in bounds or value < bounds["exclusive_maximum"])
        )


class ArgumentRules:
    """Rules by the pattern of a tool's name. The kind of a finding is `tool.argument`."""

    def __init__(self, settings: Mapping[str, Mapping[str, ArgumentSettings]]) -> None:
        self._rules = [
            (Pattern(tool), f"{tool}.{argument}", ArgumentRule(argument, rule))
            for tool, rules in settings.items()
            for argument, rule in rules.items()
        ]

    def meant(self, tool: str) -> Sequence[tuple[str, ArgumentRule]]:
        """The rules for calls of `tool`, by the kinds of their findings; a call without a name may call any tool."""
        return [(kind, rule) for named, kind, rule in self._rules if not tool or named(tool) or named(normalised(tool))]

    def broken(self, tool: str, text: str, *, json: bool) -> Mapping[str, str]:
        """The rules that the arguments `text` break, by the kinds of the findings. See `_arguments.read`."""
        found: dict[str, str] = {}
        try:
            tree = read(text, json=json)
            found |= {kind: rule.text for kind, rule in self.meant(tool) if rule.breaks(tree)}
        except Unreadable as error:
            found[UNREADABLE] = f"the arguments cannot be read: {error}"
        return found


def _typed(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value


def _tokens(pointer: str) -> Sequence[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]


def _at(tree: Any, tokens: Sequence[str]) -> Any:
    """The value at a JSON Pointer; None if there is none."""
    for token in tokens:
        if isinstance(tree, dict):
            tree = tree.get(token)
        elif isinstance(tree, list) and token.isascii() and token.isdecimal() and int(token) < len(tree):
            tree = tree[int(token)]
        else:
            return None
    return tree


def _said(settings: ArgumentSettings) -> str:
    words = {
        "deny_pattern": "must not match {!r}",
        "allow_pattern": "must match {!r}",
        "prefix": "must begin with {!r}, without '..'",
        "minimum": "must be at least {:g}",
        "maximum": "must be at most {:g}",
        "exclusive_minimum": "must be more than {:g}",
        "exclusive_maximum": "must be less than {:g}",
    }
    said = [text.format(value) for name, text in words.items() if (value := getattr(settings, name)) is not None]
    if settings.enum is not None:
        more = ", …" if len(settings.enum) > _MOST_SHOWN else ""
        said.append(f"must be one of {', '.join(map(repr, settings.enum[:_MOST_SHOWN]))}{more}")
    return " and ".join(said)


_MOST_SHOWN = 10  # most values of an enum in a text
