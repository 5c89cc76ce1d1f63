"""Shapes of a chat completion request, a completion and a chunk, reduced to the fields that are read.

Source: https://platform.openai.com/docs/api-reference/chat/create and https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from extproc.dialects import MAX_TOKENS

MAX_CHOICES = 128
"""OpenAI's own limit for `n`."""

MODES: Mapping[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",
}
"""Neutral values of `tool_choice`. `any` is Mistral's."""

Limit = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]


class Marked(Struct):
    cache_control: dict[str, Any] | None = None
    prompt_cache_breakpoint: dict[str, Any] | None = None


class Image(Struct):
    url: str
    detail: str | None = None


class Audio(Struct):
    data: str
    format: str


class File(Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None
    format: str | None = None


class Part(Marked):
    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: Image | str | None = None
    input_audio: Audio | None = None
    file: File | None = None
    document_url: str | None = None  # Mistral's field: an address or a data URL
    document_name: str | None = None


class FunctionCall(Struct):
    name: str
    arguments: str | None = None


class ToolCall(Struct):
    id: str
    type: str | None = None
    function: FunctionCall | None = None
    extra_content: Any = None
    cache_control: dict[str, Any] | None = None


class Block(Struct):
    type: str
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class Message(Marked, kw_only=True):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[Block] | None = None
    images: list[Part] | None = None
    audio: Any = None


class Function(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class Tool(Struct):
    type: str | None = None
    function: Function | None = None
    cache_control: dict[str, Any] | None = None


class Named(Struct):
    name: str


class NamedTool(Struct):
    type: str | None = None
    function: Named | None = None


class Allowed(Struct):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class ChosenTool(NamedTool):
    allowed_tools: Allowed | None = None


class Schema(Struct):
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class Thinking(Struct):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None


class Reasoning(Struct):
    effort: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    exclude: bool | None = None


class Request(Struct):
    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    tools: list[Tool] | None = None
    functions: list[Function] | None = None
    tool_choice: str | ChosenTool | None = None
    function_call: str | Named | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    max_completion_tokens: Limit | None = None
    max_tokens: Limit | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    thinking: Thinking | None = None
    reasoning: Reasoning | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    web_search_options: Any = None


# --- answers


# gc=False, because events come by the thousand and JSON has no cycles.
class SaidFunction(Struct, gc=False):
    name: Any = None
    arguments: Any = None


class SaidCall(Struct, gc=False):
    index: Any = None
    id: Any = None
    function: SaidFunction | None = None
    extra_content: Any = None


class Said(Struct, gc=False):
    """A message or a delta."""

    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[SaidCall] | None = None
    function_call: SaidFunction | None = None  # for clients that offered `functions`
    thinking_blocks: Any = None
    images: Any = None


class SeenChoice(Struct, gc=False):
    """A choice of an answer that passes through."""

    index: Any = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: Any = None
    usage: Any = None


class Seen(Struct, gc=False):
    """A completion or a chunk that passes through."""

    id: Any = None
    model: Any = None
    choices: list[SeenChoice] | None = None
    usage: Any = None
    x_groq: Any = None
    service_tier: Any = None
    error: Any = None


class SaidChoice(SeenChoice, gc=False):
    logprobs: Any = None


class Body(Seen, gc=False):
    """A completion or a chunk, for translation."""

    choices: list[SaidChoice] | None = None  # type: ignore[assignment]
    created: Any = None
    object: Any = None
    message: Any = None
    type: Any = None
    code: Any = None
