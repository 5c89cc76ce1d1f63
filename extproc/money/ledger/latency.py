"""Reports beside usage: how long answers took, and the findings of guardrails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy import text as sql

from extproc.money.ledger.cover import Source
from extproc.money.ledger.measures import BOUNDS, LATENCY
from extproc.money.ledger.query import Query
from extproc.money.ledger.table import EXCHANGES
from extproc.money.ledger.usage import (
    MAX_BUCKETS,
    begin_of,
    bounds,
    from_micros,
    parts,
    rfc3339,
    summed,
    to_micros,
    value_of,
)

MAX_FINDINGS = 200  # kinds of findings in an answer
EXACT = 10_000
"""Exchanges in a query's time up to which its percentiles are exact. With more they are read from histograms."""
_PARTS = len(BOUNDS) + 1
_NAMES, _SHARES = ("p50_ms", "p95_ms", "first_p50_ms", "first_p95_ms"), (0.5, 0.95)
_Row = tuple[Any, tuple[str, ...], int, Sequence[float | None]]
"""The micros at which a bucket begins, its group, its answers, and the values of `_NAMES`."""
_MEASURES = {"requests": "count(*)", **LATENCY}
_EACH = {"sqlite": "json_each(exchanges.guardrails)", "postgresql": "jsonb_array_elements_text(exchanges.guardrails)"}


def latency(connection: Connection, query: Query) -> Mapping[str, Any]:
    """The median and the 95th percentile of answers' times and of the times to their first tokens. At most MAX_BUCKETS
    rows, in order of time.
    """
    data: list[Mapping[str, Any]] = []
    exact = _are_few(connection, query)
    for part in parts(connection, query):
        found = _exact(connection, query, part) if exact else _estimated(connection, query, part, len(data))
        for begins, group, answers, times in found:
            start, end = bounds(query, part, begins)
            row: dict[str, Any] = {"start": rfc3339(start), "end": rfc3339(end)}
            row |= {"group": dict(zip(query.group_by, group, strict=True)), "answers": answers}
            data.append(row | dict(zip(_NAMES, times, strict=True)))
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


def _are_few(connection: Connection, query: Query) -> bool:
    within = EXCHANGES.c.time >= to_micros(query.start), EXCHANGES.c.time < to_micros(query.end)
    some = select(EXCHANGES.c.time).where(*within).limit(EXACT + 1).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar() or 0) <= EXACT


def _estimated(connection: Connection, query: Query, part: tuple[datetime, datetime], before: int) -> Iterator[_Row]:
    """From histograms."""
    for begins, group, sums in summed(connection, query, _MEASURES, *part, limit=MAX_BUCKETS + 1 - before):
        counts = [int(count or 0) for count in sums[1:]]
        took, first = counts[:_PARTS], counts[_PARTS:]
        yield begins, group, sum(took), [percentile(each, share) for each in (took, first) for share in _SHARES]


def _exact(connection: Connection, query: Query, part: tuple[datetime, datetime]) -> Iterator[_Row]:
    """From the times of each answer."""
    start, end = map(to_micros, part)
    source = Source(EXCHANGES, (EXCHANGES.c.time >= start) & (EXCHANGES.c.time < end))
    dialect, columns = connection.dialect.name, EXCHANGES.c
    keys = [source.field(name, dialect) for name in query.group_by]
    named = [column.label(f"c{number}") for number, column in enumerate(keys)]
    times = columns.outcome, columns.duration_ms, columns.first_token_ms
    rows = select(columns.time, *times, *named).where(source.where, source.matching(query.filters, dialect))
    found: dict[tuple[int, tuple[str, ...]], tuple[list[int], list[int]]] = {}
    for time, outcome, took, first, *group in connection.execute(rows):
        took_all, first_all = found.setdefault((begin_of(query, time), tuple(map(value_of, group))), ([], []))
        if outcome == "ok":
            took_all.append(took)
            if first is not None:
                first_all.append(first)
    for (begins, names), values in sorted(found.items()):
        yield begins, names, len(values[0]), [_quantile(sorted(each), share) for each in values for share in _SHARES]


def _quantile(values: Sequence[int], share: float) -> float | None:
    """The value below which a share of sorted ones are, between the two nearest; None without values."""
    if not values:
        return None
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return round(values[low] + (values[high] - values[low]) * (at - low), 1)


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
