"""`budgets:` of the filter YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from extproc.access.auth.facts import check_fact
from extproc.upstream import prices
from extproc.words.values import Duration, ModelName, Name, PositiveDuration, Section, WebhookURL

WINDOWS: Mapping[str, int] = {
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 604800,
    "month": -1,  # calendar months, see `stores.window_at`
    "quarter": -3,
    "total": 0,
}
CALL = "call"
"""The window of a single request: its bound is compared with the limit, and nothing is counted."""
USD = "usd"
CONCURRENCY = "concurrency"
TOOL_CALLS = "tool_calls"
OF_CALLS = ("profile", "mcp_server", "tool")
"""Facts that only tool calls have."""
UNLIMITED = 1 << 62
RATE = 3600
"""Longest window of a rate, seconds. A refusal is a 429, which clients retry; with a longer window a 402, which they do
not.
"""
_HEADER = re.compile(r"[A-Za-z0-9._~!#$&'*+^`|-]+")  # characters of header names that names of counts can have too
_MOST_SCOPES = 1_000_000
_MOST = UNLIMITED - 1
_MOST_USD = 50_000_000  # lower than the most that a request can hold (`prices.MOST`)


Unit = Literal["requests", "tokens", "input_tokens", "output_tokens", "usd", "concurrency", "tool_calls"]
Window = Literal["minute", "hour", "day", "week", "month", "quarter", "total", "call"]
Mode = Literal["enforce", "shadow"]
OnExceed = Literal["refuse", "downgrade", "ask"]


def _share(value: object) -> object:
    if isinstance(value, int | float) and value > 1:
        raise ValueError("a share of the limit is at most 1: write 0.75 for 75 %")
    return value


class BudgetSettings(Section):
    """A budget: a limit on what requests use. A rate limit is a budget with a short window."""

    name: Name = Field(
        description="Name of the budget in messages, reports and metrics. A new unit needs a new name, because counts "
        "are kept by name."
    )
    match: Mapping[str, str] = Field(
        default_factory=dict,
        description="Requests that the budget applies to: a pattern for `consumer`, `team`, `key`, `model`, `provider` "
        "or `label.<name>`; of calls of tools also `profile`, `mcp_server` and `tool` (`server/tool`), and no `model` "
        "or `provider`. All patterns must match. Default: all requests.",
    )
    per: Sequence[str] = Field(
        (),
        max_length=4,
        description="Fields with a separate count for each value, at most 4: `consumer`, `team`, `key`, `model`, "
        "`provider`, `label.<name>`, `profile`, `mcp_server`, `tool`. Default: one count for all requests.",
    )
    unit: Unit = Field(
        description="Unit of the limit. `tokens` are input and output together. `concurrency` is requests at the same "
        "time. `tool_calls` are calls of tools by MCP. They count in budgets in `usd` and `concurrency` too, and in no "
        "others."
    )
    limit: Annotated[
        Decimal, Field(ge=0, le=_MOST), WithJsonSchema({"type": "number", "minimum": 0, "maximum": _MOST})
    ] = Field(description="Limit of each count, in `unit`. A whole number; USD may have up to nine decimals: `0.50`.")
    window: Window | None = Field(
        None,
        validate_default=True,
        description="Time after which a count begins anew, of the calendar in UTC. `total` never ends. `call` limits "
        "one request and counts nothing. Required, except for `concurrency`, which has none.",
    )
    mode: Mode = Field(
        "enforce",
        description="Effect of the limit. `enforce`: requests beyond it are refused. `shadow`: they are counted and "
        "reported, never refused. Start a new budget with `shadow`.",
    )
    reserve: Literal["worst", "expected"] | None = Field(
        None,
        description="Amount that is held before a request leaves. Default: all of the input, and the output limit that "
        "the client set; without one, the usual output, raised while the answer streams. `worst`: without one, the "
        "most that the model can write, so the limit always holds. `expected`: the usual amount of both, also where "
        "the client set a limit. Use it for agents with long contexts.",
    )
    on_exceed: OnExceed = Field(
        "refuse",
        description="Treatment of a request without room. `refuse`: 429 or 402. `downgrade`: the request goes to "
        "`downgrade_to`. `ask`: an operator is asked, and the request waits up to `wait`.",
    )
    wait: Duration = Field(
        0.0,
        le=600,
        description="Longest time that a request waits for an operator under `on_exceed: ask`, at most `10m`; then it "
        "gets 402 with the id of the question. Keep it below the timeout of the clients. `0s`: 402 at once.",
    )
    downgrade_to: ModelName | None = Field(
        None, description="Cheaper model or virtual model for `on_exceed: downgrade`. It must fit into the budget too."
    )
    alert_at: Sequence[Annotated[float, Field(gt=0, le=1), BeforeValidator(_share)]] = Field(
        (),
        max_length=8,
        description="Shares of the limit, for example `0.75`, from which on answers carry `x-ai-budget` and the "
        "webhook is called. At most 8.",
    )
    alert_webhook: WebhookURL | None = Field(
        None,
        description="URL that gets a POST when a count reaches a share of `alert_at`, once for each count and window, "
        "and for each question of `on_exceed: ask`. Incoming webhooks of Slack take it.",
    )
    max_granted: int = Field(
        10,
        ge=1,
        le=1000,
        description="Most room that operators' grants add to one count at a time, in multiples of `limit`, 1 to 1000. "
        "Further room has no effect, however many grants are given at once.",
    )
    missing: Literal["shared", "refuse"] = Field(
        "shared",
        description="Treatment of a request that lacks a label of `per`. `shared`: all such requests have one count. "
        "`refuse`: 400 `invalid_request`.",
    )
    idle_ttl: PositiveDuration = Field(
        30 * 86400.0,
        description="Time after which an unused count with `window: total` is forgotten. Raise it for long projects.",
    )
    max_scopes: int = Field(
        100_000,
        ge=1,
        le=_MOST_SCOPES,
        description="Most separate counts that one process keeps for this budget. Further consumers or labels share "
        "one count.",
    )
    store_failure: Literal["deny", "allow"] = Field(
        "deny",
        description="Treatment of requests while the counters store cannot answer. `deny`: 503 `store_unavailable`. "
        "`allow`: they are let through uncounted.",
    )

    @field_validator("match")
    @classmethod
    def _known(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for item in value:
            check_fact(item, "key", "model", "provider", *OF_CALLS)
        return value

    @field_validator("per")
    @classmethod
    def _fields(cls, value: Sequence[str]) -> Sequence[str]:
        for item in value:
            check_fact(item, "key", "model", "provider", *OF_CALLS)
            if not _HEADER.fullmatch(item):
                raise ValueError(f"{item!r}: a label is the name of a header, which cannot have these characters")
        return value

    @field_validator("limit")
    @classmethod
    def _countable(cls, value: Decimal, info: ValidationInfo) -> Decimal:
        unit = info.data.get("unit")
        if unit == USD and value > _MOST_USD:
            raise ValueError(f"a limit is at most {_MOST_USD} USD")
        if unit == USD and value * prices.NANO % 1:
            raise ValueError("a limit in USD has at most nine decimals")
        if unit != USD and (value % 1 or value >= UNLIMITED):
            raise ValueError(f"a limit is a whole number below {UNLIMITED}; only USD have decimals")
        return value

    @field_validator("window")
    @classmethod
    def _countable_in(cls, value: str | None, info: ValidationInfo) -> str | None:
        unit = info.data.get("unit")
        if unit == CONCURRENCY and value is not None:
            raise ValueError("unit: concurrency has no window: it counts requests at the same time")
        if unit not in (None, CONCURRENCY) and value is None:
            raise ValueError(f"give a window: {', '.join(WINDOWS)}, or {CALL}")
        if value == CALL and unit in ("requests", TOOL_CALLS):
            raise ValueError(f"window: call is one request, so unit: {unit} limits nothing")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> BudgetSettings:
        if (self.on_exceed == "downgrade") != (self.downgrade_to is not None):
            raise ValueError("on_exceed: downgrade and downgrade_to need each other")
        asks = self.on_exceed == "ask"
        if asks and (self.window == CALL or self.unit == CONCURRENCY):
            raise ValueError("on_exceed: ask needs a count over time: not window: call, not unit: concurrency")
        if self.wait and not asks:
            raise ValueError("wait is for on_exceed: ask")
        if self.alert_webhook is not None and not (self.alert_at or asks):
            raise ValueError("alert_webhook needs alert_at, the shares of the limit that it reports, or on_exceed: ask")
        if self.unit == TOOL_CALLS and self.downgrade_to is not None:
            raise ValueError("on_exceed: downgrade is for requests to models: a call of a tool has no other")
        if self.reserve == "expected" and self.unit in ("requests", CONCURRENCY, TOOL_CALLS):
            raise ValueError("reserve: expected needs a unit of tokens or USD: one request is always one")
        return self
