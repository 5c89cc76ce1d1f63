"""Requests that the neutral form carries whole, so that a cached answer serves clients of other APIs too.

Any field or value that is not listed here makes a request one of this API alone. So does an answer that the provider
stores: later requests may refer to its id.
Source: https://developers.openai.com/api/reference/resources/responses/methods/create
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from extproc.wire.framing import shapes

ASIDES = frozenset(
    (
        *("stream", "stream_options", "user", "safety_identifier", "metadata", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    )
)
"""Fields that change no answer."""

Nothing = Annotated[list[Any], Meta(max_length=0)]


class Asked(Struct, forbid_unknown_fields=True):
    type: Literal["input_text"]
    text: str


class Said(Struct, forbid_unknown_fields=True):
    type: Literal["output_text"]
    text: str
    annotations: Nothing | None = None


class User(Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str | Annotated[list[Asked], Meta(min_length=1)]
    type: Literal["message"] = "message"


class Assistant(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str | Annotated[list[Said], Meta(min_length=1)]
    type: Literal["message"] = "message"


class Call(Struct, tag_field="type", tag="function_call", forbid_unknown_fields=True):
    call_id: str
    name: str
    arguments: str


class Result(Struct, tag_field="type", tag="function_call_output", forbid_unknown_fields=True):
    call_id: str
    output: str


class Tool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str
    strict: bool  # its default differs from other APIs'
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Choice(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str


class AnyText(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class AnyObject(Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class Shaped(Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class Form(Struct, forbid_unknown_fields=True):
    format: AnyText | AnyObject | Shaped | None = None


class Reasoning(Struct, forbid_unknown_fields=True):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None


class Request(Struct, forbid_unknown_fields=True):
    model: str
    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    store: bool
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    text: Form | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["disabled"] | None = None
    include: Nothing | None = None


_SAID = User | Assistant
_TOOL = Call | Result


def is_plain(body: Mapping[str, Any]) -> bool:
    """True where the neutral form of a request, given without `ASIDES`, says all that it says. Never raises."""
    try:
        asked = shapes.convert(body, Request)
        items = [] if isinstance(asked.input, str) else [_item(item) for item in asked.input]
    except (msgspec.ValidationError, RecursionError):
        return False
    if any(isinstance(one, Assistant) and isinstance(other, Assistant) for one, other in pairwise(items)):
        return False  # in the neutral form they are one turn
    return asked.store is False


def _item(item: Mapping[str, Any]) -> User | Assistant | Call | Result:
    found: User | Assistant | Call | Result = shapes.convert(item, _SAID if "role" in item else _TOOL)
    return found
