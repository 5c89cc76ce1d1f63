"""Bounds of the further models that a request names: fallbacks, advisors, tools that draw, models of a router."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.dialects._models import known_output
from extproc.dialects._named import Named
from extproc.money.budgets.bounds import USUAL
from extproc.money.budgets.budget import Budget
from extproc.money.budgets.costs import price_of
from extproc.routing.named import named_at
from extproc.words.exchange import Exchange, Target

PICTURE = 8192
"""Tokens of an image in an answer, which no limit of the request bounds; OpenAI's largest are 6,240."""


def named_models(exchange: Exchange) -> Sequence[Sequence[Named]]:
    """The further models that can be billed, by target; empty if the request names no further model."""
    places = exchange.request.dialect.fields.models
    body = getattr(exchange.request, "json", None)
    if not body or not any(place[0] in body for place in places):
        return ()
    found = [named_at(exchange, target) if target.adaptation.own else () for target in exchange.route.targets]
    return found if any(found) else ()


def with_named(exchange: Exchange, budget: Budget, target: Target, bound: int, tokens: tuple[int, int]) -> int:
    """`bound`, the most that a request with these tokens of input and output uses at `target`, raised for the further
    models.

    Of models that answer in the target's place, the dearest counts. Models that are called beside it add to the bound:
    each call can read the whole request and answer.
    """
    most, reservation = bound, exchange.money.reservation
    for each in reservation.named[exchange.route.targets.index(target)]:
        price = price_of(target, each.model) if budget.counts_money else None
        if each.instead:
            most = max(most, budget.bound(target, *tokens, reservation.possible, price))
            continue
        output = each.output or (budget.strict and known_output(each.model)) or USUAL
        calls = exchange.request.ask.hosted_calls if each.calls is None else each.calls
        written = PICTURE if each.draws else output
        bound += calls * budget.bound(target, sum(tokens), written, reservation.possible, price)
    return max(most, bound)
