"""Reports beside usage: how long answers took, and the findings of guardrails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy import text as sql

from extproc.ledger.measures import BOUNDS, LATENCY
from extproc.ledger.query import Query
from extproc.ledger.usage import MAX_BUCKETS, bounds, from_micros, parts, rfc3339, summed, to_micros

MAX_FINDINGS = 200  # kinds of findings in an answer
_PARTS = len(BOUNDS) + 1
_MEASURES = {"requests": "count(*)", **LATENCY}
_EACH = {"sqlite": "json_each(exchanges.guardrails)", "postgresql": "jsonb_array_elements_text(exchanges.guardrails)"}


def latency(connection: Connection, query: Query) -> Mapping[str, Any]:
    """The median and the 95th percentile of answers' times and of the times to their first tokens, from histograms. At
    most MAX_BUCKETS rows, in order of time.
    """
    data: list[Mapping[str, Any]] = []
    for part in parts(connection, query):
        for begins, group, sums in summed(connection, query, _MEASURES, *part, limit=MAX_BUCKETS + 1 - len(data)):
            start, end = bounds(query, part, begins)
            counts = [int(count or 0) for count in sums[1:]]
            took, first = counts[:_PARTS], counts[_PARTS:]
            row: dict[str, Any] = {"start": rfc3339(start), "end": rfc3339(end)}
            row |= {"group": dict(zip(query.group_by, group, strict=True)), "answers": sum(took)}
            times = {"p50_ms": (took, 0.5), "p95_ms": (took, 0.95)}
            times |= {"first_p50_ms": (first, 0.5), "first_p95_ms": (first, 0.95)}
            data.append(row | {name: percentile(*each) for name, each in times.items()})
        if len(data) > MAX_BUCKETS:
            break
    return {
        "object": "latency",
        "start": rfc3339(query.start),
        "end": rfc3339(query.end),
        "resolution": query.resolution,
        "group_by": list(query.group_by),
        "data": data[:MAX_BUCKETS],
        "truncated": len(data) > MAX_BUCKETS,
    }


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Milliseconds below which a share of a histogram's values are, interpolated in its part; None without values. The
    last part counts as its lower bound.
    """
    wanted, below = share * sum(counts), 0
    for count, low, high in zip(counts, (0, *BOUNDS), (*BOUNDS, BOUNDS[-1]), strict=True):
        if count and below + count >= wanted:
            return round(low + (high - low) * (wanted - below) / count, 1)
        below += count
    return None


def findings(connection: Connection, query: Query) -> Sequence[Mapping[str, Any]]:
    """Findings of guardrails in a query's time, the most frequent first; of its filters, consumer and team count."""
    wanted, given = "", dict[str, Any]()
    for name in ("consumer", "team"):
        for number, value in enumerate(query.filters.get(name, ())[:1]):
            wanted += f" AND exchanges.{name} = :{name}{number}"
            given[f"{name}{number}"] = value
    rows = connection.execute(
        sql(
            "SELECT each.value, count(*), max(exchanges.time) FROM exchanges, "  # noqa: S608
            f"{_EACH[connection.dialect.name]} AS each{'' if connection.dialect.name == 'sqlite' else '(value)'} "
            "WHERE exchanges.guardrails <> '[]' AND exchanges.time >= :start AND exchanges.time < :end"
            f"{wanted} GROUP BY each.value ORDER BY 2 DESC, 1 LIMIT {MAX_FINDINGS}"
        ),
        {"start": to_micros(query.start), "end": to_micros(query.end), **given},
    )
    return [
        {"finding": value, "exchanges": int(count), "latest": rfc3339(from_micros(at))} for value, count, at in rows
    ]
