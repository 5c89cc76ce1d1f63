"""A dialect: the JSON of one API, in the gateway's terms.

Only a dialect knows the names of fields. `Fields` are those names, `Ask` is the meaning of a request, `Conversation`
the dialogue so far, `Text` a view of one piece of its text, `Report` the usage, finish and errors of an answer. The
functions of a dialect, which read and write them, are in `words.api`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from extproc.words import messages
from extproc.words.exchange import Usage
from extproc.words.facts import Facts
from extproc.words.messages import Effort
from extproc.words.sample import Sample, Thought

ABILITIES = ("tools", "images", "files", "audio", "json_schema", "reasoning")
"""Abilities of models. A request needs an ability if its meaning would change without the field that asks for it."""

HOSTED = "hosted_tools"
"""Need of a request that offers tools of the provider. A target may drop these tools."""

BY_URL = "url"
"""Need of a request with images or files by web address, which the provider must fetch."""

IMAGE_OUTPUT = "image_output"
"""Need of a request for images in the answer; APIs with `Able.images` can serve it."""

SAFETY = "safety"
"""Need of a request that its provider block content. An operator can `remove` the field at a target."""

NATIVE = frozenset(("state", "thread", HOSTED, "hosted_call"))
"""Needs that only the request's own API can serve: such a request is never translated."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}").fullmatch
_MOST_UNSEEN, _LEAST_BASE64, _MOST_PIECES, _CREATED = 8, 256, 64, 1735689600
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]{%d,}" % _LEAST_BASE64)  # image or audio in an unreadable body


@dataclass(slots=True, frozen=True)
class Listed:
    """A model in a list of models. Unknown facts are None."""

    name: str
    owner: str
    context: int | None = None  # tokens
    max_output_tokens: int | None = None
    usd_per_million: Mapping[str, float] | None = None  # USD for a million tokens, by kind of token
    facts: Facts = Facts()  # noqa: RUF009 - immutable
    supports: frozenset[str] | None = None  # abilities


@dataclass(slots=True, frozen=True)
class Endpoint:
    """A path that clients call. `pattern` is its entry in `Endpoints.paths`, `model` the client's value of `{model}`.
    `alias` is True for a client's path of `Endpoints.aliases`.
    """

    pattern: str
    operation: str  # gen_ai.operation.name
    model: str = ""
    alias: bool = False
    id: str = ""  # client's value of `{id}`
    query: tuple[str, ...] = ()  # parameters of the client's query that are forwarded to the provider

    def path(self, model: str) -> str:
        """The path for another model's name."""
        return self.pattern.replace(PLACE, quote(model, safe=""))


PLACE = "{model}"
"""Placeholder of the model's name in a path of `Endpoints.paths`."""
ANY = "{any}"  # placeholder of a path segment that the gateway does not read
ID = "{id}"
"""Placeholder of an object's id in a path of `Endpoints.calls`."""
KEPT = "kept_"
"""Mark of the ids that clients get, behind the beginning of the provider's id: `resp_`, or `batches/` of a name."""

NO_ENDPOINT = Endpoint("", "")


@dataclass(slots=True, frozen=True, kw_only=True)
class Fields:
    """Names of an API's fields, by their meaning for the gateway. `files` and `opaque` stand at any depth, other fields
    at the top level of a request.
    """

    model: str | None  # the model's name; None: the path has it
    # Fields that no target may change: routing, guardrails, budgets and answer readers rely on them.
    fixed: tuple[str, ...]
    output_limits: tuple[str, ...]  # output limits, the usual name first
    needs: Mapping[str, tuple[str, ...]]  # fields that can ask for a need, by need (`Ask.needs`)
    spoken: frozenset[str]  # dialogue and system prompt; other text is definitions, and a model gets them reworded
    files: frozenset[str]  # base64 of files
    opaque: frozenset[str]  # base64, signatures and other strings that are not text of the prompt
    options: tuple[str, ...] = ()  # fields that change the price: `budgets.options`
    also: tuple[str, ...] = ()  # further fields that reservations, routing or prices read
    inside: frozenset[str] = frozenset()  # inner fields of all these that the gateway reads
    data: frozenset[str] = frozenset()  # fields whose content has the client's own names
    # Text fields, each with the field of the signature that covers it.
    signed: Mapping[str, str] = field(default_factory=dict)
    # Paths of further models' names from the top level; `*` is every item of a list.
    models: tuple[tuple[str, ...], ...] = ()

    @property
    def relied_on(self) -> frozenset[str]:
        """Top-level fields that the gateway reads. A request must not give one under a similar name, because some
        servers accept the similar name for it.
        """
        named = {self.model} if self.model is not None else set()
        needs = [name for names in self.needs.values() for name in names]
        named |= {place[0] for place in self.models}
        return frozenset((*named, *self.fixed, *self.output_limits, *needs, *self.spoken, *self.options, *self.also))


CHARACTERS_PER_TOKEN = 4
"""Characters of a token in English prose: an estimate of whether a request fits, not an upper bound."""


@dataclass(slots=True, frozen=True)
class BatchLimits:
    """Known limits of a request for embeddings: most inputs, and most tokens over all inputs."""

    inputs: int = sys.maxsize
    tokens: int = sys.maxsize


@dataclass(slots=True)
class Ask:
    """The meaning of a request, read once and checked."""

    model: str
    stream: bool = False
    choices: int = 1
    max_output_tokens: int | None = None  # tokens for one choice; None: no limit from the client
    output_field: str | None = None  # field that limits the output; None: the operation has none
    usual_output: int | None = None  # most tokens that the API writes without a limit
    free: bool = False  # True: the request uses no tokens
    speaks: bool = False  # True: the answer can be audio
    thinking: int = 0  # tokens of requested thinking, part of the output limit
    lasting: bool = False  # True: the provider continues after the client disconnected
    batch: bool = False  # True: the provider answers these requests later, at its price for batches
    requests: int = 1  # requests in the body, each with its own hosted tools and input by reference
    images: int = 0
    image_bytes: int = 0  # bytes of data URLs in the body
    image_tokens: int = 0  # most tokens of all images
    image_data: list[str] = field(default_factory=list)  # strings of the body that are images
    packed_bytes: int = 0  # bytes of PDFs, other packed files and audio in the body
    inputs: int = 0  # inputs of a batch, where a model reads each input separately
    file_bytes: int = 0  # bytes of a form's files
    file_tokens: int = 0  # most tokens of a form's files
    later: tuple[int, int] = (0, 0)  # tokens of input and output of the requests in an uploaded file
    answer_tokens: int = 0  # tokens of an answer without a limiting field: images, audio, a transcript
    units: dict[str, int] = field(default_factory=dict)  # most units of each kind priced beside tokens, see `Kinds`
    unit_options: dict[str, str] = field(default_factory=dict)  # options that change the price of `units`, by name
    longest_bytes: int | None = None  # bytes of the longest of `inputs`; a token id counts as CHARACTERS_PER_TOKEN
    inputs_bytes: int = 0  # bytes of all `inputs`
    added_tokens: int = 0  # most tokens that providers add to the prompt for tools and schemas
    unseen: tuple[str, ...] = ()  # fields and types that refer to input outside of the body
    unbounded: tuple[str, ...] = ()  # members of `unseen` without a bound on tokens: all except images
    hosted_tokens: int = 0  # tokens held for input found by the provider, or referred to by the request
    # Most billed calls of hosted tools, by field of `Kinds`; None: the request sets no limit.
    calls: dict[str, int | None] = field(default_factory=dict)
    hosted_calls: int = 0  # calls held of hosted tools or a further model without a limit in the request
    hosted: tuple[str, ...] = ()  # types of hosted tools, and of their output in the input
    unreadable: str = ""  # path of input that is not text and that no guardrail can read
    needs: dict[str, str] = field(default_factory=dict)  # field that asks for an ability, by ability

    @property
    def most_units(self) -> Mapping[str, int]:
        """Most units priced beside tokens, including billed calls, by field of `Kinds`."""
        if not self.calls:
            return self.units
        return self.units | {kind: self.hosted_calls if most is None else most for kind, most in self.calls.items()}

    def add_image(self, data: str, tokens: int) -> None:
        """Count an image that the body holds in the string `data`; `tokens` is the most it takes."""
        self.images += 1
        self.image_tokens += tokens
        self.image_bytes += len(data)
        self.image_data.append(data)

    def add_image_elsewhere(self, name: str, tokens: int) -> None:
        """Count an image outside of the body, referred to by the field or type `name`; `tokens` is the most it
        takes.
        """
        self.images += 1
        self.image_tokens += tokens
        self.unseen = with_name(self.unseen, name)

    def add_unseen(self, name: Any, otherwise: str = "") -> None:
        """Note input outside of the body. `name` may be the client's word; `otherwise` replaces an irregular one."""
        if otherwise and not (isinstance(name, str) and _NAME(name)):
            name = otherwise
        self.unseen = with_name(self.unseen, name)
        self.unbounded = with_name(self.unbounded, name)

    def add_url(self, url: object, field: str) -> None:
        """Note an image or a file if `url` is a web address."""
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            self.needs.setdefault(BY_URL, field)

    def packed(self, data: object) -> None:
        """Note base64 whose size tells little about its tokens."""
        if isinstance(data, str):
            self.packed_bytes += len(data)

    def add_hosted(self, name: Any, field: str) -> None:
        """Note a hosted tool, or its output in the input. `name` may be the client's word."""
        self.hosted = with_name(self.hosted, name if isinstance(name, str) and _NAME(name) else field)
        self.needs.setdefault(HOSTED, field)


def with_name(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    """`names` with a further one, up to the most that a request can have: clients choose some of them."""
    return names if name in names or len(names) >= _MOST_UNSEEN else (*names, name)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """The dialogue so far, to judge a request's complexity. Each text is a list of its pieces. Only the ends of long
    lists are read, so the time does not grow with the body.
    """

    asked: Sequence[str]  # the user's last message with text
    turns: int = 0  # count of messages, or items
    result: Sequence[str] | None = None  # last message, if it is a tool's result
    system: Sequence[str] = ()  # the system prompt
    tools: int = 0  # count of tools offered to the model
    shaped: bool = False  # True: the answer must be JSON, or the call of one given tool
    effort: Effort | None = None  # the reasoning effort


@dataclass(slots=True, frozen=True)
class Text:
    """One text of a body: the string `holder[key]`, and its path `where`, for people."""

    role: str
    where: str
    holder: Any
    key: str | int

    @property
    def value(self) -> str:
        return self.holder[self.key]  # type: ignore[no-any-return]


@dataclass(slots=True)
class Report:
    """An answer's reported usage, finish and errors, gathered event by event."""

    usage: Usage | None = None
    told_usage: Usage | None = None  # usage from the attempt attachment: more than the client's API can express
    usage_refused: bool = False  # the provider's usage was negative, absurd or no number
    id: str = ""  # provider's id of the answer
    model: str = ""
    finish_reasons: dict[int, str] = field(default_factory=dict)  # choice -> finish reason
    output_bytes: int = 0  # bytes of generated text in UTF-8
    unread_bytes: int = 0  # bytes of `output_bytes` that could not be read, and may not be text
    told_at: int | None = None  # `output_bytes` when the provider last reported its usage
    thought: Thought = field(default_factory=Thought)  # traces of thinking
    pictures: int = 0  # images in the answer
    sample: Sample = field(default_factory=Sample, compare=False)  # sample of the generated text, to count its tokens
    output_events: int = 0  # count of events with generated text
    # Options that change the price, with the values that the provider applied.
    options: dict[str, str] = field(default_factory=dict)
    error: str = ""  # provider's error in mid-stream
    units: dict[str, int] = field(default_factory=dict)  # counts of units priced beside tokens, see `Kinds`
    kept: Sequence[str] = ()  # ids of the objects that the provider keeps
    pending: str = ""  # id of an object whose usage is not known yet, see `words.late`
    memory: Any = None  # state of the dialect's reader between events

    def add_text(self, text: str) -> None:
        """Count generated text of one event."""
        if text:
            data = text.encode() if text.isascii() else text.encode(errors="replace")
            self.output_bytes += len(data)
            self.output_events += 1
            self.sample.add(data)

    def add_unread(self, data: bytes) -> None:
        """Count bytes that could not be read as output, except for base64, which is no text."""
        size = len(data) if len(data) < _LEAST_BASE64 else len(_BASE64.sub(b"", data))
        self.output_bytes += size
        self.unread_bytes += size
        self.output_events += size > 0

    def add_usage(self, usage: Usage | None) -> None:
        """Replace the usage by newer counts of the provider; None stands for counts that cannot be right."""
        if usage is None:
            self.usage_refused = True
        else:
            self.usage, self.told_at = usage, self.output_bytes


@dataclass(slots=True, frozen=True)
class Destination:
    """The target model, for a dialect that writes a translated request."""

    model: str  # the model's name at the provider
    max_output_tokens: int | None = None  # most tokens that the model can write
    more: tuple[str, ...] = ()  # differences of the provider's API, in the dialect's own words


class Decoder(Protocol):
    """Reads a streamed answer of a provider, event by event."""

    def feed(self, data: bytes, name: str) -> Sequence[messages.Event]:
        """The neutral events of one framed event, given by payload, and by name in a framing with names. Empty for an
        unreadable or unknown event; never raises.
        """
        ...

    def end(self) -> Sequence[messages.Event]:
        """Remaining events at the end of the body. Includes `Ended` for an API without an end marker, if the answer was
        complete.
        """
        ...


class Encoder(Protocol):
    """Writes a streamed answer for a client, event by event."""

    def feed(self, event: messages.Event) -> bytes:
        """Bytes of `event` in this API, possibly none. `Failed` and `Ended` are last."""
        ...


def strings(value: Any, role: str, where: str) -> Iterator[Text]:
    """Strings at or below `value`, without keys of objects: for parts of an unknown shape."""
    stack: list[tuple[Any, str]] = [(value, where)]
    while stack:
        node, path = stack.pop()
        items: Sequence[tuple[Any, Any]]
        if isinstance(node, dict):
            items = list(node.items())
        elif isinstance(node, list):
            items = list(enumerate(node))
        else:
            continue
        for key, item in items:
            at = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
            if isinstance(item, str):
                yield Text(role, at, node, key)
            elif item:
                stack.append((item, at))


QUIET = frozenset(("id", "object", "model", "type"))
"""Fields of answers that never hold a model's words, in any API."""


# --- tools of a request, for guardrails

_encode = msgspec.json.Encoder().encode
_INSIDE = ("content", "source", "resource")
"""Fields of a result's parts that hold further parts."""

Withheld = Callable[[str], bool]
"""True for the name of a tool that a request must not offer."""
Without = tuple[dict[str, Any], list[str]]
"""Fields of a request that change without some tools, None to remove a field; and the names of these tools."""


@dataclass(slots=True)
class Tooling:
    """Tools of a request, and the requested schema of the answer."""

    answer: Any = None  # JSON Schema; an empty one accepts any JSON object
    offered: dict[str, Any] = field(default_factory=dict)  # tools that the client runs: name -> schema of the arguments
    turns: int = 0  # count of the user's messages
    # Names of tools with a result in the conversation; "": an unknown tool.
    results: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Step:
    """One call of a tool since the user's last turn. `tool` is empty for a model's answer without a call, and None for
    a result without its call.
    """

    tool: str | None
    arguments: Any = None
    result: Any = None


@dataclass(slots=True)
class Result:
    """A tool's result in a request, at `holder[key]`. `written(text)` is the value to put there, with `text` as the
    result's whole content; None: the result cannot be replaced.
    """

    tool: str  # "": an unknown tool
    content: Any
    holder: Any
    key: Any
    written: Callable[[str], Any] | None
    omitted: int = 0  # count of media beside the content

    def said(self) -> tuple[str, int]:
        """The text of the result, and the number of its parts that are not text."""
        text, omitted = worded(self.content)
        return text, omitted + self.omitted


def worded(content: Any) -> tuple[str, int]:
    """The text of a result (a string, a list of parts, or any JSON), and the number of parts that are not text."""
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        return "" if content is None else _encode(content).decode(errors="replace"), 0
    found: list[str] = []
    omitted = 0
    waiting = content[::-1]
    while waiting:
        part = waiting.pop()
        inner = next((part[name] for name in _INSIDE if name in part), None) if isinstance(part, dict) else None
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, list):
            waiting += inner[::-1]
        elif isinstance(inner, dict):
            waiting.append(inner)
        else:
            omitted += 1
    return "\n".join(found), omitted
