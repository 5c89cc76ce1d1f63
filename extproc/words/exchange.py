"""Parts of an exchange: one request through the gateway and its answer.

Imports only the standard library. A field without a default is unset until the stage in the comment above it writes it.
Reading it too early is an AttributeError, never a silent None.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast, get_args

from extproc.words.facts import Facts
from extproc.words.sample import Sample

if TYPE_CHECKING:
    from extproc.words.actions import Continue, Reader
    from extproc.words.api import ClientAPI
    from extproc.words.chain import Chain, Skip
    from extproc.words.contract import Service
    from extproc.words.dialect import Ask, BatchLimits, Endpoint, Report
    from extproc.words.errors import Refusal
    from extproc.words.tries import FailedTry


@dataclass(slots=True, frozen=True)
class Verified:
    """Facts about the client that Envoy verified, so no client can forge them. Keys are in `contract`."""

    token: Mapping[str, Any] = field(default_factory=dict)  # claims of a token, or the reason for its rejection
    connection: Mapping[str, object] = field(default_factory=dict)  # names in the client's certificate


NOTHING_VERIFIED = Verified()


@dataclass(slots=True)
class RequestHead:
    """The head of the client's request. Header names are lower case; repeated headers are joined with a comma."""

    method: str
    path: str
    headers: Mapping[str, str]
    verified: Verified = NOTHING_VERIFIED
    ended: bool = False  # True: no body follows
    length: int | None = None  # bytes of the body, if the headers tell


T = TypeVar("T")


class FeatureKey(Generic[T]):
    """Key of a feature's part of an exchange, of type `T`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


LONG_WAIT: FeatureKey[Callable[[], None]] = FeatureKey("long wait")
"""Key of a function to call before a wait that is longer than Envoy's for an answer. Absent where no stage waits so."""


class Features(Protocol):
    """Parts of an exchange by feature. At run time it is a dict; each key has the type of its value."""

    def __contains__(self, key: FeatureKey[Any], /) -> bool: ...

    def __getitem__(self, key: FeatureKey[T], /) -> T: ...

    def __setitem__(self, key: FeatureKey[T], value: T, /) -> None: ...

    def get(self, key: FeatureKey[T], /) -> T | None: ...

    def copy(self) -> Features: ...


class Room(Protocol):
    """Room of an exchange among those in flight."""

    def resize(self, size: int) -> None:
        """Reserve room for a body of `size` bytes, in place of the earlier reservation."""
        ...

    def leave(self) -> None:
        """Give back all room."""
        ...


@dataclass(slots=True)
class ResponseHead:
    """Head of an answer, from a provider or Envoy. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    attempts: int = 0  # count of tries at providers
    details: str = ""  # Envoy's response code details
    ended: bool = False  # True: no body follows
    # Headers that the internal hop adds or lets pass; empty in attach mode, where a provider could forge them.
    hop: Mapping[str, str] = field(default_factory=dict)


class ToolGrants(Protocol):
    """Tools granted to a consumer, by `profile/name`."""

    @property
    def key(self) -> Hashable:
        """A key that is equal for equal grants."""
        ...

    def __call__(self, name: str, /) -> bool: ...

    def enters(self, profile: str) -> bool:
        """True when a grant could include a tool of the profile."""
        ...


class _NoTools:
    """A grant without tools."""

    key: Hashable = ()

    def __call__(self, name: str) -> bool:  # noqa: ARG002
        return False

    def enters(self, profile: str) -> bool:  # noqa: ARG002
        return False


NO_TOOLS: ToolGrants = _NoTools()


class Requirement(Protocol):
    """Facts that a target must have, see `access.auth.require`."""

    def unmet(self, target: Target) -> str: ...

    def may_ask(self, guardrail: str) -> bool: ...


@dataclass(slots=True, frozen=True)
class Consumer:
    """The payer of a request, with granted models and tools."""

    name: str
    team: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    may_use: Callable[[str], bool] = lambda _model: True
    groups: tuple[str, ...] = ()
    # True: a consumer of the settings. False: a name from a token, so such consumers are unlimited in number.
    listed: bool = True
    tools: ToolGrants = NO_TOOLS
    require: tuple[Requirement, ...] = ()  # for all targets of its requests
    # This consumer before a change of settings that waits for Envoy. Its grants apply to chains of the earlier
    # settings.
    before: Consumer | None = None

    @property
    def series(self) -> str:
        """Consumer's name in metrics, where the number of names must stay bounded."""
        return self.name if self.listed else "other"


@dataclass(slots=True, frozen=True)
class Kinds:
    """Kinds with their own prices beside text. The fields are counts, each a part of a count of `Usage`, or prices in
    femto-USD.
    """

    audio_input: int = 0  # includes audio read from a cache
    audio_cached: int = 0
    image_input: int = 0  # includes images read from a cache
    image_cached: int = 0
    video_input: int = 0
    audio_output: int = 0
    image_output: int = 0
    video_output: int = 0
    cache_write_1h: int = 0  # tokens that a cache keeps for an hour
    seconds: int = 0  # length of the input's audio; this and later fields do not count tokens
    characters: int = 0  # length of the input's text
    images: int = 0  # images in the answer
    pages: int = 0  # pages of a document that are read
    searches: int = 0  # web searches; this and later fields have `Price.fees`
    file_searches: int = 0
    fetches: int = 0  # web pages read
    maps: int = 0  # answers grounded in maps
    sessions: int = 0  # containers that ran code, times their gigabytes if the price depends on them


@dataclass(slots=True, frozen=True)
class Price:
    """Femto-USD (1e-15 USD) for a token of each kind, and for a request; see `prices`.

    `tiers` are (input tokens, price of a whole request with more input), the smallest first.
    """

    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    per_request: int = 0
    version: str = ""  # origin of the price: a day, `settings`, or a catalogue's name and version
    tiers: tuple[tuple[int, Price], ...] = ()
    kinds: Kinds | None = None  # None: every kind costs as much as text
    variants: Mapping[str, Price] = field(default_factory=dict)  # prices by option of the request, `field=value`
    factors: Mapping[str, int] = field(default_factory=dict)  # thousandths of this price, by option of the request
    # Fees for a hosted tool's call, by field of `Kinds`, whatever the option; an absent fee is unknown.
    fees: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_from_settings(self) -> bool:
        """True for a price from the operator's settings."""
        return self.version.startswith("settings")


Changes = tuple[tuple[str, Literal["set", "default", "remove"], Any], ...]
"""Changes to fields, at most one for each: field, action, value."""


@dataclass(slots=True, frozen=True)
class Adaptation:
    """A request's way from one client API to a target. Select decides it."""

    api: str = ""  # the dialect in which the target gets the request
    own: bool = True  # True: `api` is the client's dialect
    service: Service | None = None  # rewrites the request; None: its body is patched
    # True if the rewrite is needed, by body and needs; None: always.
    needed: Callable[[Mapping[str, Any], Mapping[str, str]], bool] | None = None
    cache_key: str = ""  # field for a key of the conversation's prefix; empty: the target has none


@dataclass(slots=True, frozen=True)
class Target:
    """A provider and a model there: the destination of a try.

    `name` is its entry in `models`, `model` the provider's name of the model. None means unknown.
    """

    name: str
    provider: str
    model: str
    max_output_tokens: int | None = None  # limit in the settings
    context: int | None = None  # tokens
    supports: frozenset[str] | None = None  # abilities of the model, see `dialects.ABILITIES`
    price: Price | None = None
    disabled: bool = False
    leaving: bool = False  # True: switched off by a change that waits for Envoy; it serves until then
    timeout: float = 600.0  # seconds until its answer must begin
    prompt_cache: bool = False  # True: mark content for the provider's cache
    tries: int = 1  # consecutive tries, before the next target
    api: str = ""  # dialect into which chat requests are translated; empty: the provider's usual one
    hosted_tools: str = "refuse"  # `refuse`, or `drop` tools that only the client's API runs
    changes: Changes = ()  # changes to fields of the request
    batch: BatchLimits | None = None  # the provider's limits of a request with several inputs; None: the API's limits
    known_output: int | None = None  # most tokens that the model can write, from the provider's documentation
    match: tuple[tuple[str, Callable[[str], bool]], ...] = ()  # conditions on the request's facts
    tells_cost: bool = False  # True: the provider's answers report their cost
    facts: Facts = Facts()  # noqa: RUF009 - immutable
    require: tuple[Requirement, ...] = ()  # of the virtual models around it
    # Price of another model that may answer or work beside this one; None: no other model is known.
    price_as: Callable[[str], Price | None] | None = field(default=None, compare=False, repr=False)
    # Written by Select for one request:
    adaptation: Adaptation = field(default_factory=Adaptation, compare=False)
    adapted: dict[Hashable, Target] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Copies of this target by `adaptation`, see `routing.adaptation`."""

    @property
    def deployment(self) -> str:
        """Name of the model at its provider, `provider/model`: rate limits and speed are the same for all its names
        here.
        """
        return f"{self.provider}/{self.model}"


@dataclass(slots=True)
class Usage:
    """Tokens of one exchange, as OpenTelemetry GenAI counts them: `input_tokens` includes `cached_tokens` and
    `cache_write_tokens`, `output_tokens` includes `reasoning_tokens`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    source: str = "provider"  # provider | disputed | estimated | pending | none
    kinds: Kinds | None = None
    # Tokens not bounded by the request's size or limit, for example from searches.
    beyond: int = field(default=0, compare=False)
    cost: int | None = None  # nano-USD of the answer, if the provider reported it
    # Counts by other models, by their names at the provider; `kinds` excludes them.
    shares: Mapping[str, Usage] | None = None

    @property
    def own(self) -> Usage:
        """Usage of the model that answered: without `shares`."""
        if not self.shares:
            return self
        parts = self.shares.values()
        return Usage(
            max(0, self.input_tokens - sum(part.input_tokens for part in parts)),
            max(0, self.output_tokens - sum(part.output_tokens for part in parts)),
            max(0, self.cached_tokens - sum(part.cached_tokens for part in parts)),
            max(0, self.reasoning_tokens - sum(part.reasoning_tokens for part in parts)),
            max(0, self.cache_write_tokens - sum(part.cache_write_tokens for part in parts)),
            self.source,
            self.kinds,
        )

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def clamped(self) -> Usage:
        """Limit cached, written and reasoning tokens to the counts that include them."""
        self.cache_write_tokens = min(self.cache_write_tokens, self.input_tokens)
        self.cached_tokens = min(self.cached_tokens, self.input_tokens - self.cache_write_tokens)
        self.reasoning_tokens = min(self.reasoning_tokens, self.output_tokens)
        return self


@dataclass(slots=True)
class Kept:
    """Objects at providers that an exchange uses, see the room `kept`. Open, Recall and Seal write it."""

    object: str = ""  # provider's id of the object in the call
    made_by: str = ""  # id of the exchange that made the object, if its usage is known later
    keeper: str = ""  # provider of the objects that the request continues
    ids: dict[str, str] = field(default_factory=dict)  # client's id of an object, by the provider's id
    named: bool = True  # False: no field of the request can hold an object's id
    sealing: bool = False  # True: the answer may hold ids of objects


class Ending(Enum):
    """The ways an exchange can end. `Exchange.end` decides; settling, the log, the metrics and the ledger read it.

    `code` is the default of `Exchange.error`, `outcome` is for usage reports, and `complete` is True when the client
    got the whole answer.
    """

    ANSWERED = "", "ok", True  # answered by a provider, or by the gateway: models, a token count, a consumer's spending
    PROVIDER_ERROR = "", "error", True  # the provider answered with an error
    REFUSED = "refused", "refused", False  # refused by the gateway or its Envoy, before any provider was asked
    UNREACHED = "gateway", "error", False  # Envoy answered in a provider's place
    BAD_ANSWER = "bad_answer", "error", False  # the gateway refused a provider's answer
    CUT = "cut", "ok", False  # the gateway ended a streamed answer
    WITHHELD = "withheld", "error", False  # the gateway refused a provider's answer before any of it left
    INCOMPLETE = "incomplete", "ok", False  # mid-stream the client left or the provider stopped; the two look alike
    CLIENT_LEFT = "client_left", "error", False  # the client left before any answer began
    ABANDONED = "abandoned", "error", False  # the client left before the request was forwarded
    INTERNAL_ERROR = "internal_error", "error", False  # a bug of the gateway

    code: str
    outcome: str
    complete: bool

    def __init__(self, code: str, outcome: str, complete: bool) -> None:
        self.code = code
        self.outcome = outcome
        self.complete = complete


Outcome = Literal["ok", "refused", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""Outcomes in usage reports. `refused`: the gateway refused before any provider was asked. `error`: any other error
status, or no answer.
"""


@dataclass(slots=True)
class ClientRequest:
    """The client's request, and the results of its stages."""

    head: RequestHead
    id: str = ""  # value of `x-request-id`
    # Classify
    dialect: ClientAPI = field(init=False)
    endpoint: Endpoint = field(init=False)
    operation: str = field(init=False)  # gen_ai.operation.name
    # Admit
    place: Room | None = None
    # Parse
    body: bytes = field(init=False)
    json: dict[str, Any] = field(init=False)
    ask: Ask = field(init=False)
    ignored: tuple[str, ...] = ()  # fields of the body that no provider gets, see `dialects.NOT_FORWARDED`
    edits: dict[str, Any] = field(default_factory=dict)  # top-level fields to set in the forwarded body
    masked: bool = False  # True: after Parse, `body` and `json` differ from the client's
    # Shed
    shed: int = 0  # bytes of a large body that was freed
    seen: Sample | None = None  # sample of the freed body's text, to count its tokens

    @property
    def size(self) -> int:
        """Bytes of the request's body."""
        return len(self.body) + self.shed


@dataclass(slots=True, frozen=True)
class Example:
    """A finding for the audit log. `hash` is a keyed hash of the text; equal texts have equal hashes."""

    where: str
    kind: str
    score: float
    hash: str


MOST_EXAMPLES = 16
"""Most examples in a verdict."""


@dataclass(slots=True)
class Verdict:
    """The findings of one guardrail in a request (`on: input`) or an answer (`on: output`). It never has the text of a
    finding.
    """

    guardrail: str
    on: str
    action: str  # block, ask, mask, annotate, audit, failed; or unsearched, with parts that cannot be searched, by kind
    kinds: Mapping[str, int] = field(default_factory=dict)  # count of findings by kind
    reason: str = ""  # why the guardrail failed: timeout, error, overload, unreadable, too_many
    examples: Sequence[Example] = field(default=(), compare=False)  # the first findings


_TOLD = ("block", "ask", "mask", "annotate", "failed", "unsearched")  # actions reported to clients


@dataclass(slots=True)
class Findings:
    """Findings of guardrails and of taint stages."""

    guardrails: list[str] = field(default_factory=list)  # guardrails with findings, each `name:action`
    verdicts: list[Verdict] = field(default_factory=list)
    untrusted: tuple[str, ...] = ()  # untrusted tools with a result in the conversation
    tainted: tuple[str, ...] = ()  # untrusted tools that answered by MCP in the same run, see `taint`

    def add(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        entry = f"{verdict.guardrail}:{verdict.action}"
        if entry not in self.guardrails:
            self.guardrails.append(entry)

    def header_value(self) -> str:
        """Value of the response header for the client; empty without findings to report."""
        return ",".join(entry for entry in self.guardrails if entry.rpartition(":")[2] in _TOLD)


@dataclass(slots=True)
class Route:
    """The request's way to its targets, and the message that forwards it."""

    # Route, narrowed by Authorize. Select sets the target of each try, in order.
    chain: Chain = field(init=False)
    targets: tuple[Target, ...] = field(init=False)
    skipped: list[Skip] = field(default_factory=list)
    require: tuple[Requirement, ...] = ()  # of the requested virtual model, after a downgrade to another
    of_tools: bool = False  # True: the targets are tools of MCP servers, not models
    kept: Kept = field(default_factory=Kept)
    prefix: bytes | None = None  # see `routing.prefix`; None: not read yet
    traces: bool = False  # True: the body holds traces of a translation, see `ClientTranslation.traces`
    translated: bool = False  # True: a target may get the request in another API than the client's
    # Forward
    onward: Continue = field(init=False)  # action for Envoy
    forwarded: bool = False
    sent: float = 0.0  # time of forwarding, on the clock of `Exchange.started`


Claim = TypeVar("Claim")
"""An amount that a request claims of one budget, see `budgets.budget`."""


@dataclass(slots=True)
class Reservation(Generic[Claim]):
    """Amounts that an exchange holds. `input_tokens` and `output_tokens` are upper bounds of its use."""

    id: str
    input_tokens: int
    output_tokens: int
    outputs: Sequence[int] = ()  # upper bound of output tokens, by target
    inputs: Sequence[int] = ()  # upper bound of input tokens, by target
    limits: Sequence[int | None] = ()  # `outputs` if limited by the request or the model, otherwise None
    claims: Sequence[Claim] = ()  # amounts claimed, in the order of the holds
    calls: Sequence[Claim] = ()  # claims on budgets of one request; they hold no amount
    held: bool = False  # True: the store knows the reservation
    levels: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # by count: used before, limit, asked for
    unseen: bool = False  # True: some input is outside of the body, so the body's count is incomplete
    possible: Collection[str] = ()  # kinds of tokens that may be used, if money is held
    named: Sequence[Sequence[Any]] = ()  # further models that may answer, by target, see `budgets.named`
    usual: bool = False  # True: the usual output is held, because the request has no limit
    output: int = 0  # output tokens that the claims have room for
    enough: float = math.inf  # bytes of the answer that the held amounts cover


@dataclass(slots=True)
class Money:
    """The account of an exchange: consumer's key and labels, reservation, cost."""

    # Authenticate
    key: str = ""  # name of the consumer's key; not secret
    labels: Mapping[str, str] = field(init=False)
    # Reserve
    reservation: Reservation[Any] = field(init=False)
    output_limits: tuple[int | None, ...] = ()  # output limit to write into the request, by target; None: no change
    alert: str = ""  # fullest budget beyond one of its `alert_at`
    # x-ratelimit-… headers: the remaining room of the tightest short windows.
    rate: Mapping[str, str] = field(default_factory=dict)
    downgraded: str = ""  # budget that replaced the requested model with a cheaper one
    denied_by: str = ""  # budget that refused
    # Settle
    usage: Usage = field(init=False)
    cost: int | None = 0  # nano-USD; None: the price is unknown
    price_version: str = ""  # origin of the cost: a price's version, or `provider`
    prompt_saved: int = 0  # nano-USD that the provider's prompt cache saved
    prompt_extra: int = 0  # nano-USD that writing to the provider's prompt cache cost
    charges: Mapping[str, int] | None = None  # charges by count; None: unknown, or no charges


@dataclass(slots=True)
class ClientAnswer:
    """The client's answer, and the facts read in it."""

    head: ResponseHead = field(init=False)
    # Origin
    status: int = 0  # status of the answer that the client gets; 0: none
    target: Target | None = None  # target that served
    attempts: int = 0
    unreached: str = ""  # the reason why Envoy answered in a provider's place
    # AwaitTries
    tries: Sequence[FailedTry] = ()  # failed tries, in order
    # Tell
    told: dict[str, str] = field(init=False)  # the gateway's response headers for the client
    withheld: tuple[str, ...] = field(init=False)  # headers of the provider's answer that the client does not get
    # Read
    report: Report | None = None  # None: the answer is unreadable
    reader: Reader | None = None  # reader of the answer's body; None: the body passes unread
    usage_hidden: bool = False  # True: the gateway asked for the usage event, the client did not
    # Stages of events
    cut: Refusal | None = None  # refusal that ends the answer behind the events of the current step
    first_token: float | None = None  # seconds from `Exchange.started`


@dataclass(slots=True)
class Exchange:
    """One client request and its answer, however it ends."""

    id: str
    request: ClientRequest
    attached: bool = False  # True: another team's Envoy, which has no internal hop
    timed: bool = True  # True: stages are timed; clocks cost, so only some exchanges are, see `Telemetry.begin`
    started: float = field(default_factory=time.perf_counter)  # monotonic time, seconds
    consumer: Consumer = field(init=False)  # written by Authenticate
    findings: Findings = field(default_factory=Findings)
    route: Route = field(default_factory=Route)
    money: Money = field(default_factory=Money)
    answer: ClientAnswer = field(default_factory=ClientAnswer)
    features: Features = field(default_factory=cast("Callable[[], Features]", dict))
    # Ending
    ending: Ending = field(init=False)
    error: str = ""  # code of the refusal, or of an early end
    seconds: float = 0.0  # seconds from the request's headers to the end of the answer

    def end(self, *, refused: str = "", whole: bool = False, bug: bool = False) -> None:
        """Decide how the exchange ended; only the first call counts.

        `refused` is the code of a refusal. `whole`: the answer reached its end. `bug`: the gateway raised an exception.
        Without these, Envoy closed the stream: the client left, or the provider stopped mid-stream.
        """
        if hasattr(self, "ending"):
            return
        answer = self.answer
        if bug:
            ending = Ending.INTERNAL_ERROR
        elif refused:
            ending = Ending.REFUSED
            if answer.target is not None:
                ending = Ending.BAD_ANSWER if answer.reader is None else Ending.CUT
                if ending is Ending.CUT and answer.status >= 400:
                    ending = Ending.WITHHELD
        elif answer.unreached:
            ending = Ending.UNREACHED if answer.attempts else Ending.REFUSED
        elif whole:
            ending = Ending.PROVIDER_ERROR if answer.status >= 400 else Ending.ANSWERED
        elif answer.status:
            ending = Ending.INCOMPLETE
        else:
            ending = Ending.CLIENT_LEFT if self.route.forwarded else Ending.ABANDONED
        self.ending = ending
        told = answer.report.error if whole and answer.report is not None else ""  # provider's error inside the answer
        self.error = refused or answer.unreached or told or ending.code
        self.seconds = time.perf_counter() - self.started
