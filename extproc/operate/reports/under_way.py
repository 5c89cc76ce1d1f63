"""Exchanges that have not ended: who waits for what, since when, and the amounts held for each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from extproc.money.accounting.alerts import amount
from extproc.words.exchange import Exchange
from extproc.words.runs import run_of

MOST_UNDER_WAY = 500
"""Most exchanges in a list, those that last longest first."""


def list_under_way(exchanges: Iterable[Exchange]) -> Sequence[Mapping[str, Any]]:
    """Exchanges under way as JSON, the longest first. May be called from any thread, while exchanges change."""
    found = sorted(exchanges, key=attrgetter("started"))[:MOST_UNDER_WAY]
    return [_describe(exchange) for exchange in found]


def _describe(exchange: Exchange) -> Mapping[str, Any]:
    entry: dict[str, Any] = {
        "id": exchange.id,
        "request_id": exchange.request.id[:128],
        "seconds": round(time.perf_counter() - exchange.started, 3),
        "state": _state(exchange),
        "holds": [],
    }
    if hasattr(exchange, "consumer"):
        entry |= {"consumer": exchange.consumer.name, "team": exchange.consumer.team, "key": exchange.money.key}
        if run := run_of(exchange):
            entry["run"] = run
    if hasattr(exchange.request, "ask"):
        entry |= {"model": exchange.request.ask.model[:256], "stream": exchange.request.ask.stream}
    if (target := exchange.answer.target) is not None:
        entry |= {"provider": target.provider, "provider_model": target.model}
    if hasattr(exchange.money, "reservation") and exchange.money.reservation.held:
        entry["holds"] = [
            {
                "budget": claim.budget.settings.name,
                "scope": claim.own or claim.scope,
                "unit": claim.budget.settings.unit,
                "amount": amount(claim.budget, claim.amount),
            }
            for claim in exchange.money.reservation.claims
        ]
    return entry


def _state(exchange: Exchange) -> str:
    if not exchange.route.forwarded:
        return "deciding"
    return "answering" if exchange.answer.status else "waiting"
