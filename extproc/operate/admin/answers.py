"""Types of the admin API's answers and bodies: each answer is converted to its type, and `/openapi.json` shows the
types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from extproc.money.budgets.settings import Mode, OnExceed, Unit, Window
from extproc.money.ledger.query import MAX_LIMIT, Resolution
from extproc.words.exchange import Outcome

# Patterns end in `$(?!\n)`: in Python alone, `$` also matches before a last newline.
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

Truth = Literal["true", "false"]
MOMENT = {"anyOf": [{"format": "date"}, {"format": "date-time"}], "pattern": r"^(19[7-9]\d|[2-9]\d{3})-"}
"""The schema of a time in a parameter: the years 1970 to 9999."""
_MOMENT = Meta(extra_json_schema=MOMENT)


# --- errors


class ErrorText(Struct):
    message: str
    code: str


class Error(Struct):
    error: ErrorText


# --- usage


class Numbers(Struct, kw_only=True):
    requests: Count
    refused: Annotated[int, Meta(ge=0, description="By the gateway itself: no provider was called")]
    errors: Count
    input_tokens: Count
    output_tokens: Count
    cached_tokens: Count
    cache_write_tokens: Count
    reasoning_tokens: Count
    cost_usd: USD
    unpriced: Annotated[int, Meta(ge=0, description="Requests whose price is unknown; they are not in cost_usd")]
    cache_hits: Annotated[int, Meta(ge=0, description="Requests that a kept answer served")]
    saved_usd: Annotated[USD, Meta(description="Cost that those answers had")]
    shadow_hits: Annotated[int, Meta(ge=0, description="The same in shadow mode: requests that would have been served")]
    would_save_usd: Annotated[USD, Meta(description="Cost that these would have saved")]
    prompt_saved_usd: Annotated[USD, Meta(description="Cost that the prompt caches of providers saved: cached_tokens")]
    prompt_extra_usd: Annotated[USD, Meta(description="Cost of writing to them: cache_write_tokens")]


class UsageRow(Numbers, kw_only=True):
    """Sums of a group in a time."""

    start: Time
    end: Time
    group: Annotated[
        Mapping[str, str | None], Meta(description="A value for each field of group_by; a missing label is empty")
    ]


class Usage(Struct, kw_only=True):
    object: Literal["usage"]
    start: Time
    end: Annotated[str, Meta(description="Exclusive", extra_json_schema={"format": "date-time"})]
    resolution: Resolution
    group_by: Sequence[str]
    data: Sequence[UsageRow]
    total: Numbers
    truncated: Annotated[bool, Meta(description="There were more rows than a report has")]


class Latency(Struct, kw_only=True):
    """Times of a group's answers, in milliseconds; null without answers."""

    start: Time
    end: Time
    group: Mapping[str, str | None]
    answers: Count
    p50_ms: float | None
    p95_ms: float | None
    first_p50_ms: Annotated[float | None, Meta(description="To the first token")]
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
    finding: Annotated[str, Meta(description="The guardrail, and what it did")]
    exchanges: Count
    latest: Time


class Findings(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Finding]


# --- budgets and grants


class BudgetCount(Struct, kw_only=True):
    """One count of a budget: of a consumer, a team, a label's value, or of all."""

    scope: Annotated[str, Meta(description="Name of the count, for grants")]
    fields: Mapping[str, str]
    settled: Amount
    reserved: Amount
    granted: Amount
    remaining: Amount
    used: Annotated[float, Meta(description="The settled and reserved share of the limit")]


class Budget(Struct, kw_only=True):
    name: str
    unit: Unit
    window: Annotated[Window | None, Meta(description="null: concurrency, which has no window")]
    limit: Amount
    mode: Mode
    on_exceed: OnExceed
    alert_at: Annotated[Sequence[float], Meta(description="Shares of the limit that are reported")] = ()
    resets_at: Time | None
    scopes: Annotated[Sequence[BudgetCount], Meta(description="The fullest first")]


class Budgets(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Budget]


class Grant(Struct, kw_only=True):
    id: str
    budget: str
    scope: str
    amount: Amount
    expires_at: Time


class Grants(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Grant]


class NewGrant(Struct, forbid_unknown_fields=True):
    """Body of `POST /grants`."""

    budget: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)")]
    scope: Annotated[str, Meta(pattern=r"^[!-~]{1,2048}$(?!\n)")]
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
    bytes: Annotated[int, Meta(ge=0, description="In Redis: those of the whole server")]
    limit: Annotated[int, Meta(ge=0, description="Bytes; 0: none")]
    waiting: Annotated[int, Meta(ge=0, description="Requests that wait for the answer to an equal one")]
    failures: Annotated[int, Meta(ge=0, description="Calls that the store did not answer")]
    vectors: Annotated[int, Meta(ge=0, description="Questions that later ones are compared with")]
    vector_bytes: Count
    vector_failures: Annotated[int, Meta(ge=0, description="Vectors that the embedding model did not give")]
    verified_same: Annotated[int, Meta(ge=0, description="Near questions that the model of `verify` called the same")]
    verified_different: Annotated[int, Meta(ge=0, description="Those that it called different")]
    verify_failures: Annotated[int, Meta(ge=0, description="Those for which it gave no clear verdict in time")]


class SimilarQuestion(Struct, kw_only=True):
    """A question that came near to a kept one."""

    time: Annotated[float, Meta(description="Seconds since the epoch")]
    score: Annotated[float, Meta(description="1: the same")]
    hit: Annotated[bool, Meta(description="The score reached the threshold, and `verdict` is no other than same")]
    asked: Annotated[str, Meta(description="Digest of the question; with a secret, so it cannot be guessed")]
    kept: Annotated[str, Meta(description="Digest of the kept one")]
    consumer: str
    team: str
    model: str
    saved_usd: Annotated[float | None, Meta(description="Cost of the kept answer; null: unknown")]
    asked_text: Annotated[str, Meta(description="With `samples: texts` alone")] | UnsetType = UNSET
    kept_text: str | UnsetType = UNSET
    verdict: (
        Annotated[
            Literal["same", "different", "none"],
            Meta(description="The word of the model of `verify`; none: no clear one in time"),
        ]
        | UnsetType
    ) = UNSET


class SimilarQuestions(Struct, kw_only=True):
    object: Literal["list"]
    data: Annotated[Sequence[SimilarQuestion], Meta(description="The latest first, of this gateway")]


class Forget(Struct, forbid_unknown_fields=True):
    """Body of `POST /cache/forget`."""

    consumer: (
        Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$(?!\n)", description="null: of all consumers")] | None
    )


class Forgotten(Struct, kw_only=True):
    deleted: Annotated[int, Meta(ge=0, description="Answers that are no longer kept")]


# --- operators and keys

Role = Literal["viewer", "operator", "admin"]
KeyName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)")]


class CallbackQuery(Struct, kw_only=True):
    """The parameters of `GET /auth/callback`, from the identity provider."""

    code: Annotated[Printable, Meta(description="Of the identity provider")] | UnsetType = UNSET
    state: Annotated[Printable, Meta(description="Of the sign-in")] | UnsetType = UNSET


class Door(Struct, kw_only=True):
    """The listener for clients."""

    port: int
    tls: bool
    model: Annotated[str, Meta(description="A name to try; empty without models")]


class Me(Struct, kw_only=True):
    """The operator who asks."""

    name: str
    role: Role
    session: Annotated[bool, Meta(description="Signed on, and can sign off")] = False
    door: Door | None = None
    stale: Annotated[str, Meta(description="Why the settings in use are not those of the file")] = ""
    certificate: Annotated[str, Meta(description="When the listener's certificate ends, within days")] = ""


class Store(Struct, kw_only=True):
    """A store, as the running gateway reaches it."""

    problem: Annotated[str, Meta(description="Why it cannot be written; empty when it can")]
    remark: Annotated[str, Meta(description="What is wrong with its own settings")] = ""


class Stores(Struct, kw_only=True):
    """The stores that the gateway writes."""

    counters: Store
    ledger: Store


class Key(Struct, kw_only=True):
    """A gateway key, without the key itself."""

    id: Annotated[str, Meta(description="Empty for keys of the settings")]
    origin: Literal["console", "settings"]
    consumer: str
    name: Annotated[str, Meta(description="Reports call the key consumer#name")]
    state: Literal["active", "expired", "revoked", "disabled"]
    created: Time | None
    created_by: str
    expires_at: Time | None


class Keys(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Key]


class NewKey(Struct, forbid_unknown_fields=True):
    """Body of `POST /keys`."""

    consumer: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$(?!\n)", description="A consumer of the settings")]
    name: KeyName
    expires_in: Annotated[float, Meta(ge=60, le=3660 * 86400, description="Seconds; null: never")] | None = None


class IssuedKey(Key, kw_only=True):
    key: Annotated[str, Meta(description="The key itself: shown once, and stored as a hash")]


class Play(Struct, forbid_unknown_fields=True):
    """Body of `POST /playground`."""

    key: Annotated[str, Meta(pattern=r"^[!-~]{1,4096}$(?!\n)", description="A gateway key; it is not stored")]
    body: Annotated[Mapping[str, Any], Meta(description="Body of a request to /v1/chat/completions, not streamed")]


class Played(Struct, kw_only=True):
    status: int
    ms: Annotated[int, Meta(description="Milliseconds to the end of the answer")]
    headers: Annotated[Mapping[str, str], Meta(description="x-request-id and those of the gateway")]
    content: Annotated[str, Meta(description="The answer's body, up to 1 MiB")]
    cut: bool


class Act(Struct, kw_only=True):
    """One act of an operator."""

    id: str
    time: Time
    actor: str
    role: Role
    action: Annotated[str, Meta(description="The operation's id")]
    detail: Mapping[str, Any]


class Trail(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Act]


class TrailQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /audit`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most entries, the latest first")] = 100
    before: Annotated[Printable, Meta(description="Only entries before the one with this id")] | UnsetType = UNSET


# --- models


class ModelTarget(Struct, kw_only=True):
    name: str
    provider: str
    model: Annotated[str, Meta(description="Name at the provider")]
    context: Annotated[int | None, Meta(description="Tokens; null: unknown")]
    output_limit: Annotated[int | None, Meta(description="Most tokens of an answer; null: unknown")]
    unavailable: Annotated[str, Meta(description="Reason why it takes no requests; else empty")]
    usd_per_million: Annotated[Mapping[str, float] | None, Meta(description="By kind of token; null: unknown")]
    price_version: str


class Model(Struct, kw_only=True):
    """A name that clients may give."""

    name: str
    strategy: Annotated[str, Meta(description="Of a virtual model; else empty")]
    targets: Annotated[Sequence[ModelTarget], Meta(description="None for patterns")]
    consumers: Annotated[int, Meta(ge=0, description="Consumers that may use it")]


class Models(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Model]


class ModelsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /models`."""

    consumer: Annotated[Printable, Meta(description="Only names that this consumer may use")] | UnsetType = UNSET


# --- the ledger


class ForgetConsumer(Struct, forbid_unknown_fields=True):
    """Body of `POST /ledger/forget`."""

    consumer: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$(?!\n)")]
    delete: Annotated[bool, Meta(description="Delete the rows. Else they stay for their cost, of no consumer")] = False


class ForgottenConsumer(Struct, kw_only=True):
    rows: Annotated[int, Meta(ge=0, description="Rows of the ledger that were the consumer's")]
    answers: Annotated[int, Meta(ge=0, description="Answers that are no longer kept")]


class ExportQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /ledger/export`."""

    consumer: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$(?!\n)", description="Name of the consumer")]
    before: Annotated[Printable, Meta(description="Only rows before the one with this id")] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most rows in the answer")] = MAX_LIMIT


class Nothing(Struct, forbid_unknown_fields=True):
    """An empty object."""


# --- exchanges


class FailedTry(Struct, kw_only=True):
    """A try that failed: another target was asked, or nothing was left to ask."""

    target: str
    provider: str
    status: Annotated[int, Meta(description="Of the answer, or Envoy's own where none came")]
    ms: Annotated[int, Meta(description="Milliseconds that it took")]
    outcome: Annotated[str, Meta(description="connect, reset, timeout, cut, a status or a class of statuses, …")]


class Exchange(Struct, kw_only=True):
    """One exchange, as the log has it or, later, the ledger. Fields that are not known are left out."""

    id: str
    request_id: str
    time: Annotated[
        str | float, Meta(description="RFC 3339 when it began (ledger), or seconds since the epoch when it ended (log)")
    ]
    event: str | UnsetType = UNSET
    operation: str | UnsetType = UNSET
    consumer: str | UnsetType = UNSET
    team: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    labels: Mapping[str, str] | UnsetType = UNSET
    model: Annotated[str, Meta(description="Model as the client named it")] | UnsetType = UNSET
    target: Annotated[str, Meta(description="The entry of `models` that served")] | UnsetType = UNSET
    provider: str | UnsetType = UNSET
    provider_model: str | UnsetType = UNSET
    response_model: str | UnsetType = UNSET
    attempts: Count | UnsetType = UNSET
    tries: Annotated[Sequence[FailedTry], Meta(description="Those that failed, in order")] | UnsetType = UNSET
    status: Annotated[int, Meta(description="0: no answer was sent")]
    error: Annotated[str, Meta(description="Code of the refusal, or of the early end; else empty")]
    outcome: Annotated[Outcome, Meta(description="refused: by the gateway; error: failed otherwise")]
    stream: bool | UnsetType = UNSET
    complete: bool | UnsetType = UNSET
    finish_reasons: Sequence[str] | UnsetType = UNSET
    input_tokens: Count | UnsetType = UNSET
    output_tokens: Count | UnsetType = UNSET
    cached_tokens: Count | UnsetType = UNSET
    cache_write_tokens: Count | UnsetType = UNSET
    reasoning_tokens: Count | UnsetType = UNSET
    usage_source: str | UnsetType = UNSET
    cost_usd: Annotated[str | float | None, Meta(description="null: the price is unknown")] | UnsetType = UNSET
    prompt_saved_usd: (
        Annotated[str | float, Meta(description="Cost that the provider's prompt cache saved")] | UnsetType
    ) = UNSET
    prompt_extra_usd: Annotated[str | float, Meta(description="Cost of writing to it")] | UnsetType = UNSET
    price_version: str | UnsetType = UNSET
    duration_ms: float | UnsetType = UNSET
    first_token_ms: float | UnsetType | None = UNSET
    unread: (
        Annotated[bool, Meta(description="Its answer passed unread: tokens and times are from Envoy's log")] | UnsetType
    ) = UNSET
    skipped: Annotated[Mapping[str, str], Meta(description="Targets and why they were not tried")] | UnsetType = UNSET
    guardrails: Sequence[str] | UnsetType = UNSET
    denied_by: str | UnsetType = UNSET
    downgraded: str | UnsetType = UNSET
    cache: (
        Annotated[str, Meta(description="hit, partial, similar, shadow, similar_shadow, miss or refresh")] | UnsetType
    ) = UNSET
    warning: Annotated[str, Meta(description="Advice about the request")] | UnsetType = UNSET
    similarity: Annotated[float, Meta(description="Score of the question in other words")] | UnsetType = UNSET
    saved_usd: Annotated[str | float | None, Meta(description="Cost of the kept answer; null: unknown")] | UnsetType = (
        UNSET
    )
    charges: (
        Annotated[Mapping[str, int] | None, Meta(description="By scope, in the unit of its budget")] | UnsetType
    ) = UNSET
    profile: Annotated[str, Meta(description="Of a message by MCP, as the fields below")] | UnsetType = UNSET
    mcp_server: str | UnsetType = UNSET
    tool: Annotated[str, Meta(description="The server's own name of it")] | UnsetType = UNSET
    mcp_protocol: str | UnsetType = UNSET
    mcp_session: Annotated[str, Meta(description="Digest of the session's id")] | UnsetType = UNSET
    rpc_id: str | int | UnsetType | None = UNSET
    request_bytes: Count | UnsetType = UNSET
    answer_bytes: Count | UnsetType = UNSET
    arguments_sha256: str | UnsetType = UNSET
    tainted: Annotated[Sequence[str], Meta(description="Untrusted tools that answered in the run")] | UnsetType = UNSET


class Exchanges(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Exchange]


class ExchangesQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /exchanges`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most exchanges in the answer, the latest first")] = 100
    start: Annotated[str, _MOMENT, Meta(description="Date or RFC 3339 time, inclusive")] | UnsetType = UNSET
    end: Annotated[str, _MOMENT, Meta(description="Date or RFC 3339 time, exclusive")] | UnsetType = UNSET
    before: Annotated[Printable, Meta(description="Only exchanges before the one with this id")] | UnsetType = UNSET
    findings: Annotated[Truth, Meta(description="Only exchanges in which guardrails found something")] | UnsetType = (
        UNSET
    )
    consumer: Annotated[Printable, Meta(description="Only exchanges of this consumer")] | UnsetType = UNSET
    team: Annotated[Printable, Meta(description="Only exchanges of this team")] | UnsetType = UNSET
    key: Annotated[Printable, Meta(description="Only with this key")] | UnsetType = UNSET
    provider: Annotated[Printable, Meta(description="Only served by this provider")] | UnsetType = UNSET
    target: Annotated[Printable, Meta(description="Only served by this entry of `models`")] | UnsetType = UNSET
    model: Annotated[Printable, Meta(description="Only for this model, as the client named it")] | UnsetType = UNSET
    status: Annotated[Status, Meta(description="Only with this status")] | UnsetType = UNSET
    error: Annotated[Printable, Meta(description="Only with this code")] | UnsetType = UNSET
    outcome: Annotated[Outcome, Meta(description="refused: by the gateway; error: failed otherwise")] | UnsetType = (
        UNSET
    )


# --- tools


_DefinitionKind = Annotated[str, Meta(description="Its kind, as in the keys of `mcp.lock.yaml`")]


class Definition(Struct, kw_only=True):
    """A definition as its server gives it now: a tool, prompt, resource or template, or the server's instructions."""

    name: str
    kind: _DefinitionKind
    state: Literal["listed", "disabled", "changed", "withheld"]
    reason: Annotated[str, Meta(description="Why it is not listed; else empty")]
    digest: Annotated[str, Meta(description="sha256 of its canonical JSON, as `mcp.lock.yaml` has it")]
    pinned: Annotated[str | None, Meta(description="The digest in the lock file; null: none")] = None
    definition: Annotated[Mapping[str, Any], Meta(description="With `definitions=true`")] | UnsetType = UNSET


class LeftOut(Struct, kw_only=True):
    """A definition that cannot be offered by its name, or beyond a limit."""

    kind: _DefinitionKind
    name: str
    reason: str


class ToolServer(Struct, kw_only=True):
    """An MCP server."""

    name: str
    error: Annotated[str, Meta(description="Why its lists could not be read the last time; else empty")]
    read_at: Annotated[float | None, Meta(description="Seconds since the epoch; null: its lists were never read")]
    tools: Sequence[Definition]
    others: Annotated[Sequence[Definition], Meta(description="Prompts, resources, templates and instructions")]
    left_out: Sequence[LeftOut]


class ToolServers(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[ToolServer]


class ToolsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /tools`."""

    definitions: Annotated[Truth, Meta(description="Give the definitions, too")] = "false"


# --- providers


class Deployment(Struct, kw_only=True):
    """Findings of tries about one model at its provider."""

    cooling_down_s: float | UnsetType = UNSET
    cooling_consumers: float | UnsetType = UNSET
    plain_s: float | UnsetType = UNSET
    streamed_first_byte_s: float | UnsetType = UNSET
    failing: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class Providers(Struct, kw_only=True):
    object: Literal["list"]
    data: Mapping[str, Deployment]
