"""Types of the admin API's answers and bodies: each answer is converted to its type, and `/openapi.json` shows the
types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import GenericAlias
from typing import Annotated, Any, Literal, TypeVar, Union

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from extproc.money.budgets.settings import Mode, OnExceed, Unit, Window
from extproc.money.ledger.query import MAX_LIMIT, Resolution

# Patterns end in `$(?!\n)`, because Python's `$` also matches before a last newline.
Count = Annotated[int, Meta(ge=0)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Amount = Annotated[
    str,
    Meta(
        pattern=r"^-?[0-9]+(\.[0-9]+)?$(?!\n)",
        description="Exact: USD with decimals, or a whole number of requests or tokens",
    ),
]
USD = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$(?!\n)", description="Exact USD")]
Printable = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Status = Annotated[str, Meta(pattern=r"^[0-9]{1,3}$(?!\n)")]
ConsumerName = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$(?!\n)")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)")]

MAX_ENTRY = (1 << 63) - 1
Truth = Literal["true", "false"]
MOMENT = {"anyOf": [{"format": "date"}, {"format": "date-time"}], "pattern": r"^(19[7-9]\d|[2-9]\d{3})-"}
"""The schema of a time in a parameter: the years 1970 to 9999."""


T = TypeVar("T")
Maybe = Union[T, UnsetType]  # noqa: UP007 - a `T | UnsetType` is no alias to mypy
"""The type of a field that may be left out."""


def describes(text: str) -> Meta:
    """The description of a field."""
    return Meta(description=text)


_is = describes


def _count(text: str) -> Meta:
    """The description of a number that is 0 or more."""
    return Meta(ge=0, description=text)


def list_of(name: str, row: type[Struct]) -> type[Struct]:
    """The answer with all objects of one type."""
    return defstruct(name, [("object", Literal["list"]), ("data", GenericAlias(Sequence, (row,)))], kw_only=True)


# --- errors


class ErrorText(Struct):
    message: str
    code: str


class Error(Struct):
    error: ErrorText


# --- usage


class Numbers(Struct, kw_only=True):
    requests: Count
    refused: Annotated[int, _count("By the gateway itself: no provider was called")]
    errors: Count
    input_tokens: Count
    output_tokens: Count
    cached_tokens: Count
    cache_write_tokens: Count
    reasoning_tokens: Count
    cost_usd: USD
    unpriced: Annotated[int, _count("Requests whose price is unknown; they are not in cost_usd")]
    cache_hits: Annotated[int, _count("Requests that a kept answer served")]
    saved_usd: Annotated[USD, _is("Cost that those answers had")]
    shadow_hits: Annotated[int, _count("The same in shadow mode: requests that would have been served")]
    would_save_usd: Annotated[USD, _is("Cost that these would have saved")]
    prompt_saved_usd: Annotated[USD, _is("Cost that the prompt caches of providers saved: cached_tokens")]
    prompt_extra_usd: Annotated[USD, _is("Cost of writing to them: cache_write_tokens")]


class UsageRow(Numbers, kw_only=True):
    """Sums of a group in a time."""

    start: Time
    end: Time
    group: Annotated[Mapping[str, str | None], _is("A value for each field of group_by; a missing label is empty")]


class Hardware(Struct, kw_only=True):
    """The cost of own hardware in the time of a report, the part that requests used, and the idle rest."""

    usd: USD
    used_usd: USD
    idle_usd: Annotated[str, _is("Below zero where requests cost more than the hardware")]


class Usage(Struct, kw_only=True):
    object: Literal["usage"]
    start: Time
    end: Annotated[str, Meta(description="Exclusive", extra_json_schema={"format": "date-time"})]
    resolution: Resolution
    group_by: Sequence[str]
    data: Sequence[UsageRow]
    total: Numbers
    truncated: Annotated[bool, _is("There were more rows than a report has")]
    capacity: Annotated[
        Mapping[str, Hardware], _is("Providers on own hardware; in reports of all requests, or of some providers")
    ]


class Latency(Struct, kw_only=True):
    """Times of a group's answers, in milliseconds; null without answers."""

    start: Time
    end: Time
    group: Mapping[str, str | None]
    answers: Count
    p50_ms: float | None
    p95_ms: float | None
    first_p50_ms: Annotated[float | None, _is("To the first token")]
    first_p95_ms: float | None


class Latencies(Struct, kw_only=True):
    object: Literal["latency"]
    start: Time
    end: Time
    resolution: Resolution
    group_by: Sequence[str]
    data: Sequence[Latency]
    truncated: bool


class Finding(Struct, kw_only=True):
    finding: Annotated[str, _is("The guardrail, and what it did")]
    exchanges: Count
    latest: Time


Findings = list_of("Findings", Finding)


# --- budgets and grants


class BudgetCount(Struct, kw_only=True):
    """One count of a budget: of a consumer, a team, a label's value, or of all."""

    scope: Annotated[str, _is("Name of the count, for grants")]
    fields: Mapping[str, str]
    settled: Amount
    reserved: Amount
    granted: Amount
    remaining: Amount
    used: Annotated[float, _is("The settled and reserved share of the limit")]


class Budget(Struct, kw_only=True):
    name: str
    unit: Unit
    window: Annotated[Window | None, _is("null: concurrency, which has no window")]
    limit: Amount
    mode: Mode
    on_exceed: OnExceed
    alert_at: Annotated[Sequence[float], _is("Shares of the limit that are reported")] = ()
    resets_at: Time | None
    scopes: Annotated[Sequence[BudgetCount], _is("The fullest first")]


Budgets = list_of("Budgets", Budget)


class Grant(Struct, kw_only=True):
    id: str
    budget: str
    scope: str
    amount: Amount
    expires_at: Time


Grants = list_of("Grants", Grant)


Scope = Annotated[str, Meta(pattern=r"^[!-~]{1,2048}$(?!\n)")]


class NewGrant(Struct, forbid_unknown_fields=True):
    """Body of `POST /grants`."""

    budget: Name
    scope: Scope
    amount: Annotated[
        str,
        Meta(
            pattern=r"^(?=.*[1-9])(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$(?!\n)",
            description="More than 0, in the budget's unit",
        ),
    ]
    expires_in: (
        Annotated[float, Meta(ge=1, le=366 * 86400, description="Seconds; without it, until the window ends")] | None
    ) = None


# --- the cache of answers


class Cache(Struct, kw_only=True):
    entries: Count
    bytes: Annotated[int, _count("In Redis: those of the whole server")]
    limit: Annotated[int, _count("Bytes; 0: none")]
    waiting: Annotated[int, _count("Requests that wait for the answer to an equal one")]
    failures: Annotated[int, _count("Calls that the store did not answer")]
    vectors: Annotated[int, _count("Questions that later ones are compared with")]
    vector_bytes: Count
    vector_failures: Annotated[int, _count("Vectors that the embedding model did not give")]
    verified_same: Annotated[int, _count("Near questions that the model of `verify` called the same")]
    verified_different: Annotated[int, _count("Those that it called different")]
    verify_failures: Annotated[int, _count("Those for which it gave no clear verdict in time")]


SameQuestion = Literal["same", "different", "none"]


class SimilarQuestion(Struct, kw_only=True):
    """A question that came near to a kept one."""

    time: Annotated[float, _is("Seconds since the epoch")]
    score: Annotated[float, _is("1: the same")]
    hit: Annotated[bool, _is("The score reached the threshold, and `verdict` is no other than same")]
    asked: Annotated[str, _is("Digest of the question; with a secret, so it cannot be guessed")]
    kept: Annotated[str, _is("Digest of the kept one")]
    consumer: str
    team: str
    model: str
    saved_usd: Annotated[float | None, _is("Cost of the kept answer; null: unknown")]
    asked_text: Maybe[Annotated[str, _is("With `samples: texts` alone")]] = UNSET
    kept_text: Maybe[str] = UNSET
    verdict: Maybe[Annotated[SameQuestion, _is("Word of the model of `verify`; none: no clear one in time")]] = UNSET


SimilarQuestions = list_of("SimilarQuestions", SimilarQuestion)


class Forget(Struct, forbid_unknown_fields=True):
    """Body of `POST /cache/forget`."""

    consumer: Annotated[ConsumerName, _is("null: of all consumers")] | None


class Forgotten(Struct, kw_only=True):
    deleted: Annotated[int, _count("Answers that are no longer kept")]


# --- operators and keys

Role = Literal["viewer", "operator", "admin"]


class CallbackQuery(Struct, kw_only=True):
    """The parameters of `GET /auth/callback`, from the identity provider."""

    code: Maybe[Annotated[Printable, _is("Of the identity provider")]] = UNSET
    state: Maybe[Annotated[Printable, _is("Of the sign-in")]] = UNSET


class Door(Struct, kw_only=True):
    """The listener for clients."""

    port: int
    tls: bool
    model: Annotated[str, _is("A name to try; empty without models")]


class Me(Struct, kw_only=True):
    """The operator who asks."""

    name: str
    role: Role
    session: Annotated[bool, _is("Signed on, and can sign off")] = False
    door: Door | None = None
    trace_link: Annotated[str, _is("Address of a request's trace; {id} stands for the request's id")] = ""
    stale: Annotated[str, _is("Why the settings in use are not those of the file")] = ""
    certificate: Annotated[str, _is("When the listener's certificate ends, within days")] = ""


class Store(Struct, kw_only=True):
    """A store, as the running gateway reaches it."""

    problem: Annotated[str, _is("Why it cannot be written; empty when it can")]
    remark: Annotated[str, _is("What is wrong with its own settings")] = ""


class Stores(Struct, kw_only=True):
    """The stores that the gateway writes."""

    counters: Store
    ledger: Store


class Key(Struct, kw_only=True):
    """A gateway key, without the key itself."""

    id: Annotated[str, _is("Empty for keys of the settings")]
    origin: Literal["console", "settings"]
    consumer: str
    name: Annotated[str, _is("Reports call the key consumer#name")]
    ending: Annotated[str, _is("Last four characters of the key; empty for keys of the settings")] = ""
    state: Literal["active", "expired", "revoked", "disabled"]
    created: Time | None
    created_by: str
    expires_at: Time | None


Keys = list_of("Keys", Key)


class NewKey(Struct, forbid_unknown_fields=True):
    """Body of `POST /keys`."""

    consumer: Annotated[ConsumerName, _is("A consumer of the settings")]
    name: Name
    expires_in: Annotated[float, Meta(ge=60, le=3660 * 86400, description="Seconds; null: never")] | None = None


class IssuedKey(Key, kw_only=True):
    key: Annotated[str, _is("The key itself: shown once, and stored as a hash")]


class Play(Struct, forbid_unknown_fields=True):
    """Body of `POST /playground`."""

    key: Annotated[str, Meta(pattern=r"^[!-~]{1,4096}$(?!\n)", description="A gateway key; it is not stored")]
    body: Annotated[Mapping[str, Any], _is("Body of a request to /v1/chat/completions")]
    stream: Annotated[bool, _is("Answer with server-sent events: `piece`s, at last `played` or `error`")] = False


class Played(Struct, kw_only=True):
    status: int
    ms: Annotated[int, _is("Milliseconds to the end of the answer")]
    headers: Annotated[Mapping[str, str], _is("x-request-id and those of the gateway")]
    content: Annotated[str, _is("The answer's body, up to 1 MiB; empty if it was streamed")]
    cut: bool


class Explain(Struct, forbid_unknown_fields=True):
    """Body of `POST /explain`: a request to explain."""

    model: Printable
    consumer: ConsumerName
    path: Annotated[str, Meta(pattern=r"^(/[!-~]{0,256})?$(?!\n)", description="Empty: /v1/chat/completions")] = ""
    labels: Annotated[Mapping[str, Printable], Meta(max_length=32)] = {}
    body: Annotated[Mapping[str, Any] | None, _is("null: a minimal request. It is not stored")] = None


class Explained(Struct, kw_only=True):
    """The way of a request, as `extproc check --explain` prints it."""

    lines: Sequence[str]
    forwarded: Annotated[bool, _is("False: the gateway would refuse it")]


class SettingsText(Struct, kw_only=True):
    """The settings file."""

    file: str
    text: Annotated[str, _is("Empty if the file is larger than 48 KiB: change single values")]
    digest: Annotated[str, _is("SHA-256 of the text")]
    may_apply: Annotated[bool, _is("Changes may be written: admin.apply_settings")]


class Edit(Struct, forbid_unknown_fields=True):
    """A single value in the settings."""

    path: Annotated[
        Sequence[str | int],
        Meta(min_length=1, max_length=16, description="Keys, and names or numbers of entries of lists"),
    ]
    value: str | int | float | bool | None


class ChangeSettings(Struct, forbid_unknown_fields=True):
    """Body of `POST /settings`: a new text, or single values."""

    digest: Annotated[str, _is("That of the file which is changed")]
    text: Annotated[str | None, _is("The new text; null: as it stands")] = None
    edits: Annotated[Sequence[Edit], Meta(max_length=64)] = ()
    apply: Annotated[bool, _is("Write the file if it loads")] = False


class SettingsChange(Struct, kw_only=True):
    """A change of the settings, and the verdict of `extproc check`."""

    text: Annotated[str, _is("Empty if it is larger than 48 KiB")]
    difference: Annotated[str, _is("As `diff -u` shows it")]
    loads: bool
    lines: Annotated[Sequence[str], _is("Errors, or warnings")]
    applied: bool
    digest: Annotated[str, _is("That of the file as it stands now")]


class ProvidersAsked(Struct, kw_only=True):
    """Answers of providers, as `extproc check --live` prints them."""

    well: bool
    lines: Sequence[str]


class Texts(Struct, kw_only=True):
    """Recorded texts of an exchange, in the form of the client's API."""

    id: str
    recorded_at: str
    consumer: str
    path: Annotated[str, _is("The client's path, without its query")]
    request: str
    answer: Annotated[str, _is("A streamed answer is its events")]
    cut: Annotated[bool, _is("The request or the answer was longer than record.most")]
    withheld: Annotated[bool, _is("A guardrail found something in the answer, which is left out")]


class TrailEntry(Struct, kw_only=True):
    """One entry of the audit trail."""

    number: Annotated[int, _count("Place in the trail, from 1")]
    hash: Annotated[str, _is("Binds the entry to all before it")]
    event: Annotated[Mapping[str, Any], _is("In the Elastic Common Schema; empty where its consumer was forgotten")]


Trail = list_of("Trail", TrailEntry)


class TrailQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /audit`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most entries, the latest first")] = 100
    before: Maybe[Annotated[int, Meta(ge=1, le=MAX_ENTRY, description="Only entries before this number")]] = UNSET


# --- models


class ModelTarget(Struct, kw_only=True):
    name: str
    provider: str
    model: Annotated[str, _is("Name at the provider")]
    context: Annotated[int | None, _is("Tokens; null: unknown")]
    output_limit: Annotated[int | None, _is("Most tokens of an answer; null: unknown")]
    unavailable: Annotated[str, _is("Reason why it takes no requests; else empty")]
    usd_per_million: Annotated[Mapping[str, float] | None, _is("By kind of token; null: unknown")]
    price_version: str


class Model(Struct, kw_only=True):
    """A name that clients may give."""

    name: str
    strategy: Annotated[str, _is("Of a virtual model; else empty")]
    targets: Annotated[Sequence[ModelTarget], _is("None for patterns")]
    consumers: Annotated[int, _count("Consumers that may use it")]


Models = list_of("Models", Model)


class ModelsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /models`."""

    consumer: Maybe[Annotated[Printable, _is("Only names that this consumer may use")]] = UNSET


# --- the ledger


class ForgetConsumer(Struct, forbid_unknown_fields=True):
    """Body of `POST /ledger/forget`."""

    consumer: ConsumerName
    delete: Annotated[bool, _is("Delete the rows. Else they stay for their cost, of no consumer")] = False


class ForgottenConsumer(Struct, kw_only=True):
    rows: Annotated[int, _count("Rows of the ledger that were the consumer's")]
    answers: Annotated[int, _count("Answers that are no longer kept")]


class ExportQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /ledger/export`."""

    consumer: Annotated[ConsumerName, _is("Name of the consumer")]
    before: Maybe[Annotated[Printable, _is("Only rows before the one with this id")]] = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most rows in the answer")] = MAX_LIMIT


class Nothing(Struct, forbid_unknown_fields=True):
    """An empty object."""


# --- tools


_DefinitionKind = Annotated[str, _is("Its kind, as in the keys of `mcp.lock.yaml`")]


class Definition(Struct, kw_only=True):
    """A definition as its server gives it now: a tool, prompt, resource or template, or the server's instructions."""

    name: str
    kind: _DefinitionKind
    state: Literal["listed", "disabled", "changed", "withheld"]
    reason: Annotated[str, _is("Why it is not listed; else empty")]
    app: Annotated[bool, _is("True for the page of an app (`ui://`), and for a tool that names one")] = False
    digest: Annotated[str, _is("sha256 of its canonical JSON, as `mcp.lock.yaml` has it")]
    pinned: Annotated[str | None, _is("The digest in the lock file; null: none")] = None
    definition: Maybe[Annotated[Mapping[str, Any], _is("With `definitions=true`")]] = UNSET


class LeftOut(Struct, kw_only=True):
    """A definition that cannot be offered by its name, or beyond a limit."""

    kind: _DefinitionKind
    name: str
    reason: str


class ToolServer(Struct, kw_only=True):
    """An MCP server."""

    name: str
    error: Annotated[str, _is("Why its lists could not be read the last time; else empty")]
    read_at: Annotated[float | None, _is("Seconds since the epoch; null: its lists were never read")]
    tools: Sequence[Definition]
    others: Annotated[Sequence[Definition], _is("Prompts, resources, templates and instructions")]
    left_out: Sequence[LeftOut]


ToolServers = list_of("ToolServers", ToolServer)


class ToolsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /tools`."""

    definitions: Annotated[Truth, _is("Give the definitions, too")] = "false"


# --- providers


class Deployment(Struct, kw_only=True):
    """Findings of tries about one model at its provider."""

    cooling_down_s: Maybe[float] = UNSET
    cooling_consumers: Maybe[float] = UNSET
    plain_s: Maybe[float] = UNSET
    streamed_first_byte_s: Maybe[float] = UNSET
    ttft_p95_s: Maybe[float] = UNSET
    tokens_per_s: Maybe[float] = UNSET
    failing: Maybe[Annotated[float, Meta(ge=0, le=1)]] = UNSET
    cooled: Maybe[
        Annotated[Sequence[tuple[float, float]], describes("Cool-downs of the last day, in epoch seconds")]
    ] = UNSET


class Providers(Struct, kw_only=True):
    object: Literal["list"]
    data: Mapping[str, Deployment]
