"""Shapes of a request and a response, reduced to the fields that are read.

Source: https://developers.openai.com/api/reference/resources/responses/methods/create and
https://developers.openai.com/api/reference/resources/responses (the response object)
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import uuid4

from msgspec import Meta, Struct

from extproc.dialects import MAX_TOKENS


class Audio(Struct):
    data: str
    format: str


class Part(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: Audio | None = None
    prompt_cache_breakpoint: dict[str, Any] | None = None


class Grammar(Struct):
    type: Literal["text", "grammar"]
    syntax: str | None = None
    definition: str | None = None


class Tool(Struct):
    type: str
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: Grammar | None = None
    tools: list[Tool] | None = None  # tools of a group


class Item(Struct):
    type: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None
    result: str | None = None
    output_format: str | None = None
    tools: list[Tool] | None = None


class Named(Struct):
    type: str
    name: str | None = None


class ChosenTool(Named):
    mode: Literal["auto", "required"] | None = None
    tools: list[Named] | None = None


class Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextSettings(Struct):
    format: Format | None = None
    verbosity: str | None = None


class Reasoning(Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class Request(Struct):
    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None


# --- answers


class Output(Struct, gc=False):
    """An item of the output."""

    type: Any = None
    id: Any = None
    call_id: Any = None
    name: Any = None
    namespace: Any = None
    arguments: Any = None
    content: Any = None
    summary: Any = None
    encrypted_content: Any = None
    action: Any = None  # action of a search
    container_id: Any = None
    environment: Any = None  # place of a shell


class Offered(Struct, gc=False):
    """A tool of the request, as the response repeats it."""

    type: Any = None
    model: Any = None
    container: Any = None
    environment: Any = None


class Body(Struct, gc=False):
    id: Any = None
    model: Any = None
    created_at: Any = None
    status: Any = None
    output: list[Output] | None = None
    usage: Any = None
    tools: list[Offered] | None = None
    tool_usage: Any = None
    service_tier: Any = None
    error: Any = None
    incomplete_details: Any = None
    store: Any = None
    previous_response_id: Any = None
    background: Any = None
    conversation: Any = None
    object: Any = None
    data: Any = None  # items of a list
    first_id: Any = None
    last_id: Any = None


_OURS = "_gw"  # OpenAI's own ids continue with hexadecimal digits


def new_id(prefix: str) -> str:
    """A new id for a translated answer, which no provider keeps."""
    return f"{prefix}{_OURS}{uuid4().hex}"


def is_ours(id: object) -> bool:
    """True for an id of a translated answer."""
    return isinstance(id, str) and _OURS in id[:8]
