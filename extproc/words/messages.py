"""The dialect-free conversation that a translation passes through: N + M translations, not N x M.

A client's request becomes a `Prompt`, a provider's answer an `Answer` or, streamed, a sequence of `Event`s. Nothing
here belongs to one API. The client's dialect refuses fields that this form cannot express, or names them in `ignored`.

Roles are `user` and `assistant`; system and developer prompts stand in `system`. The results of tools are parts of a
user message, as they are turns of the caller's. Binary data is base64 text, as in every JSON API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from extproc.words.exchange import Usage

# --- parts of a message


class TextPart(Struct):
    text: str
    cache: Mapping[str, Any] | None = None  # a prompt-cache breakpoint after this part, as Anthropic writes it


class ImagePart(Struct):
    """`data` (base64) with its `media_type`, or the `url` it is at."""

    data: str = ""
    media_type: str = ""
    url: str = ""
    detail: str = ""  # low, high or auto: OpenAI's
    cache: Mapping[str, Any] | None = None


class FilePart(Struct):
    """A document: `data` (base64) with its `media_type`, the `url` it is at, or the provider's own `id` of it."""

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
    """Reasoning that a model showed. Its `signature` must come back unchanged; `redacted` is reasoning the provider
    encrypted, in place of the text.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""


class ToolCall(Struct):
    """`arguments` is JSON text, exactly as the model wrote it. `signature` is Gemini's thought signature."""

    id: str
    name: str
    arguments: str
    signature: str = ""
    cache: Mapping[str, Any] | None = None
    namespace: str = ""  # the group of its tool


class ToolResult(Struct):
    id: str  # the call's id
    parts: list[TextPart | ImagePart | FilePart]
    error: bool = False
    name: str = ""  # the tool's name, where the client gave it
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
    namespace: str = ""  # a group that it belongs to
    about: str = ""  # the description of the group, at the first of its tools


class ToolChoice(Struct):
    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str = ""  # the tool's name, where mode is tool


class OutputFormat(Struct):
    """`schema` None: any JSON object."""

    schema: Mapping[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class Prompt(Struct):
    """A client's request to a model. None and empty mean that the client left the field out."""

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
    logprobs: int | None = None  # alternatives to report, 0: only the chosen one
    effort: Effort | None = None
    thinking_budget: int | None = None  # tokens; 0: no thinking
    thinking_adaptive: bool = False  # the model decides how much it thinks
    show_thinking: bool | None = None  # True: the client wants to see the thinking
    user: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    service_tier: str = ""
    late: int = 0  # texts of the system prompt, the last ones, that stood behind the last turn
    images: bool = False  # the client asks for images in the answer
    one_call: bool = False  # the client reads one call of a function, in the form before tools
    ignored: list[str] = []
    """Advisory fields of the client's that this form cannot carry, by their names there."""

    @property
    def is_marked(self) -> bool:
        """True where a prompt-cache breakpoint stands anywhere."""
        parts = (part for message in self.messages for part in message.parts)
        return any(getattr(each, "cache", None) for each in (*self.tools, *self.system, *parts))


# --- the answer

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "stop_sequence", "pause"]


class Choice(Struct):
    parts: list[Part]
    finish: FinishReason = "stop"
    stop_sequence: str = ""  # the one that ended the answer, where the provider named it
    logprobs: Any = None  # logprobs in the form of OpenAI chat


class Answer(Struct):
    """A whole answer."""

    choices: list[Choice]
    id: str = ""
    model: str = ""
    created: int = 0  # seconds since the epoch, 0: not said
    usage: Usage | None = None
    service_tier: str = ""
    one_call: bool = False  # as in `Prompt`


# --- a streamed answer, event by event


class Started(Struct):
    """The first event. `usage` holds the counts known already: Anthropic reports its input at once."""

    id: str = ""
    model: str = ""
    created: int = 0
    usage: Usage | None = None
    one_call: bool = False  # as in `Prompt`
    proves_late: bool = False  # a proof of the thinking may come behind the text, as a block without text


class Delta(Struct):
    """More of one part. `block` numbers the parts of a choice from 0 in the order they began. A part with a new `block`
    begins with this event. `text` is more of the part's `kind`: text, JSON of a tool call's arguments, a refusal.

    For `tool_call` the event that begins it has its `id` and `name`. `signature` comes with the last of `thinking`, and
    at any time for a `tool_call`; `redacted` thinking is whole in one event.
    """

    kind: Literal["text", "thinking", "tool_call", "refusal", "image"]  # an image is whole, in base64
    text: str
    block: int
    choice: int = 0
    id: str = ""
    name: str = ""
    signature: str = ""
    redacted: str = ""
    logprobs: Any = None
    namespace: str = ""
    media_type: str = ""  # an image's


class Finished(Struct):
    """A choice is complete."""

    reason: FinishReason = "stop"
    choice: int = 0
    stop_sequence: str = ""


class Used(Struct):
    """The count so far; the last one is right."""

    usage: Usage


class Failed(Struct):
    """The provider broke off in mid-stream. No `Ended` follows."""

    message: str
    type: str = "api_error"  # see `Problem.type`
    code: str = ""


class Ended(Struct):
    """The provider marked the end of its stream. A stream without it was cut."""


Event = Started | Delta | Finished | Used | Failed | Ended


class Problem(Struct):
    """A provider's error answer. `type` is one of OpenAI's: invalid_request_error, authentication_error,
    permission_error, not_found_error, rate_limit_error, insufficient_quota, api_error, overloaded_error.
    """

    message: str
    type: str = "api_error"
    code: str = ""
    param: str | None = None


# --- embeddings


class EmbeddingPrompt(Struct):
    """`input` is text, or tokens of OpenAI's tokenizers."""

    model: str
    input: list[str | list[int]]
    dimensions: int | None = None
    encoding: Literal["float", "base64"] = "float"
    purpose: str = ""  # search_document, search_query, classification, clustering, similarity
    user: str = ""
    ignored: list[str] = []


class Embeddings(Struct):
    """One vector for each input, in their order. `encoding` is the one the client asked for."""

    vectors: list[list[float]]
    model: str = ""
    usage: Usage | None = None
    encoding: Literal["float", "base64"] = "float"


# --- forms that the two sides of a translation exchange

AnyPrompt: TypeAlias = Any
"""A `Prompt`, or an `EmbeddingPrompt` in the family of embeddings. Dialects of one family mean the same one, which a
union could not express: each of them names it in its own signatures.
"""

AnyAnswer: TypeAlias = Any
"""An `Answer`, or `Embeddings` in the family of embeddings."""
