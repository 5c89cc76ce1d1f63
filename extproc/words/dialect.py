"""A dialect: the JSON of one API, as the rest of the gateway knows it.

Only a dialect knows the names of fields. `Fields` are those names, `Ask` is the meaning of a request, `Conversation`
the dialogue so far, `Text` a view of one piece of its text, `Report` the usage, finish and errors of an answer. A
`Dialect` reads and writes them.
"""

from __future__ import annotations

import re
import sys
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
from extproc.words.objects import Objects
from extproc.words.said import Called, Closed, Part, Piece, loose
from extproc.words.sample import Sample, Thought
from extproc.words.tooling import Result, Tooling, Withheld, Without

ABILITIES = ("tools", "images", "files", "audio", "json_schema", "reasoning")
"""Abilities of models. A request needs one when it would mean something else without the field that asks for it."""

HOSTED = "hosted_tools"
"""The need of a request that offers tools which the provider runs itself. A target may go without them."""

BY_URL = "url"
"""The need of a request with images or files at an address on the web, which the provider has to fetch."""

IMAGE_OUTPUT = "image_output"
"""The need of a request for images in the answer: APIs with `Dialect.images` can serve it."""

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
    """A path that clients call. `pattern` is the path as `Dialect.paths` lists it, `model` the client's word in the
    place of its `{model}`. `alias` is True where the client called another path, see `Dialect.aliases`.
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
"""Placeholder of the model's name in a path of `Dialect.paths`."""
ANY = "{any}"  # placeholder of one segment of a path that the gateway does not read
ID = "{id}"
"""Placeholder of an object's id in a path of `Dialect.calls`."""

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

    @property
    def relied_on(self) -> frozenset[str]:
        """Fields of the top level that the gateway reads. A request must not give one under a similar name, which some
        servers take for the same field.
        """
        named = {self.model} if self.model is not None else set()
        needs = [name for names in self.needs.values() for name in names]
        return frozenset((*named, *self.fixed, *self.output_limits, *needs, *self.spoken, *self.options, *self.also))


CHARACTERS_PER_TOKEN = 4
"""Characters of a token in English prose: for judging whether a request most likely fits, not for upper bounds."""


@dataclass(slots=True, frozen=True)
class Batch:
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
    hosted: tuple[str, ...] = ()  # types of tools that the provider runs itself, and of what they left in the input
    unreadable: str = ""  # the path of input that is not text, and that no guardrail can read
    needs: dict[str, str] = field(default_factory=dict)  # abilities, each with the field that asks for it

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


class Dialect:
    """The base of every dialect. The error shape here is OpenAI's; others override it.

    The methods serve three sides: requests the gateway passes through, clients whose requests are translated, and
    providers that get translated requests. A dialect that no client speaks has no `paths`.
    """

    name: str
    paths: Mapping[str, str] = {}
    """Paths that clients call, each with its gen_ai.operation.name. `{model}` stands for the model's name, of several
    segments if need be: `/v1beta/models/{model}:generateContent`.
    """
    aliases: Mapping[str, str] = {}
    """Further paths for the same, each with the one of `paths` it stands for. The model's name in one of them takes the
    place of the one in the body.
    """
    forms: bool = False
    """Whether requests may be forms (`multipart/form-data`)."""
    unnamed: bool = False
    """Whether its requests name no model: the field of that name, if there is one, is for the gateway alone."""
    wordless: bool = False
    """Whether its answers hold no words of a model, so that guardrails have nothing to read in them."""
    calls: Mapping[tuple[str, str], str] = {}
    """Calls about an object that a provider keeps, by method and path, each with its operation. `{id}` stands for the
    object's id. They have no body.
    """
    call_query: tuple[str, ...] = ()
    """Parameters in the queries of such calls that the provider gets."""
    objects: Objects = Objects()
    """Places of ids of kept objects."""
    fields: Fields
    """The names of its fields, in a dialect that clients speak."""
    family: str = "chat"
    """Dialects of one family can be translated into each other."""
    traces: tuple[bytes, ...] = ()
    """Marks of a translated answer in a conversation, unknown to providers of this API."""
    cache_marks: bool = False
    """True where requests can mark the content that a prompt cache should keep."""
    images: bool = False
    """Whether its answers can hold images. Events of its streams have the limit of whole answers then."""
    image_turns: bool = False
    """Whether the model's own turns can hold images. Elsewhere the user's turn behind them does."""
    stream_type: str = "text/event-stream"
    """Content type of its streamed answers."""
    comments: bool = False
    """Whether its clients skip comments in streams. google-genai drops the event behind one (go-genai#898)."""
    usage_at: Sequence[Sequence[str]] = ()
    """Paths to the usage object of an answer, or of an event, in which a cost can be written; empty: there is none."""
    usage_key: bytes = b'"usage"'
    """The name of usage in an answer, with its quotes."""
    request_id: str = ""
    """Header of answers with the request's id, where its clients look for another one than `x-request-id`."""
    version: str = ""
    """Header of requests that only its clients send."""
    rates: str = ""
    """Prefix of its providers' headers that report rate limits."""
    models_path: str = ""
    """Path of the list of models, where its clients look for another one than `/v1/models`."""
    key_parameter: str = ""
    """Parameter of the query in which its clients may send their key."""
    lacks: frozenset[str] = frozenset()
    """Needs of requests (`Ask.needs`) that this API cannot express: such requests are not translated into it."""
    inputs: Any = None  # `dialects._inputs.Inputs`, where an answer has a part for each input of the request
    cache_key: str = ""  # field by which requests that share a prefix reach the server that has it
    reads: frozenset[str] | None = None  # fields at the top of a streamed event that readers look at; None: all
    asides: frozenset[str] = frozenset()
    """Top-level fields of a request that change no answer, see `cache.key`. A field that is not listed does."""

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        """The meaning of a request. `endpoint` is the path it came to, which matters where the model stands in it.
        Raises Refusal (400) when a field the gateway relies on has the wrong shape.
        """
        raise NotImplementedError

    def spelled(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` with the names of its fields as the gateway reads them, for an API that has several spellings; the
        same object where it had them already. Raises Refusal (400) where two spellings of one field stand in it.
        """
        return body

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:  # noqa: ARG002
        """`body` as a provider gets it for another model, where the body repeats the name that the path has."""
        return body

    def array(self, path: str) -> bool:  # noqa: ARG002
        """True where a client that calls `path`, with its query, takes a stream as one JSON array, and no events."""
        return False

    def thinking(self, body: Mapping[str, Any]) -> int:  # noqa: ARG002
        """`Ask.thinking` of a body that a target has changed. Never raises."""
        return 0

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """The dialogue so far. Takes any body and never raises. Here its texts are all one message."""
        return Conversation(asked=[text.value for text in islice(self.texts(body), _MOST_PIECES)])

    def varies(self, body: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """True for a request whose client wants another answer each time, by its fields. Never raises."""
        return True

    def plain(self, body: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """True where the neutral form of a request, given without `asides`, says all that it says. Never raises."""
        return False

    def prefix(self, body: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[Any]]:  # noqa: ARG002
        """What every request of a conversation begins with: (tools, system prompt), (turns to the user's first)."""
        return (), ()

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        """Every piece of text a client sent, wherever it stands in the body. Here all text but the model's is the
        user's.
        """
        for key, value in body.items():
            if isinstance(value, str):
                if key != self.fields.model:
                    yield Text("user", key, body, key)
            else:
                yield from strings(value, "user", key)

    def tooling(self, body: Mapping[str, Any]) -> Tooling:  # noqa: ARG002
        """The tools of a request, for guardrails. Takes any body and never raises. Here there are none."""
        return Tooling()

    def results(self, body: Mapping[str, Any]) -> Iterator[Result]:  # noqa: ARG002
        """The results of tools in a request. Takes any body and never raises. Here there are none."""
        yield from ()

    def without_tools(self, body: Mapping[str, Any], withheld: Withheld) -> Without:  # noqa: ARG002
        """The request without `withheld` tools. Takes any body and never raises."""
        return {}, []

    def renamed(self, body: Mapping[str, Any], model: str) -> Mapping[str, Any]:  # noqa: ARG002
        """Fields to set where requests inside of the body have to name another model, where the API is `unnamed`."""
        return {}

    def keeps(self, body: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """True when the provider may keep the answer, under an id that `observe` reports."""
        return False

    def usage_request(self, body: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        """The top-level fields that make a streamed answer report its usage; empty when it does so anyway."""
        return {}

    def observe(self, data: bytes, report: Report) -> bool:
        """Read one event (or a whole plain answer) into `report`. True when it carries nothing but usage."""
        raise NotImplementedError

    def observe_edges(self, head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes]) -> None:
        """Read the usage of an event that is too long to be read whole: from its beginning, its end, or `inside` of it,
        where text begins with the value of a key at a level, 1 in the outermost object. Never raises.
        """

    def said(self, event: Any) -> Iterator[Piece | Closed | Called | Part]:
        """The text of one event, or of a whole plain answer, given as its JSON. Takes anything and never raises. Here
        each string is a text of its own.
        """
        yield from loose(event, "answer", QUIET)

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": kind.type, "param": param, "code": kind.code}}

    def model(self, listed: Listed) -> dict[str, Any]:
        """One model, for clients that ask for it.

        Here it is OpenAI's description with further facts that are known. `created` is a number that clients want; the
        settings have no date. Source: https://platform.openai.com/docs/api-reference/models
        """
        found = {"id": listed.name, "object": "model", "created": _CREATED, "owned_by": listed.owner}
        more = {"context_length": listed.context, "pricing": listed.usd_per_million}
        return found | {name: value for name, value in more.items() if value is not None}

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        """The list of models."""
        return {"object": "list", "data": [self.model(one) for one in listed]}

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """A refusal as an event in the middle of a stream that a provider began."""
        return b"data: %b\n\n" % msgspec.json.encode(self.error(kind, message, None))

    @property
    def translates_from(self) -> bool:
        """True when a client's request in this API can become one of another dialect."""
        return type(self).decode_request is not Dialect.decode_request

    @property
    def translates_into(self) -> bool:
        """True when a request of another dialect can become one of this API."""
        return type(self).encode_request is not Dialect.encode_request

    # --- translations of a client's request

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
        """The neutral form of a client's request. Raises Refusal (400), naming the field, when the shape is not the
        API's.
        """
        raise NotImplementedError

    def without_hosted(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
        """`body` without the tools that a provider runs itself and what they left there, and the names of both."""
        return body, ()

    def encode_answer(self, answer: messages.AnyAnswer) -> dict[str, Any]:
        raise NotImplementedError

    def encoder(self) -> Encoder:
        raise NotImplementedError

    def encode_problem(self, status: int, problem: messages.Problem) -> dict[str, Any]:
        """A provider's error as this API would write it."""
        raise NotImplementedError

    # --- translations to a provider

    tool_names: int = 64
    """Most characters of a tool's name. Longer names are shortened, and written out again in the answer."""
    tool_letters: bool = False
    """Whether a tool's name begins with a letter or an underscore."""
    namespaces: bool = False
    """Whether tools can be grouped. Elsewhere a group's name becomes part of its tools' names."""

    def reasons(self, model: str) -> bool:  # noqa: ARG002
        """False for a model that is known to refuse reasoning parameters."""
        return True

    def batch(self, model: str) -> Batch | None:  # noqa: ARG002
        """The limits of one request with several inputs, where the API has some."""
        return None

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002
        """Path of its requests, after the provider's base_url: `/chat/completions`."""
        return next(iter(self.paths)).removeprefix("/v1")

    def encode_request(
        self, prompt: messages.AnyPrompt, destination: Destination
    ) -> tuple[dict[str, Any], Sequence[str]]:
        """The body, and the names of advisory fields that it cannot express."""
        raise NotImplementedError

    def decode_answer(self, body: bytes) -> messages.AnyAnswer:
        """The neutral form of an answer. Raises ValueError when it is not an answer of this API."""
        raise NotImplementedError

    def decoder(self) -> Decoder:
        raise NotImplementedError

    def decode_problem(self, status: int, body: bytes) -> messages.Problem:
        """The content of an error answer, as far as it can be read; never raises."""
        raise NotImplementedError


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
