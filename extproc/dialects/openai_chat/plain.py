"""Requests that the neutral form carries whole, so that a cached answer serves clients of other APIs too.

Any field or value that is not listed here makes a request one of this API alone.
Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from extproc.wire.framing import shapes

ASIDES = frozenset(
    (
        *("stream", "stream_options", "user", "safety_identifier", "metadata", "store", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    )
)
"""Fields that change no answer."""

Word = Annotated[str, Meta(min_length=1)]


class Text(Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class System(Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: str


class User(Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str | Annotated[list[Text], Meta(min_length=1)]


class Call(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True):
    id: str
    type: Literal["function"]
    function: Call


class Assistant(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Result(Struct, tag_field="role", tag="tool", forbid_unknown_fields=True):
    tool_call_id: Word
    content: str


class Function(Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: Function


class Named(Struct, forbid_unknown_fields=True):
    name: str


class Choice(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: Named


class AnyText(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class AnyObject(Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class Schema(Struct, forbid_unknown_fields=True):
    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class Shaped(Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    json_schema: Schema


class Request(Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[System | User | Assistant | Result], Meta(min_length=1)]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Word | list[Word] | None = None
    seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: AnyText | AnyObject | Shaped | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None


def is_plain(body: Mapping[str, Any]) -> bool:
    """True where the neutral form of a request, given without `ASIDES`, says all that it says. Never raises."""
    try:
        asked = shapes.convert(body, Request)
    except (msgspec.ValidationError, RecursionError):
        return False
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        return False
    return (asked.n or 1) == 1 and not any(isinstance(message, System) for message in asked.messages[1:])
