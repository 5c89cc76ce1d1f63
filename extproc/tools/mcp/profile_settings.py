"""`mcp.profiles` of the filter YAML: the parts of servers that a profile offers, and tools as it changes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, StringConstraints, field_validator, model_validator

from extproc.words.values import Name, PositiveDuration, Section, Size

_JOIN = "__"
"""Separator between the names of a server and its tool, if a profile gives no prefix."""

_Prefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,32}$")]
_ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
_Patterns = Sequence[Annotated[str, StringConstraints(min_length=1, max_length=512)]]
_ALL = ("*",)


class ToolChangeSettings(Section):
    """A tool as the profile's clients see and call it, in place of the server's own definition."""

    name: _ToolName | None = Field(
        None, description="Name of the tool in the profile, behind the prefix. Default: the server's own name."
    )
    description: str | None = Field(
        None, min_length=1, max_length=16384, description="Description of the tool. Default: the server's own."
    )
    fixed: Mapping[str, Any] = Field(
        default_factory=dict,
        max_length=64,
        description="Arguments with a value that each call gets. Clients do not see them, and a call that gives one is "
        "refused.",
    )
    hidden: Sequence[str] = Field(
        (),
        max_length=64,
        description="Optional arguments that clients do not see. A call that gives one is refused.",
    )

    @field_validator("fixed")
    @classmethod
    def _json(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(value))  # YAML also has dates
        return found

    @model_validator(mode="after")
    def _changes(self) -> ToolChangeSettings:
        if self.name is None and self.description is None and not self.withheld:
            raise ValueError("give a name, a description, fixed or hidden arguments")
        if twice := self.fixed.keys() & {*self.hidden}:
            raise ValueError(f"the argument {min(twice)!r} is fixed, so it is hidden already")
        return self

    @cached_property
    def withheld(self) -> frozenset[str]:
        """The arguments that clients neither see nor give."""
        return frozenset((*self.fixed, *self.hidden))


class MCPShareSettings(Section):
    """The part of a server that a profile offers."""

    prefix: _Prefix | None = Field(
        None,
        description="Text before the names of the server's tools and prompts in the profile, for example `gh_`. "
        f"Default: the server's name and `{_JOIN}`. `''` for none. Keep it short: APIs of models take names of up to "
        "64 characters.",
    )
    tools: _Patterns = Field(
        _ALL, max_length=500, description="Patterns of the server's tools that the profile offers. `[]`: none."
    )
    prompts: _Patterns = Field(
        _ALL, max_length=500, description="Patterns of the server's prompts that the profile offers. `[]`: none."
    )
    resources: _Patterns = Field(
        _ALL,
        max_length=500,
        description="Patterns of the URIs of the server's resources that the profile offers. `[]`: none.",
    )

    changes: Mapping[str, ToolChangeSettings] = Field(
        default_factory=dict,
        max_length=500,
        description="Tools that clients see otherwise than the server offers them, by the server's own name of each. "
        "Policies, pins and `tools` keep the server's own names.",
    )

    @field_validator("changes")
    @classmethod
    def _names_differ(cls, value: Mapping[str, ToolChangeSettings]) -> Mapping[str, ToolChangeSettings]:
        names = Counter(change.name for change in value.values() if change.name is not None)
        if twice := next((name for name, count in names.items() if count > 1), None):
            raise ValueError(f"two tools are named {twice!r}")
        return value

    def before(self, server: str) -> str:
        """The text before the names of the server's tools and prompts."""
        return server + _JOIN if self.prefix is None else self.prefix

    def name_of(self, own: str) -> str:
        """The name that the profile gives a tool, without the prefix."""
        change = self.changes.get(own)
        return own if change is None or change.name is None else change.name

    def own_name(self, name: str) -> str | None:
        """The server's own name of the tool with a name in the profile, without the prefix; None for no tool."""
        if (own := self._renamed.get(name)) is not None:
            return own
        return name if self.name_of(name) == name else None

    @cached_property
    def _renamed(self) -> Mapping[str, str]:
        return {change.name: own for own, change in self.changes.items() if change.name is not None}


class PagesSettings(Section):
    """Long results of tools as pages."""

    size: Size = Field(32 << 10, ge=1 << 10, le=8 << 20, description="Size of a page, `1KiB` to `8MiB`.")
    keep: PositiveDuration = Field(
        900.0,
        ge=1,
        le=86400,
        description="Time for which the rest of a result can be read, `1s` to `24h`. It is kept in `stores.cache`, "
        "among the turns of `cache.conversations`, whose limits of memory and disk hold.",
    )


class MCPProfileSettings(Section):
    """A profile: the tools, prompts and resources that clients find at `/mcp/<profile>`."""

    instructions: str | None = Field(
        None,
        max_length=16384,
        description="Text for the models of the profile's clients. Default: the instructions of its servers.",
    )
    discovery: Literal["list", "search"] = Field(
        "list",
        description="The way to the tools. `list`: clients get the definitions of all of them. `search`: clients get "
        "three tools of the gateway, `find_tools`, `describe_tool` and `call_tool`, and search the others in words. "
        "Grants and policies hold for the tools that are found and called so.",
    )
    max_result: Size = Field(
        8 << 20,
        ge=1 << 10,
        le=1 << 30,
        description="Largest result of a call, and largest event of a streamed answer. In the place of a larger one "
        "comes a result that says so.",
    )
    pages: PagesSettings | None = Field(
        None,
        description="Cut the text of results to a page, with a link to the rest, which the client reads as a resource. "
        "For `discovery: search`. Default: results come whole.",
    )
    servers: Mapping[Name, MCPShareSettings] = Field(
        min_length=1,
        max_length=64,
        description="Servers of the profile, each with the part of it that the profile offers. Where two have a tool "
        "of one name, it belongs to the first, also while that one is switched off or away.",
    )

    @model_validator(mode="after")
    def _pages_are_without_schemas(self) -> MCPProfileSettings:
        if self.pages is not None and self.discovery != "search":
            raise ValueError("pages need discovery: search, because clients compare whole results with listed schemas")
        return self
