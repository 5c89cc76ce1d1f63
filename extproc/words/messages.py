"""The neutral form of a conversation, between two dialects: N + M translations, not N x M.

A client's request becomes a `Prompt`, a provider's answer an `Answer` or, streamed, a sequence of `Event`s. The
client's dialect refuses fields that this form cannot express, or names them in `ignored`. Roles are `user` and
`assistant`; system and developer prompts stand in `system`. A tool's result is part of a user message, because the
caller sends it. Binary data is base64 text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from extproc.words.exchange import Usage

# --- parts of a message


class TextPart(Struct):
    text: str
    cache: Mapping[str, Any] | None = None  # prompt-cache breakpoint after this part, in Anthropic's form


class ImagePart(Struct):
    """An image: `data` (base64) with its `media_type`, or its `url`."""

    data: str = ""
    media_type: str = ""
    url: str = ""
    detail: str = ""  # low, high or auto, from OpenAI
    cache: Mapping[str, Any] | None = None


class FilePart(Struct):
    """A document: `data` (base64) with its `media_type`, its `url`, or its `id` at the provider."""

    data: str = ""
    media_type: str = ""
    url: str = ""
    id: str = ""
    name: str = ""
    cache: Mapping[str, Any] | None = None


class AudioPart(Struct):
    data: str
    format: str  # wav, mp3


class ThinkingPart(Struct):
    """A model's visible reasoning. Clients must return its `signature` unchanged. `redacted` is encrypted reasoning in
    place of the text.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""


class ToolCall(Struct):
    """A tool call. `arguments` is JSON text, exactly the model's. `signature` is Gemini's thought signature."""

    id: str
    name: str
    arguments: str
    signature: str = ""
    cache: Mapping[str, Any] | None = None
    namespace: str = ""  # group of the tool


class ToolResult(Struct):
    id: str  # id of the call
    parts: list[TextPart | ImagePart | FilePart]
    error: bool = False
    name: str = ""  # the tool's name, if the client gave it
    cache: Mapping[str, Any] | None = None


class RefusalPart(Struct):
    """A model's refusal, in its own words."""

    text: str


Part = TextPart | ImagePart | FilePart | AudioPart | ThinkingPart | ToolCall | ToolResult | RefusalPart


class Message(Struct):
    role: Literal["user", "assistant"]
    parts: list[Part]


# --- the request


class Tool(Struct):
    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)  # JSON Schema of the arguments
    strict: bool | None = None
    cache: Mapping[str, Any] | None = None
    namespace: str = ""  # group of the tool
    about: str = ""  # description of the group, at its first tool


class ToolChoice(Struct):
    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str = ""  # the tool's name, if mode is tool


class OutputFormat(Struct):
    """Requested JSON output. `schema` None: any JSON object."""

    schema: Mapping[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class Prompt(Struct):
    """A client's request to a model. None and empty values stand for absent fields."""

    model: str
    messages: list[Message]
    system: list[TextPart] = []
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    format: OutputFormat | None = None
    max_tokens: int | None = None  # most tokens of one answer, thinking included
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    seed: int | None = None
    choices: int = 1
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: int | None = None  # count of alternatives; 0: only the chosen token
    effort: Effort | None = None
    thinking_budget: int | None = None  # tokens; 0: no thinking
    thinking_adaptive: bool = False  # True: the model decides how much it thinks
    show_thinking: bool | None = None  # True: the client wants to see the thinking
    user: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    service_tier: str = ""
    late: int = 0  # count of last texts in `system` that stood behind the last turn
    images: bool = False  # True: the client asks for images in the answer
    one_call: bool = False  # True: the client reads one function call, in OpenAI's form before tools
    ignored: list[str] = []
    """Names of the client's advisory fields that this form cannot express."""

    @property
    def is_marked(self) -> bool:
        """True when any part has a prompt-cache breakpoint."""
        parts = (part for message in self.messages for part in message.parts)
        return any(getattr(each, "cache", None) for each in (*self.tools, *self.system, *parts))


# --- the answer

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "stop_sequence", "pause"]


class Choice(Struct):
    parts: list[Part]
    finish: FinishReason = "stop"
    stop_sequence: str = ""  # stop sequence that ended the answer, if the provider named it
    logprobs: Any = None  # logprobs in OpenAI chat's form


class Answer(Struct):
    """A complete answer."""

    choices: list[Choice]
    id: str = ""
    model: str = ""
    created: int = 0  # seconds since the epoch; 0: unknown
    usage: Usage | None = None
    service_tier: str = ""
    one_call: bool = False  # see `Prompt.one_call`


# --- a streamed answer, event by event


class Started(Struct):
    """The first event. `usage` has the counts known already: Anthropic reports its input at once."""

    id: str = ""
    model: str = ""
    created: int = 0
    usage: Usage | None = None
    one_call: bool = False  # see `Prompt.one_call`
    proves_late: bool = False  # a signature of the thinking may come behind the text, as a block without text


class Delta(Struct):
    """A piece of one part.

    `block` numbers a choice's parts from 0 in the order of their beginnings; a new number begins a part. `text`
    continues text, the JSON of a tool call's arguments, or a refusal, by the part's `kind`. The first event of a
    `tool_call` has its `id` and `name`. `signature` comes with the last of `thinking`, and at any time for a
    `tool_call`; `redacted` thinking is whole in one event.
    """

    kind: Literal["text", "thinking", "tool_call", "refusal", "image"]  # an image is complete, in base64
    text: str
    block: int
    choice: int = 0
    id: str = ""
    name: str = ""
    signature: str = ""
    redacted: str = ""
    logprobs: Any = None
    namespace: str = ""
    media_type: str = ""  # media type of an image


class Finished(Struct):
    """The end of one choice."""

    reason: FinishReason = "stop"
    choice: int = 0
    stop_sequence: str = ""


class Used(Struct):
    """The usage so far; the last `Used` is final."""

    usage: Usage


class Failed(Struct):
    """The provider's error in mid-stream. No `Ended` follows."""

    message: str
    type: str = "api_error"  # see `Problem.type`
    code: str = ""


class Ended(Struct):
    """The provider's end marker. A stream without it was cut short."""


Event = Started | Delta | Finished | Used | Failed | Ended


class Problem(Struct):
    """A provider's error answer. `type` is OpenAI's: invalid_request_error, authentication_error, permission_error,
    not_found_error, rate_limit_error, insufficient_quota, api_error, overloaded_error.
    """

    message: str
    type: str = "api_error"
    code: str = ""
    param: str | None = None


# --- embeddings


class EmbeddingPrompt(Struct):
    """A request for embeddings. `input` is text, or token ids of OpenAI's tokenizers."""

    model: str
    input: list[str | list[int]]
    dimensions: int | None = None
    encoding: Literal["float", "base64"] = "float"
    purpose: str = ""  # search_document, search_query, classification, clustering, similarity
    user: str = ""
    ignored: list[str] = []


class Embeddings(Struct):
    """Vectors, one for each input, in order. `encoding` is the client's choice."""

    vectors: list[list[float]]
    model: str = ""
    usage: Usage | None = None
    encoding: Literal["float", "base64"] = "float"


# --- forms passed between the two sides of a translation

AnyPrompt: TypeAlias = Any
"""Prompt type of a dialect's family: `Prompt`, or `EmbeddingPrompt` for embeddings. `Any`, because a union would lose
the pairing within a family; each dialect names its type in its own signatures.
"""

AnyAnswer: TypeAlias = Any
"""Answer type of a dialect's family: `Answer`, or `Embeddings`."""
