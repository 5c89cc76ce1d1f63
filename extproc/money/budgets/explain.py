"""Budgets in the explanation of a request: `extproc check --explain`."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.money.budgets.budget import Claim, read_scope
from extproc.words.exchange import Exchange, Reservation
from extproc.words.values import show_duration


def explain_claim(claim: Claim, verb: str = "") -> str:
    """The amount that a request holds of a budget."""
    budget, window = claim.budget, claim.budget.settings.window
    whose = ", ".join(f"{name}={value}" for name, value in read_scope(claim.scope)[1].items()) or "shared by all"
    per = {"total": " in all", None: ""}.get(window, f" per {window}")
    return f"{budget.name} ({whose}): {verb}{budget.show(claim.amount)} of {budget.show(budget.limit, unit=True)}{per}"


def explain_reservation(reservation: Reservation[Claim]) -> Iterator[str]:
    """Each budget that a request falls under, and the outcome if the budget has no room."""
    for claim in (*reservation.claims, *reservation.calls):
        budget, settings = claim.budget, claim.budget.settings
        text = explain_claim(claim, "holds at most ")
        if settings.reserve == "expected":
            text += ", less once usual lengths are known"
        elif reservation.usual and budget.grows and not budget.strict:
            text += ", the usual output, and more while the answer streams"
        if settings.mode == "shadow":
            text += ", too much" if claim.amount > budget.limit else ""
            text += ", but shadow never refuses"
        elif settings.on_exceed == "downgrade":
            text += f"; without room it goes to {settings.downgrade_to}"
        elif budget.asks:
            text += f"; without room an operator is asked, and it waits {show_duration(settings.wait)}"
        yield text
    if not reservation.claims and not reservation.calls:
        yield "none"


def explain_output(exchange: Exchange) -> Iterator[str]:
    """The output limits that the gateway writes into the request, or a note that there is none."""
    limits, ask = exchange.money.output_limits, exchange.request.ask
    for target, limit in zip(exchange.route.targets, limits, strict=False):
        if limit is not None:
            yield f"{target.name}: capped at {limit} tokens, and the answer says x-ai-capped: {limit}"
    unlimited = ask.output_field is not None and ask.max_output_tokens is None
    if unlimited and not any(limits) and exchange.money.reservation.usual:
        yield "without a limit, as the client sent it"
