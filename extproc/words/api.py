"""The protocols of a dialect: `ClientAPI` for clients that speak it, `ProviderAPI` for providers that get translated
requests.

A module that defines the names of a protocol is a dialect. `extproc.dialects._checked` lets mypy compare each module
with its protocols. Abilities of only some APIs are objects; their defaults fit an API without the ability.
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
"""JSON of a request."""


def _never(item: Mapping[str, Any], resolved: bool) -> bool:  # noqa: ARG001
    return False


def _none(id: object) -> bool:  # noqa: ARG001
    return False


class Turns(Protocol):
    """Turns of a conversation, in an API whose requests may continue an earlier answer. Its methods accept any body and
    never raise.
    """

    def previous(self, body: Mapping[str, Any]) -> str | None:
        """Id of the answer that the request continues."""
        ...

    def references(self, body: Mapping[str, Any]) -> Sequence[str]:
        """Ids of items that the request refers to without their content."""
        ...

    def keepable(self, body: Mapping[str, Any]) -> bool:
        """True for a request whose client wants the answer kept, and which refers to no other object of a provider."""
        ...

    def added(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Items in the request itself."""
        ...

    def resolved(self, items: Sequence[Any], found: Mapping[str, Any]) -> Sequence[Any]:
        """`items`, with references replaced by the items in `found`."""
        ...

    def written_out(self, earlier: Sequence[Any], added: Sequence[Any], *, goes_on: bool) -> Mapping[str, Any]:
        """Fields that make the request complete; None removes a field. `goes_on`: the request names an earlier
        answer.
        """
        ...

    def answered(self, data: bytes) -> tuple[str, Sequence[Any]] | None:
        """Id and items of the answer that this event ends; None for another event."""
        ...

    def ids(self, items: Sequence[Any]) -> Mapping[str, Any]:
        """Items by id."""
        ...

    def deleted(self, id: str) -> Mapping[str, Any]:
        """The response to the deletion of an answer."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Objects:
    """Paths of object ids in one API. Paths have dots and no indices: `tools.container`. Field names of objects in
    every API need no path, see `dialects._objects`.
    """

    at: Mapping[str, str] = field(default_factory=dict)  # path in a request -> kind of object, in words for people
    answers: Mapping[str, str] = field(default_factory=dict)  # path in an event or answer -> kind of object
    marks: tuple[bytes, ...] = ()  # every event with a path of `answers` contains one of these
    clients: frozenset[str] = frozenset()  # paths whose content is the client's own
    items: str = ""  # list of the conversation's items, which have ids; empty: the API has none
    # True for an item that stands for content kept by its provider. `resolved`: the request has another item with its
    # id.
    refers: Callable[[Mapping[str, Any], bool], bool] = _never
    turns: Turns | None = None  # continuation of answers; None: each request holds its whole conversation
    ours: Callable[[object], bool] = _none  # True for the id of an answer that the gateway translated
    address: str = ""  # text before an id where the API wants an address in its place; empty: ids stand alone


@dataclass(slots=True, frozen=True)
class Found:
    """An id in a request or an answer: `holder[key]` is the string."""

    kind: str
    where: str  # path of the id's field
    holder: Any
    key: str | int
    refers: bool = True  # False: an echo beside the complete content

    @property
    def id(self) -> str:
        return self.holder[self.key]  # type: ignore[no-any-return]


@dataclass(slots=True, frozen=True, kw_only=True)
class Endpoints:
    """Paths and calls of an API, and the marks of its clients."""

    paths: Mapping[str, str] = field(default_factory=dict)
    """gen_ai.operation.name by path. `{model}` stands for the model's name, which may have several segments:
    `/v1beta/models/{model}:generateContent`.
    """
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Alternative paths, each with the one of `paths` that it stands for. A model's name in the path replaces the
    body's.
    """
    forms: bool = False  # True: requests may be forms (`multipart/form-data`)
    calls: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Operation by method and path of calls about an object that a provider keeps. `{id}` stands for the object's id.
    These calls have no body.
    """
    names: bool = False  # True: ids of objects are names with their collection, `batches/…`, as their paths have them
    call_query: tuple[str, ...] = ()  # query parameters of `calls` that are forwarded to the provider
    version: str = ""  # request header that only clients of this API send
    marked: bool = False  # True: another API has the same paths, and requests with `version` are this API's
    models_path: str = ""  # path of the list of models, for clients that do not use `/v1/models`
    key_parameter: str = ""  # query parameter in which clients may send their key
    array: Callable[[str], bool] = lambda _path: False
    """True when the client's path, with its query, asks for a stream as one JSON array in place of events."""


@dataclass(slots=True, frozen=True, kw_only=True)
class AnswerFacts:
    """Facts about answers to clients of an API."""

    usage_at: Sequence[Sequence[str]] = ()
    """Paths to the usage object of an answer or event, where a cost can be added; empty: the API has no such object."""
    usage_key: bytes = b'"usage"'  # key of usage in an answer, with its quotes
    reads: frozenset[str] | None = None  # top-level fields of a streamed event that readers use; None: all
    texts_at: Sequence[Sequence[str | int]] = ()
    """Paths of text in a streamed event that continues the same path's text of the event before."""
    comments: bool = False
    """True when clients skip comments in streams. google-genai drops the event behind a comment (go-genai#898)."""
    wordless: bool = False  # True: answers have no words of a model, so guardrails have no text to read


class Replies(Protocol):
    """The gateway's own answers, in the shape that clients of an API read."""

    request_id: str
    """Response header for the request's id, for clients that do not use `x-request-id`."""

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        """The body of a refusal."""
        ...

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """A refusal as an event, in the middle of a stream that a provider began."""
        ...

    def model(self, listed: Listed) -> dict[str, Any]:
        """The description of one model."""
        ...

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        """The list of models."""
        ...


@dataclass(slots=True, frozen=True)
class Tools:
    """Tools in requests, for guardrails. The functions accept any body and never raise."""

    tooling: Callable[[Body], Tooling] = lambda _body: Tooling()  # tools of a request
    results: Callable[[Body], Iterator[Result]] = lambda _body: iter(())  # tool results in a request
    steps: Callable[[Body], Sequence[Step]] = lambda _body: ()  # steps since the user's last turn
    # The request without withheld tools.
    without: Callable[[Body, Withheld], Without] = lambda _body, _withheld: ({}, [])


@dataclass(slots=True, frozen=True, kw_only=True)
class Upload:
    """Uploads of a file in several requests: the answer to the first has the address of the others in a header. They
    are calls of `operation` about a session that the provider keeps, and have the bytes of the file as their body.
    """

    operation: str
    header: str  # response header with the provider's address of the parts
    parameter: str  # query parameter with the session's id in that address
    prefix: str  # collection of sessions, in their ids: `uploads/`
    client_path: str  # path of the parts for clients; `{id}` stands for the session's id, without `prefix`
    provider_path: str  # path of the parts at the provider
    withheld: tuple[str, ...] = ()  # further response headers with the session's id
    reads: tuple[str, ...] = ()  # request headers that `whole` reads
    # Headers of a refused part, by which the client knows that sending it again is of no use.
    refused: Mapping[str, str] = field(default_factory=dict)
    # True when a part with these headers is the whole file.
    whole: Callable[[Mapping[str, str]], bool] = lambda _headers: False


@dataclass(slots=True, frozen=True, kw_only=True)
class Stored:
    """Objects that a provider keeps, in one API."""

    objects: Objects = field(default_factory=Objects)  # paths of the objects' ids
    keeps: Callable[[Body], bool] = lambda _body: False
    """True when the provider may keep the answer; `ClientAPI.observe` reports its id."""
    unnamed: bool = False
    """True when requests name no model: a field `model` is only for the gateway."""
    renamed: Callable[[Body, str], Body] = lambda _body, _model: {}
    """Fields to set when inner requests of the body must name another model, in an `unnamed` API."""
    late: Late | None = None  # objects whose usage is known later, see `Report.pending`
    link: str = ""
    """Links in answers that lead to a kept object, as clients get them: a path, or an address with its host. `{id}`
    stands for the object's id.
    """
    upload: Upload | None = None
    hides: bool = False  # True: the provider answers 403 for an object that is gone


@dataclass(slots=True, frozen=True, kw_only=True)
class Reuse:
    """Traits of requests for the reuse of answers, and of a provider's cached prompts."""

    asides: frozenset[str] = frozenset()
    """Top-level request fields that never change the answer, see `cache.key`. Unlisted fields may change it."""
    varies: Callable[[Body], bool] = lambda _body: True
    """True for a request whose fields ask for a different answer each time. Never raises."""
    plain: Callable[[Body], bool] = lambda _body: False
    """True when the neutral form of a request without `asides` has the request's whole meaning. Never raises."""
    inputs: Any = None  # `dialects._inputs.Inputs`, for answers with a part for each input of the request
    prefix: Callable[[Body], tuple[Sequence[Any], Sequence[Any]]] = lambda _body: ((), ())
    """The common beginning of a conversation's requests: (tools, system prompt), (turns up to the user's first)."""
    cache_key: str = ""  # field whose value leads requests with the same prefix to the same server


@dataclass(slots=True, frozen=True, kw_only=True)
class Naming:
    """Names of fields and models, in an API with several spellings, or with the model's name in its path."""

    spelled: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: body
    """A body with field names in the gateway's spelling; the same object if unchanged. Raises Refusal (400) for a field
    in two spellings.
    """
    for_model: Callable[[dict[str, Any], str], dict[str, Any]] = lambda body, _model: body
    """A body for another model, in an API whose body repeats the model's name of the path."""
    path: Callable[[Destination, bool], str] | None = None
    """Path of requests that pass through, plain or streamed. None: `ProviderAPI.path`, or the client's path without
    one.
    """


def _not_streamed() -> Encoder:
    """Default encoder, for an API without streamed answers."""
    raise NotImplementedError


@dataclass(slots=True, frozen=True)
class ClientTranslation:
    """Translation of an API's requests to the neutral form, and of answers from it."""

    decode_request: Callable[[Body], messages.AnyPrompt]
    """The neutral form of a request. Raises Refusal (400) with the field's name for a wrong shape."""
    encode_answer: Callable[[messages.AnyAnswer], dict[str, Any]]
    encode_problem: Callable[[int, messages.Problem], dict[str, Any]]
    """A provider's error with this status, in the form of this API."""
    encoder: Callable[[], Encoder] = _not_streamed
    without_hosted: Callable[[Body], tuple[Body, Sequence[str]]] = lambda body: (body, ())
    """A body without hosted tools and their output in it, and the names of both."""
    traces: tuple[bytes, ...] = ()
    """Marks of a translated answer in a conversation. Providers of this API do not know them."""
    frame: Callable[[bytes], tuple[bytes, bool]] | None = None
    """An event in this API's own stream framing, and True for the last one; empty for other bytes. For providers that
    wrap the same events in another framing.
    """


@dataclass(slots=True, frozen=True, kw_only=True)
class Offers:
    """Abilities of a client's API; the defaults are those of an API without them."""

    tools: Tools = Tools()
    stored: Stored = Stored()
    reuse: Reuse = Reuse()
    naming: Naming = Naming()
    thinking: Callable[[Body], int] = lambda _body: 0
    """`Ask.thinking` of a body after a target's changes. Never raises."""
    usage_request: Callable[[Body], Body] = lambda _body: {}
    """Top-level fields that make a streamed answer report its usage; empty when it always does."""
    encode_count: Callable[[int], dict[str, Any]] | None = None
    """The answer to a request to count tokens, for an API with that operation."""


class ClientAPI(Protocol):
    """An API that clients speak. The gateway reads its requests and answers when they pass through."""

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
        """Translation of the API; None when its requests can only pass through."""
        ...

    def read(self, body: Body, endpoint: Endpoint = ..., /) -> Ask:
        """The meaning of a request. `endpoint` is the client's path, which may name the model. Raises Refusal (400) for
        a field of a wrong shape that the gateway relies on.
        """
        ...

    def texts(self, body: Body, /) -> Iterator[Text]:
        """Texts of a request, at any place in the body."""
        ...

    def conversation(self, body: Body, /) -> Conversation:
        """The dialogue so far. Accepts any body and never raises."""
        ...

    def smallest(self, model: str, /) -> dict[str, Any]:
        """Body of the smallest request, for people who try a model."""
        ...

    def observe(self, data: bytes, report: Report, tree: Any = ..., /) -> bool:
        """Read one event, or a whole plain answer, into `report`. `tree` is its JSON if already parsed. True when it
        has only usage.
        """
        ...

    def observe_edges(self, head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes], /) -> None:
        """Read the usage of an event too long to be read whole: from its beginning, its end, or `inside`, the text from
        the usage key's value on, by level. The outermost object is level 1. Never raises.
        """
        ...

    def said(self, event: Any, /) -> Iterator[Piece | Closed | Called | ArgumentPart]:
        """Texts of one event, or of a whole plain answer, from its JSON. Accepts any value and never raises."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Able:
    """Facts about an API's providers: the encoder obeys them."""

    lacks: frozenset[str] = frozenset()
    """Needs (`Ask.needs`) that this API cannot express; requests with them are not translated into it."""
    stream_type: str = "text/event-stream"  # content type of streams
    reads: frozenset[str] | None = None  # top-level fields of a streamed event that the decoder uses; None: all
    texts_at: Sequence[Sequence[str | int]] = ()  # see `AnswerFacts.texts_at`
    cache_marks: bool = False  # True: requests can mark content for a prompt cache
    images: bool = False
    """True when answers can hold images. Stream events then have the limit of whole answers."""
    image_turns: bool = False
    """True when the model's own turns can hold images. Otherwise images move to the user's turn behind."""
    tool_names: int = 64
    """Most characters of a tool's name. Longer names are shortened, and restored in the answer."""
    tool_letters: bool = False  # True: a tool's name must begin with a letter or an underscore
    namespaces: bool = False
    """True when tools can be grouped. Otherwise a group's name becomes part of its tools' names."""
    rates: str = ""  # prefix of rate-limit headers
    reasons: Callable[[str], bool] = lambda _model: True
    """False for a model known to refuse reasoning parameters."""
    batch: Callable[[str], BatchLimits | None] = lambda _model: None
    """Limits of a request with several inputs, by model; None: the API has no such limits."""


class ProviderAPI(Protocol):
    """An API into which requests are translated."""

    name: str
    family: str
    able: Able

    def path(self, destination: Destination, /, *, stream: bool) -> str:
        """Path of a request behind the provider's base_url: `/chat/completions`."""
        ...

    def encode_request(
        self, prompt: messages.AnyPrompt, destination: Destination, /
    ) -> tuple[dict[str, Any], Sequence[str]]:
        """The body, and names of advisory fields that the API cannot express."""
        ...

    def decode_answer(self, body: bytes, /) -> messages.AnyAnswer:
        """The neutral form of an answer. Raises ValueError for another body."""
        ...

    def decode_problem(self, status: int, body: bytes, /) -> messages.Problem:
        """The readable content of an error answer. Never raises."""
        ...

    @property
    def decoder(self) -> Callable[[], Decoder] | None:
        """Reader of a streamed answer; None for an API without streams."""
        ...


def translation_of(client: ClientAPI) -> ClientTranslation:
    """Translation of a client's API, for a request that is translated; it has one."""
    assert client.translation is not None, client.name
    return client.translation
