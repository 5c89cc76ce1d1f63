"""The protocols of a dialect: `ClientAPI` for clients that speak it, `ProviderAPI` for providers that get translated
requests.

A module is a dialect by defining the names of a protocol. `extproc.dialects._checked` lets mypy compare each with its
protocols. The abilities that only some APIs have are objects, each with defaults for an API without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from extproc.words import messages
from extproc.words.dialect import (
    Ask,
    BatchLimits,
    Conversation,
    Decoder,
    Destination,
    Encoder,
    Endpoint,
    Fields,
    Listed,
    Report,
    Result,
    Step,
    Text,
    Tooling,
    Withheld,
    Without,
)
from extproc.words.errors import Kind
from extproc.words.late import Late
from extproc.words.said import ArgumentPart, Called, Closed, Piece

Body = Mapping[str, Any]
"""The JSON of a request."""


def _never(item: Mapping[str, Any], resolved: bool) -> bool:  # noqa: ARG001
    return False


def _none(id: object) -> bool:  # noqa: ARG001
    return False


class Turns(Protocol):
    """Turns of a conversation, in an API whose requests may go on from an earlier answer. It takes any body, and never
    raises.
    """

    def previous(self, body: Mapping[str, Any]) -> str | None:
        """The id of the answer that a request goes on from."""
        ...

    def references(self, body: Mapping[str, Any]) -> Sequence[str]:
        """The ids of items that a request refers to and does not hold."""
        ...

    def keepable(self, body: Mapping[str, Any]) -> bool:
        """True for a request whose client wants its answer kept, and which refers to nothing else at a provider."""
        ...

    def added(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """The items of the request itself."""
        ...

    def resolved(self, items: Sequence[Any], found: Mapping[str, Any]) -> Sequence[Any]:
        """`items`, with those in `found` in place of references to them."""
        ...

    def written_out(self, earlier: Sequence[Any], added: Sequence[Any], *, goes_on: bool) -> Mapping[str, Any]:
        """The fields that make a request whole, None for one to be removed. `goes_on`: it names an earlier answer."""
        ...

    def answered(self, data: bytes) -> tuple[str, Sequence[Any]] | None:
        """The id and items of an answer that an event ends; None for other events."""
        ...

    def ids(self, items: Sequence[Any]) -> Mapping[str, Any]:
        """Items by their ids."""
        ...

    def deleted(self, id: str) -> Mapping[str, Any]:
        """The answer to the deletion of a response."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Objects:
    """The places of one API. Paths have dots and no indices: `tools.container`. Names of fields that mean an object in
    every API need no path, see `dialects._objects`.
    """

    at: Mapping[str, str] = field(default_factory=dict)  # path in a request -> kind of object, for people
    answers: Mapping[str, str] = field(default_factory=dict)  # path in an event or answer -> kind of object
    marks: tuple[bytes, ...] = ()  # one of them stands in every event with such a path
    clients: frozenset[str] = frozenset()  # paths below which everything is the client's own
    items: str = ""  # the list of a conversation's items, which have ids of their own; empty: there is none
    # True for an item that stands for content which its provider keeps; `resolved`: the request has another item of its
    # id
    refers: Callable[[Mapping[str, Any], bool], bool] = _never
    turns: Turns | None = None  # how conversations go on from answers; None: each request holds the whole
    ours: Callable[[object], bool] = _none  # True for the id of an answer that the gateway translated


@dataclass(slots=True, frozen=True)
class Found:
    """An id in a request or an answer: `holder[key]` is the string."""

    kind: str
    where: str  # the path of its field
    holder: Any
    key: str | int
    refers: bool = True  # False: an echo, beside content that is whole

    @property
    def id(self) -> str:
        return self.holder[self.key]  # type: ignore[no-any-return]


@dataclass(slots=True, frozen=True, kw_only=True)
class Endpoints:
    """The calls by which clients reach an API, and what tells such clients from others."""

    paths: Mapping[str, str] = field(default_factory=dict)
    """Paths, each with its gen_ai.operation.name. `{model}` stands for the model's name, of several segments if need
    be: `/v1beta/models/{model}:generateContent`.
    """
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further paths for the same, each with the one of `paths` it stands for. The model's name in one of them takes the
    place of the one in the body.
    """
    forms: bool = False  # requests may be forms (`multipart/form-data`)
    calls: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Calls about an object that a provider keeps, by method and path, each with its operation. `{id}` stands for the
    object's id. They have no body.
    """
    call_query: tuple[str, ...] = ()  # parameters in the queries of such calls that the provider gets
    version: str = ""  # header of requests that only clients of this API send
    models_path: str = ""  # path of the list of models, where clients look for another one than `/v1/models`
    key_parameter: str = ""  # parameter of the query in which clients may send their key
    array: Callable[[str], bool] = lambda _path: False
    """True where a client that calls a path, with its query, takes a stream as one JSON array, and no events."""


@dataclass(slots=True, frozen=True, kw_only=True)
class AnswerFacts:
    """Facts about the answers that clients of an API get."""

    usage_at: Sequence[Sequence[str]] = ()
    """Paths to the usage object of an answer, or of an event, in which a cost can be written; empty: there is none."""
    usage_key: bytes = b'"usage"'  # the name of usage in an answer, with its quotes
    reads: frozenset[str] | None = None  # fields at the top of a streamed event that readers look at; None: all
    texts_at: Sequence[Sequence[str | int]] = ()
    """Places of a text in a streamed event that continues the text at the same place of the event before."""
    comments: bool = False
    """Whether its clients skip comments in streams. google-genai drops the event behind one (go-genai#898)."""
    wordless: bool = False  # answers hold no words of a model, so that guardrails have nothing to read in them


class Replies(Protocol):
    """The gateway's own answers, in the shape that clients of an API read."""

    request_id: str
    """Header of answers with the request's id, where clients look for another one than `x-request-id`."""

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        """A refusal."""
        ...

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """A refusal as an event in the middle of a stream that a provider began."""
        ...

    def model(self, listed: Listed) -> dict[str, Any]:
        """One model, for clients that ask for it."""
        ...

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        """The list of models."""
        ...


@dataclass(slots=True, frozen=True)
class Tools:
    """Tools in requests, for guardrails. The functions take any body and never raise."""

    tooling: Callable[[Body], Tooling] = lambda _body: Tooling()  # the tools of a request
    results: Callable[[Body], Iterator[Result]] = lambda _body: iter(())  # the results of tools in it
    steps: Callable[[Body], Sequence[Step]] = lambda _body: ()  # what happened since the user's last turn
    without: Callable[[Body, Withheld], Without] = lambda _body, _withheld: ({}, [])  # it without withheld tools


@dataclass(slots=True, frozen=True, kw_only=True)
class Stored:
    """Objects that a provider keeps."""

    objects: Objects = field(default_factory=Objects)  # places of their ids
    keeps: Callable[[Body], bool] = lambda _body: False
    """True when the provider may keep the answer, under an id that `ClientAPI.observe` reports."""
    unnamed: bool = False
    """Whether requests name no model: the field of that name, if there is one, is for the gateway alone."""
    renamed: Callable[[Body, str], Body] = lambda _body, _model: {}
    """Fields to set where requests inside of the body have to name another model, where the API is `unnamed`."""
    late: Late | None = None  # objects whose usage is known later, see `Report.pending`


@dataclass(slots=True, frozen=True, kw_only=True)
class Reuse:
    """The traits of requests by which an answer, or a provider's cache of prompts, can serve again."""

    asides: frozenset[str] = frozenset()
    """Top-level fields of a request that change no answer, see `cache.key`. A field that is not listed does."""
    varies: Callable[[Body], bool] = lambda _body: True
    """True for a request whose client wants another answer each time, by its fields. Never raises."""
    plain: Callable[[Body], bool] = lambda _body: False
    """True where the neutral form of a request, given without `asides`, says all that it says. Never raises."""
    inputs: Any = None  # `dialects._inputs.Inputs`, where an answer has a part for each input of the request
    prefix: Callable[[Body], tuple[Sequence[Any], Sequence[Any]]] = lambda _body: ((), ())
    """The beginning of every request of a conversation: (tools, system prompt), (turns to the user's first)."""
    cache_key: str = ""  # field by which requests that share a prefix reach the server that has it


@dataclass(slots=True, frozen=True, kw_only=True)
class Naming:
    """Names of fields and of models, in an API that has several spellings or the model's name in its path."""

    spelled: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: body
    """A body with the names of its fields as the gateway reads them; the same object where it had them already. Raises
    Refusal (400) where two spellings of one field stand in it.
    """
    for_model: Callable[[dict[str, Any], str], dict[str, Any]] = lambda body, _model: body
    """A body as a provider gets it for another model, where the body repeats the name that the path has."""
    path: Callable[[Destination, bool], str] | None = None
    """Path of requests that pass through, plain or streamed; None: that of `ProviderAPI`, or else the client's."""


def _not_streamed() -> Encoder:
    """The encoder of an API whose answers are not streamed."""
    raise NotImplementedError


@dataclass(slots=True, frozen=True)
class ClientTranslation:
    """Requests that can become those of another API, and the answers to them."""

    decode_request: Callable[[Body], messages.AnyPrompt]
    """The neutral form of a request. Raises Refusal (400), naming the field, when the shape is not the API's."""
    encode_answer: Callable[[messages.AnyAnswer], dict[str, Any]]
    encode_problem: Callable[[int, messages.Problem], dict[str, Any]]
    """A provider's error, of a status, as this API would write it."""
    encoder: Callable[[], Encoder] = _not_streamed
    without_hosted: Callable[[Body], tuple[Body, Sequence[str]]] = lambda body: (body, ())
    """A body without the tools that a provider runs itself and what they left there, and the names of both."""
    traces: tuple[bytes, ...] = ()
    """Marks of a translated answer in a conversation, unknown to providers of this API."""
    frame: Callable[[bytes], tuple[bytes, bool]] | None = None
    """An event of a streamed answer in this API, as it streams them itself; empty when it is none. True for the last
    one. For providers that put the same events into a framing of their own.
    """


@dataclass(slots=True, frozen=True, kw_only=True)
class Offers:
    """The abilities that a client's API may have."""

    tools: Tools = Tools()
    stored: Stored = Stored()
    reuse: Reuse = Reuse()
    naming: Naming = Naming()
    thinking: Callable[[Body], int] = lambda _body: 0
    """`Ask.thinking` of a body that a target has changed. Never raises."""
    usage_request: Callable[[Body], Body] = lambda _body: {}
    """The top-level fields that make a streamed answer report its usage; empty when it does so anyway."""
    encode_count: Callable[[int], dict[str, Any]] | None = None
    """The answer to a request for the count of its tokens, where that is the operation."""


class ClientAPI(Protocol):
    """An API that clients speak: its requests and answers as the gateway reads them where they pass through."""

    name: str
    family: str
    """Dialects of one family can be translated into each other."""
    endpoints: Endpoints
    fields: Fields
    answers: AnswerFacts

    @property
    def replies(self) -> Replies: ...

    @property
    def offers(self) -> Offers: ...

    @property
    def translation(self) -> ClientTranslation | None:
        """None where requests pass through alone."""
        ...

    def read(self, body: Body, endpoint: Endpoint = ..., /) -> Ask:
        """The meaning of a request. `endpoint` is the path it came to, which matters where the model stands in it.
        Raises Refusal (400) when a field the gateway relies on has the wrong shape.
        """
        ...

    def texts(self, body: Body, /) -> Iterator[Text]:
        """Every piece of text a client sent, wherever it stands in the body."""
        ...

    def conversation(self, body: Body, /) -> Conversation:
        """The dialogue so far. Takes any body and never raises."""
        ...

    def smallest(self, model: str, /) -> dict[str, Any]:
        """The body of the smallest request, for people to try a model with."""
        ...

    def observe(self, data: bytes, report: Report, tree: Any = ..., /) -> bool:
        """Read one event (or a whole plain answer) into `report`. `tree` is its JSON, where it was parsed already. True
        when it carries nothing but usage.
        """
        ...

    def observe_edges(self, head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes], /) -> None:
        """Read the usage of an event that is too long to be read whole: from its beginning, its end, or `inside` of it,
        where text begins with the value of a key at a level, 1 in the outermost object. Never raises.
        """
        ...

    def said(self, event: Any, /) -> Iterator[Piece | Closed | Called | ArgumentPart]:
        """The text of one event, or of a whole plain answer, given as its JSON. Takes anything and never raises."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Able:
    """Facts about providers of an API, which decide what can be written for them."""

    lacks: frozenset[str] = frozenset()
    """Needs of requests (`Ask.needs`) that this API cannot express: such requests are not translated into it."""
    stream_type: str = "text/event-stream"  # content type of streamed answers
    reads: frozenset[str] | None = None  # fields at the top of a streamed event that its decoder looks at; None: all
    texts_at: Sequence[Sequence[str | int]] = ()  # see `AnswerFacts.texts_at`
    cache_marks: bool = False  # requests can mark the content that a prompt cache should keep
    images: bool = False
    """Whether its answers can hold images. Events of its streams have the limit of whole answers then."""
    image_turns: bool = False
    """Whether the model's own turns can hold images. Elsewhere the user's turn behind them does."""
    tool_names: int = 64
    """Most characters of a tool's name. Longer names are shortened, and written out again in the answer."""
    tool_letters: bool = False  # a tool's name begins with a letter or an underscore
    namespaces: bool = False
    """Whether tools can be grouped. Elsewhere a group's name becomes part of its tools' names."""
    rates: str = ""  # prefix of headers that report rate limits
    reasons: Callable[[str], bool] = lambda _model: True
    """False for a model that is known to refuse reasoning parameters."""
    batch: Callable[[str], BatchLimits | None] = lambda _model: None
    """The limits of one request with several inputs, for a model; None: the API has none."""


class ProviderAPI(Protocol):
    """An API into which requests are translated."""

    name: str
    family: str
    able: Able

    def path(self, destination: Destination, /, *, stream: bool) -> str:
        """Path of its requests, after the provider's base_url: `/chat/completions`."""
        ...

    def encode_request(
        self, prompt: messages.AnyPrompt, destination: Destination, /
    ) -> tuple[dict[str, Any], Sequence[str]]:
        """The body, and the names of advisory fields that it cannot express."""
        ...

    def decode_answer(self, body: bytes, /) -> messages.AnyAnswer:
        """The neutral form of an answer. Raises ValueError when it is not an answer of this API."""
        ...

    def decode_problem(self, status: int, body: bytes, /) -> messages.Problem:
        """The content of an error answer, as far as it can be read; never raises."""
        ...

    @property
    def decoder(self) -> Callable[[], Decoder] | None:
        """The reader of a streamed answer; None where the API does not stream."""
        ...


def translation_of(client: ClientAPI) -> ClientTranslation:
    """The translation of a client's API, where a request is known to be translated."""
    assert client.translation is not None, client.name
    return client.translation
