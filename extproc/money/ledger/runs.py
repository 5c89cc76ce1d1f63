"""Runs of agents: the exchanges of a consumer under one name, as one record."""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from extproc.money.ledger.measures import USAGE
from extproc.money.ledger.rows import text
from extproc.money.ledger.sql import Cursor
from extproc.money.ledger.usage import from_micros, numbers, rfc3339, to_micros

MOST_CALLS = 200
"""Most rows of one record: models, tools and refusals, the most frequent first."""
MOST_RUNS = 100
"""Most runs in one list, the latest first."""
# PostgreSQL's sums are of type numeric, which has no shifts.
_SUMS = ", ".join(f"CAST({sum} AS BIGINT)" for sum in USAGE.values())


def latest(cursor: Cursor, since: datetime, consumer: str | None) -> Sequence[Mapping[str, Any]]:
    """The runs with an exchange since a time, with sums over these exchanges."""
    where, values = "run <> '' AND time >= ?", [to_micros(since)]
    return _runs(cursor, where, values, consumer)


def one(cursor: Cursor, run: str, consumer: str | None) -> Sequence[Mapping[str, Any]]:
    """The runs of that name, one for each consumer that uses it, each with its calls and refusals."""
    return [
        found | _parts(cursor, run, str(found["consumer"])) for found in _runs(cursor, "run = ?", [text(run)], consumer)
    ]


def _runs(cursor: Cursor, where: str, values: Sequence[object], consumer: str | None) -> Sequence[dict[str, Any]]:
    if consumer is not None:
        where, values = f"{where} AND consumer = ?", [*values, text(consumer)]
    rows = cursor.rows(
        f"SELECT run, consumer, max(team), min(time), max(time), {_SUMS} FROM exchanges WHERE {where} "
        f"GROUP BY run, consumer ORDER BY max(time) DESC LIMIT {MOST_RUNS}",
        values,
    )
    return [
        {
            "id": run,
            "consumer": consumer,
            "team": team,
            "start": rfc3339(from_micros(begun)),
            "latest": rfc3339(from_micros(ended)),
            **_summed(sums),
        }
        for run, consumer, team, begun, ended, *sums in rows
    ]


def _parts(cursor: Cursor, run: str, consumer: str) -> dict[str, Any]:
    whose, values = "run = ? AND consumer = ?", (text(run), text(consumer))
    calls = cursor.rows(
        f"SELECT operation, model, target, provider, provider_model, {_SUMS} FROM exchanges WHERE {whose} "
        f"GROUP BY operation, model, target, provider, provider_model ORDER BY count(*) DESC, model LIMIT {MOST_CALLS}",
        values,
    )
    refusals = cursor.rows(
        f"SELECT error, outcome, count(*), max(time) FROM exchanges WHERE {whose} AND error <> '' "
        f"GROUP BY error, outcome ORDER BY count(*) DESC, error LIMIT {MOST_CALLS}",
        values,
    )
    names = ("operation", "model", "target", "provider", "provider_model")
    return {
        "calls": [dict(zip(names, row, strict=False)) | _summed(row[len(names) :]) for row in calls],
        "problems": [
            {"error": error, "outcome": outcome, "requests": count, "latest": rfc3339(from_micros(at))}
            for error, outcome, count, at in refusals
        ],
    }


def _summed(sums: Sequence[Any]) -> dict[str, Any]:
    found = numbers(sums)
    share = found.cached_tokens / found.input_tokens if found.input_tokens else 0.0
    return {**found.json(), "cache_share": round(share, 4)}
