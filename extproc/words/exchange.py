"""The parts of an exchange: one request through the gateway and its answer.

Standard library only. Fields without a default are unset until the stage named beside them writes them; reading one too
early is an AttributeError, never a silent None.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast, get_args

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
    """Envoy's findings about the client, which no client can forge. The keys are in `contract`."""

    token: Mapping[str, Any] = field(default_factory=dict)  # claims, or the reason why a token was not accepted
    connection: Mapping[str, object] = field(default_factory=dict)  # names in the client's certificate


NOTHING_VERIFIED = Verified()


@dataclass(slots=True)
class RequestHead:
    """The head of the client's request. Header names are lower case; repeated headers are joined with a comma."""

    method: str
    path: str
    headers: Mapping[str, str]
    verified: Verified = NOTHING_VERIFIED
    ended: bool = False  # no body follows
    length: int | None = None  # bytes of the body, where the headers tell


T = TypeVar("T")


class FeatureKey(Generic[T]):
    """The name under which a feature keeps its part of an exchange, of the type `T`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


class Features(Protocol):
    """The parts that features keep in an exchange. At run time it is a dict; each key tells the type of its value."""

    def __contains__(self, key: FeatureKey[Any], /) -> bool: ...

    def __getitem__(self, key: FeatureKey[T], /) -> T: ...

    def __setitem__(self, key: FeatureKey[T], value: T, /) -> None: ...

    def get(self, key: FeatureKey[T], /) -> T | None: ...

    def copy(self) -> Features: ...


class Place(Protocol):
    """The room that an exchange takes among those in flight."""

    def resize(self, size: int) -> None:
        """Take room for a body of so many bytes, in place of what was taken before."""
        ...

    def leave(self) -> None:
        """Give everything back."""
        ...


@dataclass(slots=True)
class ResponseHead:
    """The head of an answer, a provider's or Envoy's own. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    attempts: int = 0  # tries at providers
    details: str = ""  # Envoy's response code details
    ended: bool = False  # no body follows
    # those of the headers that the internal hop lets pass or adds; none in attach mode: a provider could forge them
    hop: Mapping[str, str] = field(default_factory=dict)


class ToolGrants(Protocol):
    """The tools that a consumer was granted, by `profile/name`."""

    @property
    def key(self) -> Hashable:
        """Equal for equal grants."""
        ...

    def __call__(self, name: str, /) -> bool: ...

    def enters(self, profile: str) -> bool:
        """True when a tool of the profile could be granted."""
        ...


class _NoTools:
    """No tool of any profile."""

    key: Hashable = ()

    def __call__(self, name: str) -> bool:  # noqa: ARG002
        return False

    def enters(self, profile: str) -> bool:  # noqa: ARG002
        return False


NO_TOOLS: ToolGrants = _NoTools()


@dataclass(slots=True, frozen=True)
class Consumer:
    """The payer of a request, and the models and tools it was granted."""

    name: str
    team: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    may_use: Callable[[str], bool] = lambda _model: True
    groups: tuple[str, ...] = ()
    # True: in the settings. False: only a token told its name, so there may be any number of such consumers
    listed: bool = True
    tools: ToolGrants = NO_TOOLS
    # The consumer of the settings before a change that waits for Envoy: chains of those settings go by its grants
    before: Consumer | None = None

    @property
    def series(self) -> str:
        """Name in metrics, where the number of consumers must stay bounded."""
        return self.name if self.listed else "other"


@dataclass(slots=True, frozen=True)
class Kinds:
    """Kinds with prices of their own beside text: the tokens of an exchange, each a part of a count of its `Usage`; or
    prices, in femto-USD.
    """

    audio_input: int = 0  # including audio read from a cache
    audio_cached: int = 0
    image_input: int = 0  # including images read from a cache
    image_cached: int = 0
    video_input: int = 0
    audio_output: int = 0
    image_output: int = 0
    video_output: int = 0
    cache_write_1h: int = 0  # tokens that a cache keeps for an hour
    seconds: int = 0  # length of the input's audio, which is no tokens; neither are the next fields
    characters: int = 0  # length of the input's text
    images: int = 0  # in the answer
    searches: int = 0  # searches of the web; this and the next fields have `Price.fees`
    file_searches: int = 0
    fetches: int = 0  # pages of the web that were read
    maps: int = 0  # answers grounded in maps
    sessions: int = 0  # containers in which code ran, by their gigabytes where the price depends on these


@dataclass(slots=True, frozen=True)
class Price:
    """Femto-USD (1e-15 USD) for a token of each kind, and for a request; see `prices`.

    `tiers` are (input tokens, the price of everything in a request of more than those), the smallest first.
    """

    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    per_request: int = 0
    version: str = ""  # origin: a day, `settings`, or the catalogue's name and version
    tiers: tuple[tuple[int, Price], ...] = ()
    kinds: Kinds | None = None  # None: every kind costs what text costs
    variants: Mapping[str, Price] = field(default_factory=dict)  # by option of the request, `field=value`
    factors: Mapping[str, int] = field(default_factory=dict)  # by option: thousandths of this price
    # for a call of a tool that the provider runs itself, by field of `Kinds`, whatever the option; absent: unknown
    fees: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_from_settings(self) -> bool:
        """True for a price that the operator gave."""
        return self.version.startswith("settings")


Changes = tuple[tuple[str, Literal["set", "default", "remove"], Any], ...]
"""Changes of fields, each field at most once: the action, and the value."""


@dataclass(slots=True, frozen=True)
class Adaptation:
    """The way a request of one client API reaches a target. Select decides it."""

    api: str = ""  # the dialect in which the target gets the request
    own: bool = True  # that is the client's dialect
    service: Service | None = None  # rewrites the request; None: its body is patched
    needed: Callable[[Mapping[str, Any], Mapping[str, str]], bool] | None = None  # by body and needs; None: always
    cache_key: str = ""  # field for the key of the conversation's prefix; empty: the target takes none


@dataclass(slots=True, frozen=True)
class Target:
    """A provider and a model there: the destination of a try.

    `name` is the entry of `models` it came from, `model` its name at the provider. None means unknown.
    """

    name: str
    provider: str
    model: str
    max_output_tokens: int | None = None  # the limit in the settings
    context: int | None = None  # tokens
    supports: frozenset[str] | None = None  # abilities, see `dialects.ABILITIES`
    price: Price | None = None
    disabled: bool = False
    leaving: bool = False  # switched off by a change that waits for Envoy: it serves until then
    timeout: float = 600.0  # seconds until its answer has to begin
    prompt_cache: bool = False  # True: mark the content that the provider's cache should keep
    tries: int = 1  # tries in a row, before the next target
    api: str = ""  # the dialect that chat requests are translated into; empty: the provider's usual
    hosted_tools: str = "refuse"  # or drop: tools that only the provider of the client's API runs
    changes: Changes = ()  # changes to fields of the request
    batch: BatchLimits | None = None  # the provider's limits of one request with several inputs; None: those of its API
    known_output: int | None = None  # the most it can write, as its provider documents it
    match: tuple[tuple[str, Callable[[str], bool]], ...] = ()  # conditions on facts of the request
    tells_cost: bool = False  # its provider's answers tell their cost
    # the price of another model that answers in its place or beside it; None where no other is known
    price_as: Callable[[str], Price | None] | None = field(default=None, compare=False, repr=False)
    # Select: for the request that it is the target of
    adaptation: Adaptation = field(default_factory=Adaptation, compare=False)
    adapted: dict[Hashable, Target] = field(default_factory=dict, init=False, compare=False, repr=False)
    """This target with each `adaptation`, see `routing.adaptation`."""

    @property
    def deployment(self) -> str:
        """The model at its provider, `provider/model`: rate limits and speed belong to it, whatever its names here."""
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
    # tokens that neither the size nor the limit of the request bounds, as those of searches
    beyond: int = field(default=0, compare=False)
    cost: int | None = None  # nano-USD of the answer, where its provider told
    # parts of the counts that other models used, by their names at the provider; `kinds` leaves theirs out
    shares: Mapping[str, Usage] | None = None

    @property
    def own(self) -> Usage:
        """The part of the model that answered: the counts without `shares`."""
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
        """With no more of any kind than there is."""
        self.cache_write_tokens = min(self.cache_write_tokens, self.input_tokens)
        self.cached_tokens = min(self.cached_tokens, self.input_tokens - self.cache_write_tokens)
        self.reasoning_tokens = min(self.reasoning_tokens, self.output_tokens)
        return self


@dataclass(slots=True)
class Kept:
    """Objects at providers that an exchange is about, see the room `kept`: Open, Recall and Seal write it."""

    object: str = ""  # the provider's id of the object that the call is about
    made_by: str = ""  # id of the exchange that made it, where its usage was not known at once
    keeper: str = ""  # the provider of the objects that the request goes on from
    ids: dict[str, str] = field(default_factory=dict)  # the provider's id of an object -> the client's
    named: bool = True  # False: no field of the request can hold an id
    sealing: bool = False  # the answer may hold ids of objects


class Ending(Enum):
    """The ways an exchange can end. `Exchange.end` decides; settling, the log, the metrics and the ledger read it.

    `code` is the default of `Exchange.error`, `outcome` its outcome in usage reports, and `complete` is True when the
    client got the answer to its end.
    """

    ANSWERED = "", "ok", True  # answered by a provider, or by the gateway: models, a token count, a consumer's spending
    PROVIDER_ERROR = "", "error", True  # the provider answered with an error
    REFUSED = "refused", "refused", False  # refused by the gateway or its Envoy, before any provider was asked
    UNREACHED = "gateway", "error", False  # Envoy answered in a provider's place
    BAD_ANSWER = "bad_answer", "error", False  # the gateway refused a provider's answer
    CUT = "cut", "ok", False  # the gateway ended a streamed answer
    WITHHELD = "withheld", "error", False  # the gateway refused a provider's answer before any of it left
    INCOMPLETE = "incomplete", "ok", False  # mid-stream the client left or the provider broke off: both look alike
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
"""Outcomes of endings in usage reports. `refused`: by the gateway, before any provider was asked. `error`: any other
error status, and no answer at all.
"""


@dataclass(slots=True)
class ClientRequest:
    """The request as it came, and what its stages read in it."""

    head: RequestHead
    id: str = ""  # `x-request-id`
    # Classify
    dialect: ClientAPI = field(init=False)
    endpoint: Endpoint = field(init=False)
    operation: str = field(init=False)  # gen_ai.operation.name
    # Admit
    place: Place | None = None
    # Parse
    body: bytes = field(init=False)
    json: dict[str, Any] = field(init=False)
    ask: Ask = field(init=False)
    ignored: tuple[str, ...] = ()  # fields of the body that no provider gets, see `dialects.NOT_FORWARDED`
    edits: dict[str, Any] = field(default_factory=dict)  # top-level fields to set in the body that leaves
    masked: bool = False  # `body` and `json` are no longer as the client sent them, from Parse on
    # Shed
    shed: int = 0  # bytes of a large body that is kept no longer
    seen: Sample | None = None  # a sample of that body's text, for counting its tokens

    @property
    def size(self) -> int:
        """Bytes of the request's body."""
        return len(self.body) + self.shed


@dataclass(slots=True, frozen=True)
class Example:
    """A finding for the audit log: `hash` is a keyed hash of the text, the same for the same text."""

    where: str
    kind: str
    score: float
    hash: str


MOST_EXAMPLES = 16
"""Examples of a verdict."""


@dataclass(slots=True)
class Verdict:
    """The findings of one guardrail in a request (`on: input`) or an answer (`on: output`). Never the text that was
    found.
    """

    guardrail: str
    on: str
    action: str  # block, mask, annotate, audit; or failed, or unsearched: parts that cannot be searched, by kind
    kinds: Mapping[str, int] = field(default_factory=dict)  # kind -> findings
    reason: str = ""  # why the guardrail failed: timeout, error, overload, unreadable, too_many
    examples: Sequence[Example] = field(default=(), compare=False)  # the first findings


_TOLD = ("block", "mask", "annotate", "failed", "unsearched")  # actions that clients are told


@dataclass(slots=True)
class Findings:
    """Findings of guardrails, and of the stages of taint."""

    guardrails: list[str] = field(default_factory=list)  # guardrails with findings, each `name:action`
    verdicts: list[Verdict] = field(default_factory=list)
    untrusted: tuple[str, ...] = ()  # tools with results in the conversation that a guardrail does not trust
    tainted: tuple[str, ...] = ()  # untrusted tools that answered in the same run by MCP, see `taint`

    def add(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        entry = f"{verdict.guardrail}:{verdict.action}"
        if entry not in self.guardrails:
            self.guardrails.append(entry)

    def told(self) -> str:
        """The value of the header for the client; empty where there is nothing to tell."""
        return ",".join(entry for entry in self.guardrails if entry.rpartition(":")[2] in _TOLD)


@dataclass(slots=True)
class Route:
    """The way of the request to its targets, and the message with which it left."""

    # Route, then narrowed by Authorize; Select makes it the target of each try, in order
    chain: Chain = field(init=False)
    targets: tuple[Target, ...] = field(init=False)
    skipped: list[Skip] = field(default_factory=list)
    of_tools: bool = False  # True: the targets are tools of MCP servers, not models
    kept: Kept = field(default_factory=Kept)
    prefix: bytes | None = None  # see `routing.prefix`; None: not read yet
    traces: bool = False  # the body holds traces of a translation, see `ClientTranslation.traces`
    translated: bool = False  # a target may get the request in another API than the client's
    # Forward
    onward: Continue = field(init=False)  # the action for Envoy
    forwarded: bool = False
    sent: float = 0.0  # when the request left, on the clock of `Exchange.started`


Claim = TypeVar("Claim")
"""An amount that a request claims of one budget, see `budgets.budget`."""


@dataclass(slots=True)
class Reservation(Generic[Claim]):
    """The amounts an exchange holds. `input_tokens` and `output_tokens` are upper bounds of its use."""

    id: str
    input_tokens: int
    output_tokens: int
    outputs: Sequence[int] = ()  # the bound of the output at each target
    inputs: Sequence[int] = ()  # the bound of the input at each target
    limits: Sequence[int | None] = ()  # `outputs` where the request or the model limits it, else None
    claims: Sequence[Claim] = ()  # in the order of the holds
    calls: Sequence[Claim] = ()  # claims on budgets for one request, which hold nothing
    held: bool = False  # False: the store knows nothing of it
    unseen: bool = False  # True: some of the input is outside the body, so no count of the body is complete
    possible: Collection[str] = ()  # kinds of tokens that it can come to, where money is held
    named: Sequence[Sequence[Any]] = ()  # further models that it can come to, by target, see `budgets.named`
    usual: bool = False  # True: the usual output is held of a request without a limit
    output: int = 0  # tokens of output that the claims have room for
    enough: float = math.inf  # bytes of answer that the amounts held cover


@dataclass(slots=True)
class Money:
    """The account of the exchange: what it is booked under, what was held for it, and what it cost."""

    # Authenticate
    key: str = ""  # name of the consumer's key, which is no secret
    labels: Mapping[str, str] = field(init=False)
    # Reserve
    reservation: Reservation[Any] = field(init=False)
    output_limits: tuple[int | None, ...] = ()  # the limit to write into the request, by target; None: no change
    alert: str = ""  # the fullest budget beyond one of its `alert_at`
    # x-ratelimit-… headers: the rest of the tightest short windows
    rate: Mapping[str, str] = field(default_factory=dict)
    downgraded: str = ""  # the budget that replaced the requested model by a cheaper one
    denied_by: str = ""  # the budget that refused
    # Settle
    usage: Usage = field(init=False)
    cost: int | None = 0  # nano-USD; None: the price is unknown
    price_version: str = ""  # origin of the cost: a price's version, or `provider`
    prompt_saved: int = 0  # nano-USD that the provider's prompt cache saved
    prompt_extra: int = 0  # nano-USD that writing to it cost
    charges: Mapping[str, int] | None = None  # charges by count; None: unknown, or none


@dataclass(slots=True)
class ClientAnswer:
    """The answer that the client gets, and what was read in it."""

    head: ResponseHead = field(init=False)
    # Origin
    status: int = 0  # status of the answer that the client gets; 0: none
    target: Target | None = None  # the target that served
    attempts: int = 0
    unreached: str = ""  # the reason why Envoy answered in a provider's place
    # AwaitTries
    tries: Sequence[FailedTry] = ()  # those that failed, in order
    # Tell
    told: dict[str, str] = field(init=False)  # the gateway's headers for the client
    withheld: tuple[str, ...] = field(init=False)  # headers of the answer that the client does not get
    # Read
    report: Report | None = None  # None: the answer cannot be read
    reader: Reader | None = None  # reader of the answer's body; None: it passes unread
    usage_hidden: bool = False  # True: the gateway asked for the usage event, the client did not
    # event by event
    cut: Refusal | None = None  # ends the answer behind the events that a stage gave back
    first_token: float | None = None  # seconds after the start


@dataclass(slots=True)
class Exchange:
    """One client request and its answer, however it ends."""

    id: str
    request: ClientRequest
    attached: bool = False  # True: another team's Envoy, which has no internal hop
    timed: bool = True  # its stages; clocks cost, so one exchange in some is timed, see `Telemetry.begin`
    started: float = field(default_factory=time.perf_counter)  # seconds, monotonic
    consumer: Consumer = field(init=False)  # see Authenticate
    findings: Findings = field(default_factory=Findings)
    route: Route = field(default_factory=Route)
    money: Money = field(default_factory=Money)
    answer: ClientAnswer = field(default_factory=ClientAnswer)
    features: Features = field(default_factory=cast("Callable[[], Features]", dict))
    # the end, of whatever kind
    ending: Ending = field(init=False)
    error: str = ""  # code of the refusal, or of the early end
    seconds: float = 0.0  # from the request's headers to the end of the answer

    def end(self, *, refused: str = "", whole: bool = False, bug: bool = False) -> None:
        """Decide how the exchange ended. The first call counts: later events are consequences.

        `refused` is the code of a refusal. `whole`: the answer reached its end. `bug`: an exception of the gateway's
        own. With none of them Envoy closed the stream: the client left, or mid-stream the provider broke off.
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
        told = answer.report.error if whole and answer.report is not None else ""  # an error in the answer itself
        self.error = refused or answer.unreached or told or ending.code
        self.seconds = time.perf_counter() - self.started
