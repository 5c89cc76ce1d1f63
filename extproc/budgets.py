"""Budgets and rate limits: reserved before anything is spent. `settle` replaces that by what was.

A rate limit is a budget with a short window. Before a request leaves, an upper bound of what it can use is taken from
every budget it falls under, all or none; when it ended, however it ended, the bound is replaced by the truth. So
`settled + reserved <= limit` holds at every instant, with any number of requests in flight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from extproc import prices
from extproc.errors import BUDGET_EXCEEDED, RATE_LIMITED, STORE_UNAVAILABLE, Refusal
from extproc.exchange import Exchange, Target, Usage
from extproc.facts import check_fact, fact
from extproc.media import dearest
from extproc.parameters import apply, output_limit
from extproc.stores import Counters, Denied, Granted, Hold, StoreError, window_at
from extproc.values import Name, Pattern, Section

LEASE = 60.0
"""Seconds a reservation outlives the last sign of its exchange."""

WINDOWS = {
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
_SHORT = 3600  # seconds: up to here a refusal is a 429 that clients retry, beyond it a 402 that they do not
_BYTES_PER_TOKEN = 3  # prose in English has four; counting three keeps an estimate from being too low
_LEAST_OUTPUT = 16  # tokens: OpenAI's responses take no smaller limit
_THINKING = frozenset(("reasoning_effort", "reasoning", "thinking", "output_config"))
_UNLIMITED = 1 << 62
_MOST_USD = 50_000_000  # less than what any request is held for at most (`prices.MOST`)
_Amount = Callable[[int, int], int]
_UNITS: Mapping[str, _Amount] = {
    "requests": lambda _input, _output: 1,
    "tokens": lambda input_, output: input_ + output,
    "input_tokens": lambda input_, _output: input_,
    "output_tokens": lambda _input, output: output,
}


class BudgetSettings(Section):
    name: Name
    match: Mapping[Literal["consumer", "team", "model", "provider"], str] = Field(
        default_factory=dict, description="Patterns; a request falls under the budget when all of them match"
    )
    per: Sequence[str] = Field(
        (), max_length=4, description="A count for each consumer, team, model, provider, label.x"
    )
    unit: Literal["requests", "tokens", "input_tokens", "output_tokens", "usd"]
    limit: Annotated[Decimal, Field(ge=0), WithJsonSchema({"type": "number", "minimum": 0})] = Field(
        description="A whole number; USD may have decimals: 0.50"
    )
    window: Literal["minute", "hour", "day", "week", "month", "quarter", "total", "call"] = Field(
        description="Of the calendar, UTC; total: never ends; call: the most that one request may need"
    )
    mode: Literal["enforce", "shadow"] = Field("enforce", description="shadow: count and report, never refuse")
    alert_at: Sequence[Annotated[float, Field(gt=0, le=1)]] = Field(
        (), max_length=8, description="Shares of the limit, for example 0.75, from which on answers carry x-ai-budget"
    )
    store_failure: Literal["deny", "allow"] = "deny"

    @field_validator("per")
    @classmethod
    def _fields(cls, value: Sequence[str]) -> Sequence[str]:
        for item in value:
            check_fact(item, "model", "provider")
        return value

    @field_validator("limit")
    @classmethod
    def _countable(cls, value: Decimal, info: ValidationInfo) -> Decimal:
        unit = info.data.get("unit")
        if unit == USD and value > _MOST_USD:
            raise ValueError(f"at most {_MOST_USD} USD")
        if unit == USD and value * prices.NANO % 1:
            raise ValueError("at most nine decimals of a USD")
        if unit != USD and (value % 1 or value >= _UNLIMITED):
            raise ValueError(f"a whole number below {_UNLIMITED}; only USD have decimals")
        return value

    @field_validator("window")
    @classmethod
    def _countable_in(cls, value: str, info: ValidationInfo) -> str:
        if value == CALL and info.data.get("unit") == "requests":
            raise ValueError("a call is one request: there is nothing to limit")
        return value


@dataclass(slots=True, frozen=True)
class Budget:
    """A budget, compiled. Amounts and the limit are whole: of its unit, and nano-USD where that is money."""

    settings: BudgetSettings
    match: tuple[tuple[str, Pattern], ...]
    limit: int
    window: int
    alert_at: float  # the lowest share that is told; infinite: none

    @property
    def counts_money(self) -> bool:
        return self.settings.unit == USD

    def covers(self, exchange: Exchange, target: Target) -> bool:
        return all(pattern(_value(field, exchange, target)) for field, pattern in self.match)

    def scope(self, exchange: Exchange, target: Target) -> str:
        parts = [f"{field}={_value(field, exchange, target)}" for field in self.settings.per]
        return ":".join([self.settings.name, *parts])

    def bound(self, target: Target, reservation: Reservation, output_tokens: int) -> int:
        """The most that the request can use, at `target` where `output_tokens` is the most it can write."""
        if not self.counts_money:
            return _UNITS[self.settings.unit](reservation.input_tokens, reservation.output_tokens)
        return 0 if target.price is None else prices.bound(target.price, reservation.input_tokens, output_tokens)

    def charge(self, usage: Usage, cost: int | None) -> int:
        """What was used; a price that is unknown counts as nothing."""
        if self.counts_money:
            return cost or 0
        return _UNITS[self.settings.unit](usage.input_tokens, usage.output_tokens)

    def show(self, amount: int, *, unit: bool = False) -> str:
        """An amount for people. With `unit`, tokens and requests say what they are too; money always does."""
        if self.counts_money:
            return f"{prices.decimal(amount)} USD"
        return f"{amount} {self.settings.unit}" if unit else f"{amount}"


def compile_budget(settings: BudgetSettings) -> Budget:
    return Budget(
        settings,
        tuple((field, Pattern(pattern)) for field, pattern in settings.match.items()),
        int(settings.limit * (prices.NANO if settings.unit == USD else 1)),
        WINDOWS.get(settings.window, 0),
        min(settings.alert_at, default=math.inf),
    )


@dataclass(slots=True, frozen=True)
class Claim:
    """What a request wants of one budget."""

    budget: Budget
    scope: str
    amount: int


@dataclass(slots=True)
class Reservation:
    """What an exchange holds. `input_tokens` and `output_tokens` are upper bounds of what it can use."""

    id: str
    input_tokens: int
    output_tokens: int
    outputs: Sequence[int] = ()  # the bound at each target
    claims: Sequence[Claim] = ()  # in the order of the holds
    calls: Sequence[Claim] = ()  # of budgets for one request, which hold nothing
    held: bool = False  # False: the store knows nothing of it


class Unpriced:
    """Which budget keeps a request from a target whose price nobody knows: its name, or None."""

    def __init__(self, budgets: Sequence[BudgetSettings]) -> None:
        self._budgets = [compile_budget(entry) for entry in budgets if entry.unit == USD and entry.mode == "enforce"]

    def __call__(self, exchange: Exchange, target: Target) -> str | None:
        if target.price is not None or exchange.ask.free:
            return None
        return next((budget.settings.name for budget in self._budgets if budget.covers(exchange, target)), None)


class Reserve:
    """Writes `reservation`. 429 or 402 when a budget has no room, 503 when the store cannot say."""

    def __init__(
        self,
        budgets: Sequence[BudgetSettings],
        counters: Counters,
        leases: set[str],
        default_output: int,
        count: Callable[[str, str], None],
        *,
        used: Callable[[str, float, float | None], None] = lambda _budget, _share, _ends: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._budgets = [compile_budget(settings) for settings in budgets]
        self._counters = counters
        self._leases = leases
        self._default_output = default_output
        self._count = count  # (budget, verdict)
        self._used = used  # (budget, share of the limit that is spent in its fullest count, when its window ends)
        self._now = now
        self._fullest: dict[str, tuple[int, float]] = {}  # budget -> number of its window, that share

    async def __call__(self, exchange: Exchange) -> None:
        covered = [
            (budget, index)
            for budget in self._budgets
            for index, target in enumerate(exchange.targets)
            if budget.covers(exchange, target)
        ]
        counts_tokens = any(budget.settings.unit != "requests" for budget, _ in covered)
        outputs = self._bound_output(exchange, counts_tokens)
        reservation = Reservation(exchange.id, input_bound(exchange), max(outputs, default=0), outputs)
        exchange.reservation = reservation
        claims: dict[str, Claim] = {}
        for budget, index in covered:
            target = exchange.targets[index]
            free = exchange.ask.free and budget.counts_money
            amount = 0 if free else budget.bound(target, reservation, outputs[index] if outputs else 0)
            scope = budget.scope(exchange, target)
            if scope not in claims or amount > claims[scope].amount:
                claims[scope] = Claim(budget, scope, amount)
        for claim in claims.values():
            if claim.budget.settings.window == CALL:
                self._check_call(claim)
                reservation.calls = [*reservation.calls, claim]
            else:
                reservation.claims = [*reservation.claims, claim]
        if reservation.claims:
            exchange.alert = await self._hold(reservation)

    def _bound_output(self, exchange: Exchange, counts_tokens: bool) -> Sequence[int]:
        """The most the answer can hold at each target. Writes `output_limits`, where a target's own limit has to stand
        in the request: it has none and one is counted on, or the client asks for more than the target may write.
        """
        ask = exchange.ask
        if ask.output_field is None:
            return ()
        usual = ask.usual_output or self._default_output
        bounds, limits = [], []
        for target in exchange.targets:
            asked = limit = output_limit(target.changes, ask.max_output_tokens)
            ceiling = target.max_output_tokens
            if limit is None and counts_tokens:
                limit = ask.usual_output or ceiling or self._default_output
            if limit is not None and ceiling is not None:
                limit = min(limit, ceiling)
            limits.append(None if limit == asked else limit)
            bound = limit or usual
            if exchange.translated:
                bound = _translated(bound, _thinking(exchange, target), ceiling)
            bounds.append(bound * ask.choices)
        exchange.output_limits = tuple(limits)
        return bounds

    def _check_call(self, claim: Claim) -> None:
        budget, settings = claim.budget, claim.budget.settings
        if claim.amount <= budget.limit:
            return
        if settings.mode == "shadow":
            self._count(settings.name, "would_deny")
            return
        self._count(settings.name, "denied")
        message = (
            f"The budget {settings.name!r} allows {budget.show(budget.limit, unit=True)} per call and this request may "
            f"need {budget.show(claim.amount)}. Send less, or ask for a shorter answer."
        )
        raise Refusal(BUDGET_EXCEEDED, message)

    async def _hold(self, reservation: Reservation) -> str:
        """Take what is claimed. The budget that is to be told of, and its share; or nothing."""
        holds = [
            Hold(
                claim.scope,
                claim.budget.window,
                claim.budget.limit if claim.budget.settings.mode == "enforce" else _UNLIMITED,
                claim.amount,
            )
            for claim in reservation.claims
        ]
        try:
            outcome = await self._counters.reserve(reservation.id, holds, LEASE, forwarded=True)
        except StoreError as error:
            self._store_failed(reservation, error)
            return ""
        if isinstance(outcome, Denied):
            claim = reservation.claims[outcome.index]
            self._count(claim.budget.settings.name, "denied")
            reservation.claims = ()
            raise _refusal(claim, outcome)
        reservation.held = True
        self._leases.add(reservation.id)
        return self._look_at(reservation.claims, outcome)

    def _look_at(self, claims: Sequence[Claim], outcome: Granted) -> str:
        alert, most = "", 0.0
        for claim, level in zip(claims, outcome.levels, strict=True):
            budget, name = claim.budget, claim.budget.settings.name
            if budget.settings.mode == "shadow" and level.settled + level.reserved > budget.limit:
                self._count(name, "would_deny")
            share = level.settled / budget.limit if budget.limit else 1.0
            window, ends = window_at(self._now(), budget.window)
            if name not in self._fullest or self._fullest[name] < (window, share):
                self._fullest[name] = window, share
                self._used(name, share, ends)
            if share >= budget.alert_at and share > most:
                alert, most = f"{name}; used={share:.2f}", share
        return alert

    def _store_failed(self, reservation: Reservation, error: StoreError) -> None:
        for claim in reservation.claims:
            settings = claim.budget.settings
            self._count(settings.name, "store_failure")
            if settings.store_failure == "deny" and settings.mode == "enforce":
                message = f"The budget {settings.name!r} cannot be checked now; try again in a moment."
                raise Refusal(STORE_UNAVAILABLE, message, headers={"retry-after": "1"}) from error
        reservation.claims = ()


def _translated(limit: int, thinking: int, ceiling: int | None) -> int:
    """The most that a translation can make of a limit: some APIs count thinking beside it that others include, and some
    take none that is smaller.
    """
    raised = limit + thinking
    return max(raised if ceiling is None else min(raised, ceiling), _LEAST_OUTPUT)


def _thinking(exchange: Exchange, target: Target) -> int:
    """Tokens of thinking that the request asks for, as the target changes it."""
    if not any(name in _THINKING for name, *_ in target.changes):
        return exchange.ask.thinking
    fields, removed = apply(target.changes, exchange.json, exchange.ask.output_field)
    body = {name: value for name, value in {**exchange.json, **fields}.items() if name not in removed}
    return exchange.dialect.read(body).thinking


def estimate(size: int) -> int:
    """About how many tokens `size` bytes of UTF-8 text are, rather too many than too few."""
    return math.ceil(size / _BYTES_PER_TOKEN)


def input_bound(exchange: Exchange) -> int:
    """No fewer tokens than the input can be: one for each byte of text, what its images can come to, and what providers
    write themselves.
    """
    ask = exchange.ask
    if ask.free:
        return 0
    images = dearest(ask.images, ask.image_tokens, (target.model for target in exchange.targets))
    return len(exchange.body) - ask.image_bytes + images + ask.added_tokens


def _value(field: str, exchange: Exchange, target: Target) -> str:
    if field == "model":
        return target.name
    if field == "provider":
        return target.provider
    return fact(field, exchange)


def _refusal(claim: Claim, denied: Denied) -> Refusal:
    budget, settings = claim.budget, claim.budget.settings
    resets = "" if denied.resets_in is None else f" It resets in {_span(denied.resets_in)}."
    per = "" if settings.window == "total" else f" per {settings.window}"
    message = (
        f"The budget {settings.name!r} of {budget.show(budget.limit, unit=True)}{per} has "
        f"{budget.show(denied.remaining)} left and this request may need {budget.show(claim.amount)}.{resets}"
    )
    if claim.amount > budget.limit:
        message += " It can never fit: send less, or ask for a shorter answer."
    if budget.counts_money or not 0 < budget.window <= _SHORT:
        return Refusal(BUDGET_EXCEEDED, message)
    reset = math.ceil(denied.resets_in or 0)
    unit = "requests" if settings.unit == "requests" else "tokens"
    headers = {
        "retry-after": str(max(1, reset)),
        f"x-ratelimit-limit-{unit}": str(budget.limit),
        f"x-ratelimit-remaining-{unit}": str(denied.remaining),
        f"x-ratelimit-reset-{unit}": f"{reset}s",
    }
    return Refusal(RATE_LIMITED, message, headers=headers)


def _span(seconds: float) -> str:
    """`45 s`, `5 h`, `12 days`: rounded up, so that whoever waits so long finds it reset."""
    for size, unit in ((86400, "days"), (3600, "h")):
        if seconds > 2 * size:
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{math.ceil(seconds)} s"
