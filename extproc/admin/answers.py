"""Types of the admin API's answers and bodies: each answer is converted to its type, and `/openapi.json` shows the
types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from extproc.budgets.settings import Mode, OnExceed, Unit, Window
from extproc.ledger.query import MAX_LIMIT, Resolution
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


class Forget(Struct, forbid_unknown_fields=True):
    """Body of `POST /cache/forget`."""

    consumer: (
        Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$(?!\n)", description="null: of all consumers")] | None
    )


class Forgotten(Struct, kw_only=True):
    deleted: Annotated[int, Meta(ge=0, description="Answers that are no longer kept")]


# --- exchanges


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
    cache: Annotated[str, Meta(description="hit, shadow, miss or refresh")] | UnsetType = UNSET
    saved_usd: Annotated[str | float | None, Meta(description="Cost of the kept answer; null: unknown")] | UnsetType = (
        UNSET
    )
    charges: (
        Annotated[Mapping[str, int] | None, Meta(description="By scope, in the unit of its budget")] | UnsetType
    ) = UNSET


class Exchanges(Struct, kw_only=True):
    object: Literal["list"]
    data: Sequence[Exchange]


class ExchangesQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /exchanges`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most exchanges in the answer, the latest first")] = 100
    consumer: Annotated[Printable, Meta(description="Only exchanges of this consumer")] | UnsetType = UNSET
    team: Annotated[Printable, Meta(description="Only exchanges of this team")] | UnsetType = UNSET
    model: Annotated[Printable, Meta(description="Only for this model, as the client named it")] | UnsetType = UNSET
    status: Annotated[Status, Meta(description="Only with this status")] | UnsetType = UNSET
    error: Annotated[Printable, Meta(description="Only with this code")] | UnsetType = UNSET
    outcome: Annotated[Outcome, Meta(description="refused: by the gateway; error: failed otherwise")] | UnsetType = (
        UNSET
    )


# --- providers


class Deployment(Struct, kw_only=True):
    """Findings of tries about one model at its provider."""

    cooling_down_s: float | UnsetType = UNSET
    plain_s: float | UnsetType = UNSET
    streamed_first_byte_s: float | UnsetType = UNSET
    failing: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class Providers(Struct, kw_only=True):
    object: Literal["list"]
    data: Mapping[str, Deployment]
