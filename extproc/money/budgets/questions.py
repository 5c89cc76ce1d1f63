"""Questions to operators about requests without room in a budget with `on_exceed: ask`: see `access/questions`.

A request that waits goes on without an answer once its budget has room: a grant, a settled request, a new window. An
approved request is held in the count of its question. If its process dies, the end of its lease frees the room.
"""

from __future__ import annotations

from extproc.access.questions import OPEN, Question, fingerprint, question_about
from extproc.money.budgets.budget import Budget, Claim
from extproc.stores import window_at
from extproc.words.exchange import Exchange


def question_of(claim: Claim, exchange: Exchange) -> Question:
    """The question about a request without room. It stays the same when a consumer sends its request again."""
    head, body = exchange.request.head, getattr(exchange.request, "body", b"")  # calls about kept objects have no body
    facts = (claim.scope, exchange.consumer.name, exchange.money.key, head.method, head.path)
    print_, unit = fingerprint(*facts, body=body), claim.budget.settings.unit
    return question_about(
        exchange, print_, claim.scope, amount=claim.amount, budget=claim.budget.settings.name, unit=unit
    )


def until(now: float, budget: Budget) -> float:
    """The time at which a question about a request without room ends, in epoch seconds."""
    ends = window_at(now, budget.window)[1]
    return min(now + OPEN, now + OPEN if ends is None else max(ends, now + 1))


def approved_claim(claim: Claim, question: Question) -> Claim:
    """The claim on the count of an approved question, in place of one on a count without room."""
    return Claim(claim.budget, question.count, claim.amount, own=claim.scope, approved=question.held(claim.amount))
