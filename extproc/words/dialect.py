"""A dialect: the JSON of one API, as the rest of the gateway knows it.

Only a dialect knows the names of fields. `Fields` are those names, `Ask` is what a request asks for, `Conversation` the
dialogue so far, `Text` a view of one piece of its text, `Report` what an answer said of itself. A `Dialect` reads and
writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from extproc.words import messages
from extproc.words.errors import Kind
from extproc.words.exchange import Usage
from extproc.words.messages import Effort

ABILITIES = ("tools", "images", "files", "audio", "json_schema", "reasoning")
"""What a model may be able to do or not. A request needs one when leaving it out would change what is asked."""


NATIVE = frozenset(("state", "hosted_tools"))
"""What a request may need and only the API it was written for has: no translation at all."""


_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}").fullmatch


_MOST_UNSEEN = 8
_MOST_PIECES = 64


@dataclass(slots=True, frozen=True)
class Endpoint:
    """A path that clients call. `pattern` is the path as `Dialect.paths` lists it, `model` what a client wrote in the
    place of its `{model}`.
    """

    pattern: str
    operation: str  # gen_ai.operation.name
    model: str = ""

    def path(self, model: str) -> str:
        """The path for another model."""
        return self.pattern.replace(PLACE, quote(model, safe=""))


PLACE = "{model}"
"""What stands for the model's name in a path of `Dialect.paths`."""

NO_ENDPOINT = Endpoint("", "")


@dataclass(slots=True, frozen=True, kw_only=True)
class Fields:
    """Names of an API's fields, by what they are to the gateway: `files` and `opaque` at any depth, the others at the
    top level of a request.
    """

    model: str | None  # names the model; None where the path does
    fixed: tuple[str, ...]  # no target may change it: routing, guardrails, budgets, reading the answer rely on it
    output_limits: tuple[str, ...]  # limit the output, the usual name first
    needs: Mapping[str, tuple[str, ...]]  # by need (`Ask.needs`): those that can ask for it
    spoken: frozenset[str]  # the dialogue and the system prompt; other text is definitions, which models get reworded
    files: frozenset[str]  # base64 of files
    opaque: frozenset[str]  # base64, signatures and the like, which are no text of the prompt as they stand
    also: tuple[str, ...] = ()  # further fields that holds, routing or prices read

    @property
    def relied_on(self) -> frozenset[str]:
        """Fields of the top level that the gateway reads. A request must not give one under a similar name, which some
        servers take for the same field.
        """
        named = {self.model} if self.model is not None else set()
        needs = [name for names in self.needs.values() for name in names]
        return frozenset((*named, *self.fixed, *self.output_limits, *needs, *self.spoken, *self.also))


@dataclass(slots=True)
class Ask:
    """What a request asks for, read once and checked."""

    model: str
    stream: bool = False
    choices: int = 1
    max_output_tokens: int | None = None  # for one choice; None: the client set no limit
    output_field: str | None = None  # the field that limits the output, None where the operation has none
    usual_output: int | None = None  # what the API writes at most where nobody sets a limit
    free: bool = False  # it uses no tokens
    thinking: int = 0  # tokens of thinking asked for, which the output limit includes
    lasting: bool = False  # the provider goes on with it when nobody listens any more
    images: int = 0
    image_bytes: int = 0  # of the body, inside data URLs
    image_tokens: int = 0  # what they can come to
    image_data: list[str] = field(default_factory=list)  # the strings of the body that are images
    added_tokens: int = 0  # what providers can write into the prompt themselves, about tools and schemas
    unseen: tuple[str, ...] = ()  # fields and types that name input which the body does not hold
    unbounded: tuple[str, ...] = ()  # those of them that can be any number of tokens, so all but images
    unreadable: str = ""  # the path of input that is no text, so that no guardrail can read it
    needs: dict[str, str] = field(default_factory=dict)  # abilities, each with the field that asks for it

    def add_image(self, data: str, tokens: int) -> None:
        """Count an image of `tokens` at most that the body holds in the string `data`."""
        self.images += 1
        self.image_tokens += tokens
        self.image_bytes += len(data)
        self.image_data.append(data)

    def add_image_elsewhere(self, name: str, tokens: int) -> None:
        """Count an image of `tokens` at most that the body only names, in the field or type `name`."""
        self.images += 1
        self.image_tokens += tokens
        self.unseen = _with(self.unseen, name)

    def add_unseen(self, name: Any, otherwise: str = "") -> None:
        """Note what the body only names. `name` may be the client's word: then `otherwise` stands for a strange one."""
        if otherwise and not (isinstance(name, str) and _NAME(name)):
            name = otherwise
        self.unseen = _with(self.unseen, name)
        self.unbounded = _with(self.unbounded, name)


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names or len(names) >= _MOST_UNSEEN else (*names, name)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """What was said so far, for judging how hard a request is. Each text is in pieces, in their order; of long lists
    only the ends are read, so reading it takes the same time whatever the size of the body.
    """

    asked: Sequence[str]  # the last message of the user that holds text
    turns: int = 0  # messages, or items, in all
    result: Sequence[str] | None = None  # the last message, where it is the result of a tool
    system: Sequence[str] = ()  # the system prompt
    tools: int = 0  # offered to the model
    shaped: bool = False  # the answer is to be JSON, or the call of one given tool
    effort: Effort | None = None  # of reasoning


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
    """What an answer said of itself, gathered event by event."""

    usage: Usage | None = None
    told_usage: Usage | None = None  # by the attempt attachment: more than the client's API can say
    usage_refused: bool = False  # the provider's usage was negative, absurd or no number
    model: str = ""
    finish_reasons: dict[int, str] = field(default_factory=dict)  # by choice
    output_bytes: int = 0  # of generated text, UTF-8
    output_events: int = 0  # that carried generated text
    error: str = ""  # the provider's error in mid-stream
    memory: Any = None  # of the dialect's, from one event to the next

    def add_text(self, size: int) -> None:
        """Count `size` bytes of generated text that came with one event."""
        self.output_bytes += size
        self.output_events += size > 0

    def add_usage(self, usage: Usage | None) -> None:
        """Take what the provider tells in place of what it told; None: it told what cannot be believed."""
        if usage is None:
            self.usage_refused = True
        else:
            self.usage = usage


@dataclass(slots=True, frozen=True)
class Destination:
    """What a provider's dialect has to know of where a translated request goes."""

    model: str  # its name at the provider
    max_output_tokens: int | None = None  # the most it can write
    more: tuple[str, ...] = ()  # what it knows beyond its API, or otherwise, by words of the dialect's own


class Decoder(Protocol):
    """Reads a streamed answer of a provider, event by event."""

    def feed(self, data: bytes, name: str) -> Sequence[messages.Event]:
        """What one framed event says: its payload, and its name where the framing has one. Unreadable or unknown
        events say nothing; never raises.
        """
        ...

    def end(self) -> Sequence[messages.Event]:
        """What is left when the body ended: `Ended` where the API has no end marker and the answer was whole."""
        ...


class Encoder(Protocol):
    """Writes a streamed answer for a client, event by event."""

    def feed(self, event: messages.Event) -> bytes:
        """The bytes that say it, possibly none. After `Failed` and `Ended` nothing more is fed."""
        ...


class Dialect:
    """The base of every dialect. The error shape here is OpenAI's; others override it.

    Three sides: what the gateway needs of a request it lets pass; what a translation needs when a client speaks it; and
    what a translation needs when a provider does. A dialect that no client speaks has no `paths`.
    """

    name: str
    paths: Mapping[str, str] = {}
    """Paths that clients call, each with its gen_ai.operation.name. `{model}` stands for the model's name, of several
    segments if need be: `/v1beta/models/{model}:generateContent`.
    """
    fields: Fields
    """Of a dialect that clients speak."""
    family: str = "chat"
    """Dialects of one family can be translated into each other."""
    traces: tuple[bytes, ...] = ()
    """What a translated answer leaves in a conversation, and providers of this API do not know."""
    cache_marks: bool = False
    """Whether requests say what a prompt cache should keep."""
    stream_type: str = "text/event-stream"
    """Content type of its streamed answers."""
    usage_at: Sequence[Sequence[str]] = ()
    """Where an answer, or an event of one, has the usage object that a cost can be written into; empty: nowhere."""
    lacks: frozenset[str] = frozenset()
    """What requests may need (`Ask.needs`) and this API has no words for: no translation into it."""

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        """What the request asks for. `endpoint` is the path it came to, which matters where the model stands in it.
        Raises Refusal (400) when a field the gateway relies on has the wrong shape.
        """
        raise NotImplementedError

    def thinking(self, body: Mapping[str, Any]) -> int:  # noqa: ARG002
        """`Ask.thinking` of a body that a target has changed. Never raises."""
        return 0

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """What was said so far. Takes any body and never raises. Here its texts are all one message."""
        return Conversation(asked=[text.value for text in islice(self.texts(body), _MOST_PIECES)])

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        """Every piece of text a client sent, wherever it stands in the body. Here all but the model is the user's."""
        for key, value in body.items():
            if isinstance(value, str):
                if key != self.fields.model:
                    yield Text("user", key, body, key)
            else:
                yield from strings(value, "user", key)

    def usage_request(self, body: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        """The top-level fields to set so that a streamed answer reports its usage; empty when it will anyway."""
        return {}

    def observe(self, data: bytes, report: Report) -> bool:
        """Read one event (or a whole plain answer) into `report`. True when it carries nothing but usage."""
        raise NotImplementedError

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": kind.type, "param": param, "code": kind.code}}

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """A refusal in the middle of a stream that somebody else began, as an event of it."""
        return b"data: %b\n\n" % msgspec.json.encode(self.error(kind, message, None))

    @property
    def translates_from(self) -> bool:
        """Whether a client's request in it can become one of another dialect."""
        return type(self).decode_request is not Dialect.decode_request

    @property
    def translates_into(self) -> bool:
        """Whether a request of another dialect can become one in it."""
        return type(self).encode_request is not Dialect.encode_request

    # --- a client speaks it

    def smallest(self, model: str) -> dict[str, Any]:
        """The body of the smallest request, for people to try a model with."""
        raise NotImplementedError

    def encode_count(self, tokens: int) -> dict[str, Any]:
        """The answer to a request for the count of its tokens, where that is the operation."""
        raise NotImplementedError

    def frame(self, data: bytes) -> tuple[bytes, bool]:
        """An event of a streamed answer in this API, as it streams them itself; empty when it is none. True for the
        last one. For providers that put the same events into a framing of their own.
        """
        raise NotImplementedError

    def decode_request(self, body: Mapping[str, Any]) -> messages.AnyPrompt:
        """What a client asks for. Raises Refusal (400), naming the field, when the shape is not the API's."""
        raise NotImplementedError

    def encode_answer(self, answer: messages.AnyAnswer) -> dict[str, Any]:
        raise NotImplementedError

    def encoder(self) -> Encoder:
        raise NotImplementedError

    def encode_problem(self, status: int, problem: messages.Problem) -> dict[str, Any]:
        """A provider's error as this API would write it."""
        raise NotImplementedError

    # --- a provider speaks it

    def reasons(self, model: str) -> bool:  # noqa: ARG002
        """False for a model that is known to refuse the wish for thinking."""
        return True

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002
        """Where its request goes, after the provider's base_url: `/chat/completions`."""
        return next(iter(self.paths)).removeprefix("/v1")

    def encode_request(
        self, prompt: messages.AnyPrompt, destination: Destination
    ) -> tuple[dict[str, Any], Sequence[str]]:
        """The body, and the names of advisory fields that it cannot say."""
        raise NotImplementedError

    def decode_answer(self, body: bytes) -> messages.AnyAnswer:
        """Raises ValueError when it is not an answer of this API."""
        raise NotImplementedError

    def decoder(self) -> Decoder:
        raise NotImplementedError

    def decode_problem(self, status: int, body: bytes) -> messages.Problem:
        """What an error answer says, as far as it can be read; never raises."""
        raise NotImplementedError


def strings(value: Any, role: str, where: str) -> Iterator[Text]:
    """Every string at or below `value`, keys of objects excepted: for parts whose shape is not ours to know."""
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
