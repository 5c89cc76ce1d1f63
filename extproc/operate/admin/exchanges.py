"""Types of the admin API's answers about single exchanges: those that ended, and those in flight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from extproc.money.budgets.settings import Unit
from extproc.money.ledger.query import MAX_LIMIT
from extproc.operate.admin.answers import MOMENT, Amount, Count, Maybe, Printable, Status, Truth, describes, list_of
from extproc.words.exchange import Outcome

_is = describes
_MOMENT = Meta(extra_json_schema=MOMENT)


class FailedTry(Struct, kw_only=True):
    """A try that failed: another target was asked, or nothing was left to ask."""

    target: str
    provider: str
    status: Annotated[int, _is("Of the answer, or Envoy's own where none came")]
    ms: Annotated[int, _is("Milliseconds that it took")]
    outcome: Annotated[str, _is("connect, reset, timeout, cut, a status or a class of statuses, …")]


class LevelBefore(Struct, kw_only=True):
    """A count of a budget when the exchange asked for room, in the unit of the budget (nano-USD for money)."""

    before: Annotated[int, _is("Used or held by others")]
    limit: Annotated[int, _is("With the room that was granted")]
    asked: Annotated[int, _is("Held for this exchange, or refused to it")]


class AnswerTraits(Struct, kw_only=True):
    """Traits of an answer that is compared with others. Left out: nothing of the kind was asked for."""

    refused: Maybe[bool] = UNSET
    malformed: Maybe[Annotated[bool | None, _is("No JSON where it had to be, or JSON that breaks its schema")]] = UNSET
    calls: Maybe[Annotated[Sequence[str] | None, _is("Called tools, each with a digest of its arguments")]] = UNSET


class Spending(Struct, kw_only=True):
    """Tokens and cost of an exchange."""

    input_tokens: Maybe[Count] = UNSET
    output_tokens: Maybe[Count] = UNSET
    cached_tokens: Maybe[Count] = UNSET
    cache_write_tokens: Maybe[Count] = UNSET
    reasoning_tokens: Maybe[Count] = UNSET
    usage_source: Maybe[str] = UNSET
    cost_usd: Maybe[Annotated[str | float | None, _is("null: the price is unknown")]] = UNSET
    prompt_saved_usd: Maybe[Annotated[str | float, _is("Cost that the provider's prompt cache saved")]] = UNSET
    prompt_extra_usd: Maybe[Annotated[str | float, _is("Cost of writing to it")]] = UNSET
    price_version: Maybe[str] = UNSET
    saved_usd: Maybe[Annotated[str | float | None, _is("Cost of the kept answer; null: unknown")]] = UNSET
    charges: Maybe[Annotated[Mapping[str, int] | None, _is("By scope, in the unit of its budget")]] = UNSET
    levels: Maybe[
        Annotated[Mapping[str, LevelBefore], _is("By scope; a refused exchange has the one without room")]
    ] = UNSET


class Exchange(Spending, kw_only=True):
    """One exchange, as the log has it or, later, the ledger. Fields that are not known are left out."""

    id: str
    request_id: str
    time: Annotated[str | float, _is("RFC 3339 when it began (ledger), or seconds since the epoch when it ended (log)")]
    event: Maybe[str] = UNSET
    operation: Maybe[str] = UNSET
    consumer: Maybe[str] = UNSET
    team: Maybe[str] = UNSET
    key: Maybe[str] = UNSET
    labels: Maybe[Mapping[str, str]] = UNSET
    run: Maybe[Annotated[str, _is("Name of the run: a label, or a trace")]] = UNSET
    model: Maybe[Annotated[str, _is("Model as the client named it")]] = UNSET
    target: Maybe[Annotated[str, _is("The entry of `models` that served")]] = UNSET
    provider: Maybe[str] = UNSET
    provider_model: Maybe[str] = UNSET
    response_model: Maybe[str] = UNSET
    attempts: Maybe[Count] = UNSET
    tries: Maybe[Annotated[Sequence[FailedTry], _is("Those that failed, in order")]] = UNSET
    status: Annotated[int, _is("0: no answer was sent")]
    error: Annotated[str, _is("Code of the refusal, or of the early end; else empty")]
    outcome: Annotated[Outcome, _is("refused: by the gateway; error: failed otherwise")]
    stream: Maybe[bool] = UNSET
    complete: Maybe[bool] = UNSET
    finish_reasons: Maybe[Sequence[str]] = UNSET
    duration_ms: Maybe[float] = UNSET
    first_token_ms: Maybe[float | None] = UNSET
    endpoint: Maybe[Annotated[str, _is("Endpoint of a pool that answered, `ip:port`")]] = UNSET
    pool_wait_ms: Maybe[Annotated[float, _is("Wait for room at an endpoint, milliseconds")]] = UNSET
    skipped: Maybe[Annotated[Mapping[str, str], _is("Targets and why they were not tried")]] = UNSET
    guardrails: Maybe[Sequence[str]] = UNSET
    traits: Maybe[AnswerTraits | None] = UNSET
    denied_by: Maybe[str] = UNSET
    downgraded: Maybe[str] = UNSET
    cache: Maybe[Annotated[str, _is("hit, partial, similar, shadow, similar_shadow, miss or refresh")]] = UNSET
    warning: Maybe[Annotated[str, _is("Advice about the request")]] = UNSET
    similarity: Maybe[Annotated[float, _is("Score of the question in other words")]] = UNSET
    profile: Maybe[Annotated[str, _is("Of a message by MCP, as the fields below")]] = UNSET
    mcp_server: Maybe[str] = UNSET
    tool: Maybe[Annotated[str, _is("The server's own name of it")]] = UNSET
    mcp_protocol: Maybe[str] = UNSET
    mcp_session: Maybe[Annotated[str, _is("Digest of the session's id")]] = UNSET
    rpc_id: Maybe[str | int | None] = UNSET
    request_bytes: Maybe[Count] = UNSET
    answer_bytes: Maybe[Count] = UNSET
    arguments_sha256: Maybe[str] = UNSET
    tainted: Maybe[Annotated[Sequence[str], _is("Untrusted tools that answered in the run")]] = UNSET


Exchanges = list_of("Exchanges", Exchange)


class Held(Struct, kw_only=True):
    """An amount that an exchange holds of one count."""

    budget: str
    scope: str
    unit: Unit
    amount: Amount


class ExchangeInFlight(Struct, kw_only=True):
    """An exchange that has not ended. Fields that are not known yet are left out."""

    id: str
    request_id: str
    seconds: Annotated[float, _is("Since its headers came")]
    state: Annotated[
        Literal["deciding", "waiting", "answering"], _is("waiting: for a provider; answering: the answer has begun")
    ]
    holds: Sequence[Held]
    consumer: Maybe[str] = UNSET
    team: Maybe[str] = UNSET
    key: Maybe[str] = UNSET
    run: Maybe[str] = UNSET
    model: Maybe[str] = UNSET
    stream: Maybe[bool] = UNSET
    provider: Maybe[str] = UNSET
    provider_model: Maybe[str] = UNSET


InFlight = list_of("InFlight", ExchangeInFlight)


class ExchangesQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /exchanges`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most exchanges in the answer, the latest first")] = 100
    start: Maybe[Annotated[str, _MOMENT, _is("Date or RFC 3339 time, inclusive")]] = UNSET
    end: Maybe[Annotated[str, _MOMENT, _is("Date or RFC 3339 time, exclusive")]] = UNSET
    before: Maybe[Annotated[Printable, _is("Only exchanges before the one with this id")]] = UNSET
    findings: Maybe[Annotated[Truth, _is("Only exchanges in which guardrails found something")]] = UNSET
    run: Maybe[Annotated[Printable, _is("Only exchanges of this run")]] = UNSET
    consumer: Maybe[Annotated[Printable, _is("Only exchanges of this consumer")]] = UNSET
    team: Maybe[Annotated[Printable, _is("Only exchanges of this team")]] = UNSET
    key: Maybe[Annotated[Printable, _is("Only with this key")]] = UNSET
    provider: Maybe[Annotated[Printable, _is("Only served by this provider")]] = UNSET
    target: Maybe[Annotated[Printable, _is("Only served by this entry of `models`")]] = UNSET
    model: Maybe[Annotated[Printable, _is("Only for this model, as the client named it")]] = UNSET
    status: Maybe[Annotated[Status, _is("Only with this status")]] = UNSET
    error: Maybe[Annotated[Printable, _is("Only with this code")]] = UNSET
    outcome: Maybe[Annotated[Outcome, _is("refused: by the gateway; error: failed otherwise")]] = UNSET
