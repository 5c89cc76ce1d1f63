"""Budgets and rate limits: reserved before anything is spent, settled by what was.

A rate limit is a budget with a short window. Before a request leaves, an upper bound of what it can use is taken from
every budget it falls under, all or none; when it ended, however it ended, the bound is replaced by the truth. So
`settled + reserved <= limit` holds at every instant, with any number of requests in flight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from extproc.dialects import Report
from extproc.errors import BUDGET_EXCEEDED, RATE_LIMITED, STORE_UNAVAILABLE, Refusal
from extproc.exchange import Exchange, Target, Usage
from extproc.facts import check_fact, fact
from extproc.parameters import apply, output_limit
from extproc.stores import Counters, Denied, Hold, StoreError
from extproc.values import Name, Pattern, Section

LEASE = 60.0
"""Seconds a reservation outlives the last sign of its exchange."""

WINDOWS = {"minute": 60, "hour": 3600, "day": 86400, "total": 0}
_SHORT = 3600  # seconds: up to here a refusal is a 429 that clients retry, beyond it a 402 that they do not
_BYTES_PER_TOKEN = 3  # prose in English has four; counting three keeps an estimate from being too low
_IMAGE_TOKENS = 2000
_LEAST_OUTPUT = 16  # tokens: OpenAI's responses take no smaller limit
_THINKING = frozenset(("reasoning_effort", "reasoning", "thinking", "output_config"))
_UNLIMITED = 1 << 62
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
    unit: Literal["requests", "tokens", "input_tokens", "output_tokens"]
    limit: int = Field(ge=0, le=_UNLIMITED - 1)
    window: Literal["minute", "hour", "day", "total"]
    mode: Literal["enforce", "shadow"] = Field("enforce", description="shadow: count and report, never refuse")
    store_failure: Literal["deny", "allow"] = "deny"

    @field_validator("per")
    @classmethod
    def _fields(cls, value: Sequence[str]) -> Sequence[str]:
        for item in value:
            check_fact(item, "model", "provider")
        return value


@dataclass(slots=True, frozen=True)
class Budget:
    """A budget, compiled."""

    settings: BudgetSettings
    match: tuple[tuple[str, Pattern], ...]
    amount: _Amount
    window: int

    def covers(self, exchange: Exchange, target: Target) -> bool:
        return all(pattern(_value(field, exchange, target)) for field, pattern in self.match)

    def scope(self, exchange: Exchange, target: Target) -> str:
        parts = [f"{field}={_value(field, exchange, target)}" for field in self.settings.per]
        return ":".join([self.settings.name, *parts])


@dataclass(slots=True)
class Reservation:
    """What an exchange holds. `input_tokens` and `output_tokens` are upper bounds of what it can use."""

    id: str
    input_tokens: int
    output_tokens: int
    budgets: Sequence[tuple[Budget, str]] = ()  # with the scope of each hold, in the order of the holds
    held: bool = False  # False: the store knows nothing of it


class Reserve:
    """Writes `reservation`. 429 or 402 when a budget has no room, 503 when the store cannot say."""

    def __init__(
        self,
        budgets: Sequence[BudgetSettings],
        counters: Counters,
        leases: set[str],
        default_output: int,
        count: Callable[[str, str], None],
    ) -> None:
        self._budgets = [
            Budget(
                settings,
                tuple((field, Pattern(pattern)) for field, pattern in settings.match.items()),
                _UNITS[settings.unit],
                WINDOWS[settings.window],
            )
            for settings in budgets
        ]
        self._counters = counters
        self._leases = leases
        self._default_output = default_output
        self._count = count  # (budget, verdict)

    async def __call__(self, exchange: Exchange) -> None:
        budgets: dict[str, tuple[Budget, str]] = {}
        for budget in self._budgets:
            for target in exchange.targets:
                if budget.covers(exchange, target):
                    scope = budget.scope(exchange, target)
                    budgets[scope] = (budget, scope)
        counts_tokens = any(budget.settings.unit != "requests" for budget, _ in budgets.values())
        reservation = Reservation(exchange.id, input_bound(exchange), self._bound_output(exchange, counts_tokens))
        exchange.reservation = reservation
        if budgets:
            reservation.budgets = tuple(budgets.values())
            await self._hold(reservation)

    def _bound_output(self, exchange: Exchange, counts_tokens: bool) -> int:
        """The most the answer can hold, at whichever target. Writes `output_limits`, where a target's own limit has to
        stand in the request: it has none and one is counted on, or the client asks for more than the target may write.
        """
        ask = exchange.ask
        if ask.output_field is None:
            return 0
        usual = ask.usual_output or self._default_output
        most, limits = 0, []
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
            most = max(most, bound)
        exchange.output_limits = tuple(limits)
        return most * ask.choices

    async def _hold(self, reservation: Reservation) -> None:
        holds = [
            Hold(
                scope,
                budget.window,
                budget.settings.limit if budget.settings.mode == "enforce" else _UNLIMITED,
                budget.amount(reservation.input_tokens, reservation.output_tokens),
            )
            for budget, scope in reservation.budgets
        ]
        try:
            outcome = await self._counters.reserve(reservation.id, holds, LEASE, forwarded=True)
        except StoreError as error:
            self._store_failed(reservation, error)
            return
        if isinstance(outcome, Denied):
            budget = reservation.budgets[outcome.index][0]
            self._count(budget.settings.name, "denied")
            reservation.budgets = ()
            raise _refusal(budget, outcome, holds[outcome.index])
        reservation.held = True
        self._leases.add(reservation.id)
        for (budget, _), level in zip(reservation.budgets, outcome.levels, strict=True):
            if budget.settings.mode == "shadow" and level.settled + level.reserved > budget.settings.limit:
                self._count(budget.settings.name, "would_deny")

    def _store_failed(self, reservation: Reservation, error: StoreError) -> None:
        for budget, _ in reservation.budgets:
            self._count(budget.settings.name, "store_failure")
            if budget.settings.store_failure == "deny" and budget.settings.mode == "enforce":
                message = f"The budget {budget.settings.name!r} cannot be checked now; try again in a moment."
                raise Refusal(STORE_UNAVAILABLE, message, headers={"retry-after": "1"}) from error
        reservation.budgets = ()


class Settle:
    """Writes `usage` and gives the rest of the reservation back. Runs once, however the exchange ended."""

    def __init__(self, counters: Counters, leases: set[str], count: Callable[[str, str], None]) -> None:
        self._counters = counters
        self._leases = leases
        self._count = count  # (budget, verdict)

    async def __call__(self, exchange: Exchange) -> None:
        exchange.usage = usage = used(exchange)
        reservation = getattr(exchange, "reservation", None)
        if reservation is None or not reservation.held:
            return
        self._leases.discard(reservation.id)
        reached = exchange.forwarded and (exchange.target is not None or exchange.status == 0)
        target = exchange.target or exchange.targets[0]
        amounts = [
            budget.amount(usage.input_tokens, usage.output_tokens)
            if reached and budget.covers(exchange, target) and budget.scope(exchange, target) == scope
            else 0
            for budget, scope in reservation.budgets
        ]
        try:
            await self._counters.settle(reservation.id, amounts)
        except StoreError:  # the lease will run out and charge what was held
            for budget, _ in reservation.budgets:
                self._count(budget.settings.name, "settle_failed")


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


def used(exchange: Exchange) -> Usage:
    """What the exchange used, as well as anybody can know it.

    The provider's own count when there is a believable one. An answer without: the gateway's count of the input and of
    the text that was seen. Forwarded, and nobody knows what the provider did: what was held. Otherwise nothing.
    """
    if not exchange.forwarded or exchange.status >= 400 or exchange.ask.free:
        return Usage(source="none")
    report, reservation = exchange.report, exchange.reservation
    if report is not None and (usage := _counted(report)) is not None:
        return usage
    if exchange.status == 0 or exchange.ask.lasting:  # the client left before any answer began, or will not see it
        return Usage(reservation.input_tokens, reservation.output_tokens, source="estimated")
    ask = exchange.ask
    text = len(exchange.body) - ask.image_bytes
    input_tokens = min(reservation.input_tokens, estimate(text) + ask.images * _IMAGE_TOKENS)
    if report is None:
        return Usage(input_tokens, reservation.output_tokens, source="estimated")
    return Usage(input_tokens, max(estimate(report.output_bytes), report.output_events), source="estimated")


def _counted(report: Report) -> Usage | None:
    """The provider's own count; None where there is none, or it is nothing although there was something."""
    usage = report.told_usage or report.usage
    if usage is not None and (not usage.input_tokens or (report.output_bytes and not usage.output_tokens)):
        report.usage_refused = True
        return None
    return usage


def estimate(size: int) -> int:
    """About how many tokens `size` bytes of UTF-8 text are, rather too many than too few."""
    return math.ceil(size / _BYTES_PER_TOKEN)


def input_bound(exchange: Exchange) -> int:
    """No fewer tokens than the input can be: one for each byte of text, and a flat amount for each image."""
    ask = exchange.ask
    return 0 if ask.free else len(exchange.body) - ask.image_bytes + ask.images * _IMAGE_TOKENS


def _value(field: str, exchange: Exchange, target: Target) -> str:
    if field == "model":
        return target.name
    if field == "provider":
        return target.provider
    return fact(field, exchange)


def _refusal(budget: Budget, denied: Denied, hold: Hold) -> Refusal:
    settings = budget.settings
    resets = "" if denied.resets_in is None else f" It resets in {math.ceil(denied.resets_in)} s."
    message = (
        f"The budget {settings.name!r} of {settings.limit} {settings.unit} per {settings.window} has "
        f"{denied.remaining} left and this request may need {hold.amount}.{resets}"
    )
    if settings.window == "total":
        message = message.replace(" per total", "")
    if hold.amount > settings.limit:
        message += " It can never fit: send less, or ask for a shorter answer."
    if not 0 < budget.window <= _SHORT:
        return Refusal(BUDGET_EXCEEDED, message)
    reset = math.ceil(denied.resets_in or 0)
    unit = "requests" if settings.unit == "requests" else "tokens"
    headers = {
        "retry-after": str(max(1, reset)),
        f"x-ratelimit-limit-{unit}": str(settings.limit),
        f"x-ratelimit-remaining-{unit}": str(denied.remaining),
        f"x-ratelimit-reset-{unit}": f"{reset}s",
    }
    return Refusal(RATE_LIMITED, message, headers=headers)
