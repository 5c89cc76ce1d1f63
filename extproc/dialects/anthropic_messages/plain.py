"""Requests that the neutral form carries whole, so that a cached answer serves clients of other APIs too.

Any field or value that is not listed here makes a request one of this API alone.
Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from extproc.wire.framing import shapes

ASIDES = frozenset(("stream", "metadata", "service_tier", "cache_control"))
"""Fields that change no answer."""

Mark = dict[str, Any] | None


class Text(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: Mark = None


class Said(Struct, forbid_unknown_fields=True):
    """A text of a list that holds nothing else."""

    type: Literal["text"]
    text: str
    cache_control: Mark = None


class Result(Struct, tag_field="type", tag="tool_result", forbid_unknown_fields=True):
    tool_use_id: str
    content: str | list[Said] | None = None
    is_error: bool | None = None
    cache_control: Mark = None


class Call(Struct, tag_field="type", tag="tool_use", forbid_unknown_fields=True):
    id: str
    name: str
    input: dict[str, Any]
    cache_control: Mark = None


class User(Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str | list[Text | Result]


class Assistant(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str | list[Text | Call]


class Tool(Struct, forbid_unknown_fields=True):
    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: Mark = None


class Auto(Struct, tag_field="type", tag="auto", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class Required(Auto, tag_field="type", tag="any", forbid_unknown_fields=True):
    pass


class NoTool(Struct, tag_field="type", tag="none", forbid_unknown_fields=True):
    pass


class One(Struct, tag_field="type", tag="tool", forbid_unknown_fields=True):
    name: str
    disable_parallel_tool_use: bool | None = None


class Request(Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[User | Assistant], Meta(min_length=1)]
    max_tokens: int
    system: str | Annotated[list[Said], Meta(max_length=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: Auto | Required | NoTool | One | None = None


def is_plain(body: Mapping[str, Any]) -> bool:
    """True where the neutral form of a request, given without `ASIDES`, says all that it says. Never raises."""
    try:
        shapes.convert(body, Request)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True
