"""Refusals and rate-limit headers of budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from extproc.money.budgets.budget import Claim
from extproc.money.budgets.settings import RATE, TOOL_CALLS
from extproc.stores import Denied, Hold, Level
from extproc.words.contract import TOLD
from extproc.words.errors import (
    APPROVAL_DENIED,
    APPROVAL_REQUIRED,
    BUDGET_EXCEEDED,
    EXCEEDS_LIMIT,
    RATE_LIMITED,
    Refusal,
)

APPROVAL = TOLD + "approval"
"""Header of refusals with the id of the question to an operator."""


def too_dear(claim: Claim) -> Refusal:
    """The refusal of a request that may need more than `window: call` allows."""
    budget = claim.budget
    message = (
        f"Budget {budget.settings.name!r} allows {budget.show(budget.limit, unit=True)} per call; this request "
        f"may need {budget.show(claim.amount)}. Send less, or ask for a shorter answer."
    )
    return Refusal(BUDGET_EXCEEDED, message)


def exceeded(claim: Claim, denied: Denied, granted: int = 0) -> Refusal:
    """The refusal of a request whose count has no room. `granted` is the room that operators gave beyond the limit."""
    budget, settings = claim.budget, claim.budget.settings
    limit = budget.limit + granted
    if budget.is_slot:
        message = f"Budget {settings.name!r} allows {budget.show(limit, unit=True)}: try again when one has ended."
        return Refusal(RATE_LIMITED, message, headers={"retry-after": "1"})
    resets = "" if denied.resets_in is None else f" It resets in {_span(denied.resets_in)}."
    per = "" if settings.window == "total" else f" per {settings.window}"
    message = (
        f"Budget {settings.name!r} of {budget.show(limit, unit=True)}{per} has {budget.show(denied.remaining)} left; "
        f"this request may need {budget.show(claim.amount)}.{resets}"
    )
    if budget.asks:
        return Refusal(APPROVAL_REQUIRED, message)
    if claim.amount > limit:
        message += " The request can never fit: send less, or ask for a shorter answer."
    if budget.counts_money or not 0 < budget.window <= RATE:
        return Refusal(BUDGET_EXCEEDED, message)
    rate = _rate(claim, limit, denied.remaining, denied.resets_in)
    if claim.amount > limit > 0:  # no wait helps this client; 0 is a limit that an operator lowered
        return Refusal(EXCEEDS_LIMIT, message, headers=rate)
    headers = {"retry-after": str(max(1, math.ceil(denied.resets_in or 0)))}
    return Refusal(RATE_LIMITED, message, headers={**headers, **rate})


def unanswered(refusal: Refusal, id: str) -> Refusal:
    """The refusal while no operator has answered the question of that id."""
    message = f"{refusal.message} An operator is asked, question {id}: send the same request again once it is approved."
    return Refusal(APPROVAL_REQUIRED, message, headers={APPROVAL: id})


def unasked(refusal: Refusal) -> Refusal:
    """The refusal when an operator could not be asked."""
    message = f"{refusal.message} Too many questions to operators are open: ask again later."
    return Refusal(APPROVAL_REQUIRED, message)


def turned_down(claim: Claim, id: str, reason: str) -> Refusal:
    """The refusal when an operator denied the request."""
    why = f": {reason}" if reason else ""
    message = f"Budget {claim.budget.name!r} has no room, and an operator denied the request (question {id}){why}"
    return Refusal(APPROVAL_DENIED, message.rstrip(".") + ".", headers={APPROVAL: id})


def rates(claims: Sequence[Claim], holds: Sequence[Hold], levels: Sequence[Level]) -> Mapping[str, str]:
    """Headers with the remaining amounts of the tightest budget in requests and the tightest in tokens, as OpenAI
    writes them (https://platform.openai.com/docs/guides/rate-limits). Only windows up to an hour are rates.
    """
    tightest: dict[str, tuple[float, Claim, int, int, float | None]] = {}
    for claim, hold, level in zip(claims, holds, levels, strict=True):
        budget = claim.budget
        if not budget.is_rate or claim.approved is not None:
            continue
        left = max(0, hold.limit - level.settled - level.reserved)
        share = left / hold.limit if hold.limit else 0.0
        known = tightest.get(kind := _kind(claim))
        if known is None or share < known[0]:
            tightest[kind] = share, claim, hold.limit, left, level.resets_in
    headers: dict[str, str] = {}
    for _, claim, limit, left, resets_in in tightest.values():
        headers |= _rate(claim, limit, left, resets_in)
    return headers


_NAMES = {
    kind: (f"x-ratelimit-limit-{kind}", f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}")
    for kind in ("requests", "tokens")
}


def _kind(claim: Claim) -> str:
    return "requests" if claim.budget.settings.unit in ("requests", TOOL_CALLS) else "tokens"


def _rate(claim: Claim, limit: int, left: int, resets_in: float | None) -> Mapping[str, str]:
    limited, remaining, reset = _NAMES[_kind(claim)]
    return {limited: str(limit), remaining: str(left), reset: f"{math.ceil(resets_in or 0)}s"}


def _span(seconds: float) -> str:
    """`45 s`, `5 h`, `12 days`: rounded up, so that a client which waits for it finds the budget reset."""
    for size, unit in ((86400, "days"), (3600, "h")):
        if seconds > 2 * size:
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{math.ceil(seconds)} s"
