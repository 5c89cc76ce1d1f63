"""Runs of agents: the exchanges of a consumer under one name, as one record."""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from extproc.money.ledger.measures import USAGE
from extproc.money.ledger.rows import text
from extproc.money.ledger.sql import Cursor, places
from extproc.money.ledger.usage import from_micros, numbers, rfc3339, to_micros

MOST_CALLS = 200
"""Most rows of one record: models, tools and refusals, the most frequent first."""
MOST_RUNS = 100
"""Most runs in one list, the latest first."""
LOOK = 5000
"""Latest exchanges of runs in which the latest runs are looked for first: most often they are there."""
# PostgreSQL's sums are of type numeric, which has no shifts.
_SUMS = ", ".join(f"CAST({sum} AS BIGINT)" for sum in USAGE.values())


def latest(cursor: Cursor, since: datetime, consumer: str | None) -> Sequence[Mapping[str, Any]]:
    """The runs with an exchange since a time, with sums over these exchanges."""
    where, values = "run <> '' AND time >= ?", list[object]((to_micros(since),))
    names = _names(cursor, where, values, consumer)
    if names is not None:
        where, values = f"{where} AND run IN ({places(len(names))})", [*values, *names]
    return _runs(cursor, where, values, consumer) if names != [] else []


def _names(cursor: Cursor, where: str, values: Sequence[object], consumer: str | None) -> Sequence[str] | None:
    """Names of the latest runs; None if only sums over all exchanges tell. A million exchanges need no look at each:
    the latest ones name the latest runs, or else the index of runs has few enough names.
    """
    if consumer is not None:
        where, values = f"{where} AND consumer = ?", [*values, text(consumer)]
    found = cursor.rows(
        f"SELECT run, max(time) AS latest, count(*) FROM (SELECT run, time FROM exchanges WHERE {where} "
        f"ORDER BY time DESC LIMIT {LOOK}) AS seen GROUP BY run ORDER BY latest DESC",
        values,
    )
    if len(found) >= MOST_RUNS or sum(count for *_, count in found) < LOOK:
        return [name for name, *_ in found[:MOST_RUNS]]
    if consumer is not None:
        return None
    of_run = "SELECT max(time) FROM exchanges WHERE run = names.run AND run <> ''"
    found = cursor.rows(
        "WITH RECURSIVE names (run) AS (SELECT min(run) FROM exchanges WHERE run <> '' UNION ALL "
        "SELECT (SELECT min(run) FROM exchanges WHERE run > names.run AND run <> '') FROM names "
        "WHERE names.run IS NOT NULL) "
        f"SELECT run, ({of_run}) AS latest FROM names WHERE run IS NOT NULL ORDER BY latest DESC LIMIT {MOST_RUNS}",
        (),
    )
    return [name for name, _ in found]


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
