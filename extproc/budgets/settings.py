"""`budgets:` of the filter YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from extproc import prices
from extproc.words.facts import check_fact
from extproc.words.values import ModelName, Name, PositiveDuration, Section

WINDOWS: Mapping[str, int] = {
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 604800,
    "month": -1,  # in calendar months, see `stores.window_at`
    "quarter": -3,
    "total": 0,
}
CALL = "call"
"""The window of one request: what it may need is compared with the limit, and nothing is counted."""
USD = "usd"
CONCURRENCY = "concurrency"
UNLIMITED = 1 << 62
RATE = 3600
"""Seconds: up to here a window is a rate. A refusal is a 429 that clients retry; beyond it a 402 that they do not."""
_HEADER = re.compile(r"[A-Za-z0-9._~!#$&'*+^`|-]+")  # what names of headers are made of, and of counts can be
_MOST_SCOPES = 1_000_000
_MOST = UNLIMITED - 1
_MOST_USD = 50_000_000  # less than what any request is held for at most (`prices.MOST`)


Unit = Literal["requests", "tokens", "input_tokens", "output_tokens", "usd", "concurrency"]
Window = Literal["minute", "hour", "day", "week", "month", "quarter", "total", "call"]
Mode = Literal["enforce", "shadow"]
OnExceed = Literal["refuse", "downgrade", "approval"]


class BudgetSettings(Section):
    name: Name
    match: Mapping[str, str] = Field(
        default_factory=dict,
        description="Patterns for consumer, team, key, model, provider, label.x; all of them have to match",
    )
    per: Sequence[str] = Field(
        (), max_length=4, description="A count for each consumer, team, key, model, provider, label.x"
    )
    unit: Unit
    limit: Annotated[
        Decimal, Field(ge=0, le=_MOST), WithJsonSchema({"type": "number", "minimum": 0, "maximum": _MOST})
    ] = Field(description="A whole number; USD may have decimals: 0.50")
    window: Window | None = Field(
        None,
        validate_default=True,
        description="Of the calendar, UTC; total: never ends; call: the most that one request may need. "
        "Only concurrency, which is given back at the end of each request, has none",
    )
    mode: Mode = Field("enforce", description="shadow: count and report, never refuse")
    reserve: Literal["worst", "expected"] = Field(
        "worst",
        description="What is held before a request leaves. worst: all it can use, so that the limit is never passed; "
        "expected: what such requests usually use, topped up while the answer streams",
    )
    on_exceed: OnExceed = Field(
        "refuse",
        description="downgrade: ask `downgrade_to` instead; approval: 402 until an operator grants more (POST /grants)",
    )
    downgrade_to: ModelName | None = Field(None, description="A model or virtual model that needs less of the budget")
    alert_at: Sequence[Annotated[float, Field(gt=0, le=1)]] = Field(
        (), max_length=8, description="Shares of the limit, for example 0.75, from which on answers carry x-ai-budget"
    )
    alert_webhook: str | None = Field(
        None, description="A URL that each share of `alert_at` is posted to, once for each count and window"
    )
    missing: Literal["shared", "refuse"] = Field(
        "shared", description="A label of `per` that a request lacks. shared: those count together; refuse: 400"
    )
    idle_ttl: PositiveDuration = Field(
        30 * 86400.0, description="A count of the window total that nobody used for so long is forgotten"
    )
    max_scopes: int = Field(
        100_000, ge=1, le=_MOST_SCOPES, description="Counts of `per` in one process; what comes later counts together"
    )
    store_failure: Literal["deny", "allow"] = "deny"

    @field_validator("match")
    @classmethod
    def _known(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for item in value:
            check_fact(item, "key", "model", "provider")
        return value

    @field_validator("per")
    @classmethod
    def _fields(cls, value: Sequence[str]) -> Sequence[str]:
        for item in value:
            check_fact(item, "key", "model", "provider")
            if not _HEADER.fullmatch(item):
                raise ValueError(f"{item!r}: a label comes in a header, whose name has no such characters")
        return value

    @field_validator("limit")
    @classmethod
    def _countable(cls, value: Decimal, info: ValidationInfo) -> Decimal:
        unit = info.data.get("unit")
        if unit == USD and value > _MOST_USD:
            raise ValueError(f"at most {_MOST_USD} USD")
        if unit == USD and value * prices.NANO % 1:
            raise ValueError("at most nine decimals of a USD")
        if unit != USD and (value % 1 or value >= UNLIMITED):
            raise ValueError(f"a whole number below {UNLIMITED}; only USD have decimals")
        return value

    @field_validator("window")
    @classmethod
    def _countable_in(cls, value: str | None, info: ValidationInfo) -> str | None:
        unit = info.data.get("unit")
        if unit == CONCURRENCY and value is not None:
            raise ValueError("concurrency is of the moment: it has no window")
        if unit not in (None, CONCURRENCY) and value is None:
            raise ValueError(f"say over what time: {', '.join(WINDOWS)}, or {CALL}")
        if value == CALL and unit == "requests":
            raise ValueError("a call is one request: there is nothing to limit")
        return value

    @field_validator("alert_webhook")
    @classmethod
    def _posted(cls, value: str | None) -> str | None:
        url = urlsplit(value or "https://none")
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
            raise ValueError("a URL: https://host/path, without a password")
        url.port  # noqa: B018 - raises ValueError
        return value

    @model_validator(mode="after")
    def _agrees(self) -> BudgetSettings:
        if (self.on_exceed == "downgrade") != (self.downgrade_to is not None):
            raise ValueError("on_exceed: downgrade and downgrade_to: a model belong together")
        if self.on_exceed == "approval" and (self.window == CALL or self.unit == CONCURRENCY):
            raise ValueError("approval is for what is counted over a time: there is no count to grant more of")
        if self.alert_webhook is not None and not self.alert_at:
            raise ValueError("alert_webhook needs alert_at: the shares of the limit to tell of")
        if self.reserve == "expected" and self.unit in ("requests", CONCURRENCY):
            raise ValueError("reserve: expected is for tokens and USD: a request is one, whatever it turns out to be")
        return self
