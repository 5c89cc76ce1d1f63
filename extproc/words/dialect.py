"""A dialect: the JSON of one API, as the rest of the gateway knows it.

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
from extproc.words.messages import Effort
from extproc.words.sample import Sample, Thought

ABILITIES = ("tools", "images", "files", "audio", "json_schema", "reasoning")
"""Abilities of models. A request needs one when it would mean something else without the field that asks for it."""

HOSTED = "hosted_tools"
"""The need of a request that offers tools which the provider runs itself. A target may go without them."""

BY_URL = "url"
"""The need of a request with images or files at an address on the web, which the provider has to fetch."""

IMAGE_OUTPUT = "image_output"
"""The need of a request for images in the answer: APIs with `Able.images` can serve it."""

SAFETY = "safety"
"""The need of a request for content to be blocked by its provider. An operator can `remove` the field at a target."""

NATIVE = frozenset(("state", "thread", HOSTED, "hosted_call"))
"""Needs that only the API of the request itself can serve: such a request is never translated."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}").fullmatch
_MOST_UNSEEN, _LEAST_BASE64, _MOST_PIECES, _CREATED = 8, 256, 64, 1735689600
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]{%d,}" % _LEAST_BASE64)  # a picture or a sound in a body that could not be read


@dataclass(slots=True, frozen=True)
class Listed:
    """A model as lists of models describe it. Unknown facts are None."""

    name: str
    owner: str
    context: int | None = None  # tokens
    max_output_tokens: int | None = None
    usd_per_million: Mapping[str, float] | None = None  # by kind of token


@dataclass(slots=True, frozen=True)
class Endpoint:
    """A path that clients call. `pattern` is the path as `Endpoints.paths` lists it, `model` the client's word in the
    place of its `{model}`. `alias` is True where the client called another path, see `Endpoints.aliases`.
    """

    pattern: str
    operation: str  # gen_ai.operation.name
    model: str = ""
    alias: bool = False
    id: str = ""  # the client's word in the place of its `{id}`
    query: tuple[str, ...] = ()  # parameters of the client's query that the provider gets

    def path(self, model: str) -> str:
        """The path for another model."""
        return self.pattern.replace(PLACE, quote(model, safe=""))


PLACE = "{model}"
"""Placeholder of the model's name in a path of `Endpoints.paths`."""
ANY = "{any}"  # placeholder of one segment of a path that the gateway does not read
ID = "{id}"
"""Placeholder of an object's id in a path of `Endpoints.calls`."""

NO_ENDPOINT = Endpoint("", "")


@dataclass(slots=True, frozen=True, kw_only=True)
class Fields:
    """Names of an API's fields, by their meaning for the gateway: `files` and `opaque` at any depth, the others at the
    top level of a request.
    """

    model: str | None  # field of the model's name; None: the path has the name
    # fields that no target may change: routing, guardrails, budgets and reading the answer rely on them
    fixed: tuple[str, ...]
    output_limits: tuple[str, ...]  # limits of the output, the usual name first
    needs: Mapping[str, tuple[str, ...]]  # fields that can ask for a need, by need (`Ask.needs`)
    spoken: frozenset[str]  # the dialogue and the system prompt; other text is definitions, which models get reworded
    files: frozenset[str]  # base64 of files
    opaque: frozenset[str]  # base64, signatures and the like, which are no text of the prompt as they stand
    options: tuple[str, ...] = ()  # fields that change the price: `budgets.options`
    also: tuple[str, ...] = ()  # further fields that holds, routing or prices read
    inside: frozenset[str] = frozenset()  # fields below all of these that the gateway reads
    data: frozenset[str] = frozenset()  # fields below them whose content has names of the client's own
    signed: Mapping[str, str] = field(default_factory=dict)  # fields of text, with the signature beside that covers it
    # places of further models' names, from the top level on; `*` is every item of a list
    models: tuple[tuple[str, ...], ...] = ()

    @property
    def relied_on(self) -> frozenset[str]:
        """Fields of the top level that the gateway reads. A request must not give one under a similar name, which some
        servers take for the same field.
        """
        named = {self.model} if self.model is not None else set()
        needs = [name for names in self.needs.values() for name in names]
        named |= {place[0] for place in self.models}
        return frozenset((*named, *self.fixed, *self.output_limits, *needs, *self.spoken, *self.options, *self.also))


CHARACTERS_PER_TOKEN = 4
"""Characters of a token in English prose: for judging whether a request most likely fits, not for upper bounds."""


@dataclass(slots=True, frozen=True)
class BatchLimits:
    """The most inputs that one request for embeddings may have, and the most tokens of all of them together, as far as
    they are known.
    """

    inputs: int = sys.maxsize
    tokens: int = sys.maxsize


@dataclass(slots=True)
class Ask:
    """The meaning of a request, read once and checked."""

    model: str
    stream: bool = False
    choices: int = 1
    max_output_tokens: int | None = None  # tokens for one choice; None: the client set no limit
    output_field: str | None = None  # the field that limits the output, None where the operation has none
    usual_output: int | None = None  # the most the API writes without a limit
    free: bool = False  # True: the request uses no tokens
    speaks: bool = False  # True: the answer can be audio
    thinking: int = 0  # tokens of thinking asked for, which the output limit includes
    lasting: bool = False  # True: the provider goes on after the client disconnected
    batch: bool = False  # True: requests that the provider answers later, at its price for batches
    images: int = 0
    image_bytes: int = 0  # bytes of the body inside data URLs
    image_tokens: int = 0  # the most tokens of all images
    image_data: list[str] = field(default_factory=list)  # the strings of the body that are images
    packed_bytes: int = 0  # bytes of the body inside PDFs, other packed files and audio
    inputs: int = 0  # of a batch, where a model reads each by itself
    file_bytes: int = 0  # bytes of the body inside the files of a form
    file_tokens: int = 0  # the most tokens of them
    later: tuple[int, int] = (0, 0)  # tokens of input and output of the requests that an uploaded file holds
    answer_tokens: int = 0  # tokens of an answer that no field limits: pictures, sound, a transcript
    units: dict[str, int] = field(default_factory=dict)  # the most of what is priced beside tokens, see `Kinds`
    longest_bytes: int | None = None  # of the longest of them; a token id counts as CHARACTERS_PER_TOKEN
    inputs_bytes: int = 0  # of all of them
    added_tokens: int = 0  # the most tokens providers add to the prompt for tools and schemas
    unseen: tuple[str, ...] = ()  # fields and types that refer to input outside the body
    unbounded: tuple[str, ...] = ()  # members of `unseen` without a bound on tokens: all but images
    hosted_tokens: int = 0  # held for input that the provider finds itself, or that the request refers to
    # the most billed calls of tools that the provider runs itself, by field of `Kinds`; None: the request sets no limit
    calls: dict[str, int | None] = field(default_factory=dict)
    hosted_calls: int = 0  # held of those, and of calls of a further model, where the request sets no limit
    hosted: tuple[str, ...] = ()  # types of tools that the provider runs itself, and of what they left in the input
    unreadable: str = ""  # the path of input that is not text, and that no guardrail can read
    needs: dict[str, str] = field(default_factory=dict)  # abilities, each with the field that asks for it

    @property
    def most_units(self) -> Mapping[str, int]:
        """The most of what is priced beside tokens, billed calls included, by field of `Kinds`."""
        if not self.calls:
            return self.units
        return self.units | {kind: self.hosted_calls if most is None else most for kind, most in self.calls.items()}

    def add_image(self, data: str, tokens: int) -> None:
        """Count an image of `tokens` at most that the body holds in the string `data`."""
        self.images += 1
        self.image_tokens += tokens
        self.image_bytes += len(data)
        self.image_data.append(data)

    def add_image_elsewhere(self, name: str, tokens: int) -> None:
        """Count an image of `tokens` at most that the body refers to by the field or type `name`."""
        self.images += 1
        self.image_tokens += tokens
        self.unseen = _with(self.unseen, name)

    def add_unseen(self, name: Any, otherwise: str = "") -> None:
        """Note input outside the body. `name` may be the client's word: `otherwise` stands for a strange one."""
        if otherwise and not (isinstance(name, str) and _NAME(name)):
            name = otherwise
        self.unseen = _with(self.unseen, name)
        self.unbounded = _with(self.unbounded, name)

    def add_url(self, url: object, field: str) -> None:
        """Note an image or a file that may be at an address on the web."""
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            self.needs.setdefault(BY_URL, field)

    def packed(self, data: object) -> None:
        """Note base64 whose size says little about its tokens."""
        if isinstance(data, str):
            self.packed_bytes += len(data)

    def add_hosted(self, name: Any, field: str) -> None:
        """Note a tool that the provider runs itself, or what it left in the input. `name` may be the client's word."""
        self.hosted = _with(self.hosted, name if isinstance(name, str) and _NAME(name) else field)
        self.needs.setdefault(HOSTED, field)


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names or len(names) >= _MOST_UNSEEN else (*names, name)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """The dialogue so far, for judging how hard a request is. Each text is in pieces, in their order. Only the ends of
    long lists are read, so the time does not grow with the body.
    """

    asked: Sequence[str]  # the last message of the user that holds text
    turns: int = 0  # messages, or items, in all
    result: Sequence[str] | None = None  # the last message, where it is the result of a tool
    system: Sequence[str] = ()  # the system prompt
    tools: int = 0  # offered to the model
    shaped: bool = False  # True: the answer is to be JSON, or the call of one given tool
    effort: Effort | None = None  # the reasoning effort


@dataclass(slots=True, frozen=True)
class Text:
    """A view of one piece of text in a body: `holder[key]` is the string, `where` a path people can read."""

    role: str
    where: str
    holder: Any
    key: str | int

    @property
    def value(self) -> str:
        return self.holder[self.key]  # type: ignore[no-any-return]


@dataclass(slots=True)
class Report:
    """Usage, finish and errors that an answer reported, gathered event by event."""

    usage: Usage | None = None
    told_usage: Usage | None = None  # counts of the attempt attachment: more than the client's API can express
    usage_refused: bool = False  # the provider's usage was negative, absurd or no number
    id: str = ""  # the provider's, of the answer
    model: str = ""
    finish_reasons: dict[int, str] = field(default_factory=dict)  # choice -> finish reason
    output_bytes: int = 0  # generated text, in bytes of UTF-8
    unread_bytes: int = 0  # those of them that could not be read, and may be no text
    told_at: int | None = None  # `output_bytes` when the provider last reported its usage
    thought: Thought = field(default_factory=Thought)  # traces of thinking
    pictures: int = 0  # images in the answer
    sample: Sample = field(default_factory=Sample, compare=False)  # that text, for counting its tokens
    output_events: int = 0  # events that carried generated text
    options: dict[str, str] = field(default_factory=dict)  # that change the price, as the provider applied them
    error: str = ""  # the provider's error in mid-stream
    units: dict[str, int] = field(default_factory=dict)  # counts of what is priced beside tokens, see `Kinds`
    kept: Sequence[str] = ()  # ids of the objects that the provider keeps
    pending: str = ""  # id of the object whose usage is not known yet, see `words.late`
    memory: Any = None  # the dialect's own, from one event to the next

    def add_text(self, text: str) -> None:
        """Count the generated text that came with one event."""
        if text:
            data = text.encode() if text.isascii() else text.encode(errors="replace")
            self.output_bytes += len(data)
            self.output_events += 1
            self.sample.add(data)

    def add_unread(self, data: bytes) -> None:
        """Count bytes that could not be read, all of them rather than none. Base64 is no text."""
        size = len(data) if len(data) < _LEAST_BASE64 else len(_BASE64.sub(b"", data))
        self.output_bytes += size
        self.unread_bytes += size
        self.output_events += size > 0

    def add_usage(self, usage: Usage | None) -> None:
        """Replace the usage by newer counts of the provider. None: its counts cannot be believed."""
        if usage is None:
            self.usage_refused = True
        else:
            self.usage, self.told_at = usage, self.output_bytes


@dataclass(slots=True, frozen=True)
class Destination:
    """The provider's model, as a dialect needs it to write a translated request."""

    model: str  # the model's name at the provider
    max_output_tokens: int | None = None  # the most tokens it can write
    more: tuple[str, ...] = ()  # differences of the provider's API, in words of the dialect's own


class Decoder(Protocol):
    """Reads a streamed answer of a provider, event by event."""

    def feed(self, data: bytes, name: str) -> Sequence[messages.Event]:
        """The meaning of one framed event: its payload, and its name where the framing has one. Unreadable or unknown
        events give nothing; never raises.
        """
        ...

    def end(self) -> Sequence[messages.Event]:
        """The events that remain when the body ended: `Ended` where the API has no end marker, and the answer was
        whole.
        """
        ...


class Encoder(Protocol):
    """Writes a streamed answer for a client, event by event."""

    def feed(self, event: messages.Event) -> bytes:
        """The bytes of `event` in this API, possibly none. After `Failed` and `Ended` nothing more is fed."""
        ...


def strings(value: Any, role: str, where: str) -> Iterator[Text]:
    """Every string at or below `value`, keys of objects excepted: for parts of an unknown shape."""
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
"""Fields of answers that hold no words of a model in any API."""


# --- tools of a request, for guardrails

_encode = msgspec.json.Encoder().encode
_INSIDE = ("content", "source", "resource")
"""Fields of parts of a result that hold further parts."""

Withheld = Callable[[str], bool]
"""True for the name of a tool that a request must not offer."""
Without = tuple[dict[str, Any], list[str]]
"""The fields of a request that change without some tools, None for those that go; and the names of these tools."""


@dataclass(slots=True)
class Tooling:
    """The tools of a request, and the schema of the answer it asks for."""

    answer: Any = None  # JSON Schema; an empty one for any JSON object
    offered: dict[str, Any] = field(default_factory=dict)  # tools that the client runs: name -> schema of the arguments
    turns: int = 0  # messages of the user
    results: list[str] = field(default_factory=list)  # tools whose results the conversation holds; "": an unknown tool


@dataclass(slots=True)
class Step:
    """One call of a tool since the user's last turn. `tool` is empty for an answer of the model without a call, and
    None for a result whose call stands elsewhere.
    """

    tool: str | None
    arguments: Any = None
    result: Any = None


@dataclass(slots=True)
class Result:
    """The result of a tool in a request, which stands at `holder[key]`. `written(text)` is what stands there with a
    text in its place, and nothing else of the result. None: it cannot be replaced.
    """

    tool: str  # "": an unknown tool
    content: Any
    holder: Any
    key: Any
    written: Callable[[str], Any] | None
    omitted: int = 0  # media beside the content

    def said(self) -> tuple[str, int]:
        """The text of the result, and the number of its parts that are no text."""
        text, omitted = worded(self.content)
        return text, omitted + self.omitted


def worded(content: Any) -> tuple[str, int]:
    """The text of a result: a string, a list of parts, or any JSON; and the number of parts that are no text."""
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
