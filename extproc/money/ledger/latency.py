"""Reports beside usage: how long answers took, and the findings of guardrails."""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from extproc.money.ledger.cover import RowSource
from extproc.money.ledger.measures import BOUNDS, LATENCY
from extproc.money.ledger.query import Query
from extproc.money.ledger.sql import Cursor
from extproc.money.ledger.usage import (
    MAX_BUCKETS,
    begin_of,
    bounds,
    from_micros,
    parts,
    rfc3339,
    shown_as,
    summed,
    to_micros,
)

MAX_FINDINGS = 200  # most kinds of findings in a report
EXACT = 10_000
"""Most exchanges in a query's time for exact percentiles. Beyond it percentiles are read from histograms."""
_PARTS = len(BOUNDS) + 1
_NAMES, _SHARES = ("p50_ms", "p95_ms", "first_p50_ms", "first_p95_ms"), (0.5, 0.95)
_Row = tuple[Any, tuple[str, ...], int, Sequence[float | None]]
"""A bucket's beginning in microseconds, its group, its number of answers, and the values of `_NAMES`."""
_MEASURES = {"requests": "count(*)", **LATENCY}


def latency(cursor: Cursor, query: Query) -> Mapping[str, Any]:
    """The median and the 95th percentile of answers' times and of the times to their first tokens. At most MAX_BUCKETS
    rows, in order of time.
    """
    data: list[Mapping[str, Any]] = []
    exact = _are_few(cursor, query)
    for part in parts(cursor, query):
        found = _exact(cursor, query, part) if exact else _estimated(cursor, query, part, len(data))
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


def _are_few(cursor: Cursor, query: Query) -> bool:
    some = f"SELECT 1 FROM exchanges WHERE time >= ? AND time < ? LIMIT {EXACT + 1}"
    count = cursor.value(f"SELECT count(*) FROM ({some}) AS few", (to_micros(query.start), to_micros(query.end)))
    return int(count) <= EXACT


def _estimated(cursor: Cursor, query: Query, part: tuple[datetime, datetime], before: int) -> Iterator[_Row]:
    """Rows whose percentiles come from histograms."""
    for begins, group, sums in summed(cursor, query, _MEASURES, *part, limit=MAX_BUCKETS + 1 - before):
        counts = [count or 0 for count in sums[1:]]
        took, first = counts[:_PARTS], counts[_PARTS:]
        yield begins, group, sum(took), [percentile(each, share) for each in (took, first) for share in _SHARES]


def _exact(cursor: Cursor, query: Query, part: tuple[datetime, datetime]) -> Iterator[_Row]:
    """Rows whose percentiles come from the times of each answer."""
    source = RowSource(cursor.dialect, "time >= ? AND time < ?", [*map(to_micros, part)])
    columns = [source.field(name) for name in query.group_by]
    where, values = source.matching(query.filters)
    names = ", ".join(("time", "outcome", "duration_ms", "first_token_ms", *(column for column, _ in columns)))
    given = [value for _, needed in columns for value in needed]
    shown = [shown_as(name) for name in query.group_by]
    found: dict[tuple[int, tuple[str, ...]], tuple[list[int], list[int]]] = {}
    for time, outcome, took, first, *group in cursor.rows(
        f"SELECT {names} FROM exchanges WHERE {where}",
        given + values,
    ):
        texts = tuple([show(value) for show, value in zip(shown, group, strict=True)])
        took_all, first_all = found.setdefault((begin_of(query, time), texts), ([], []))
        if outcome == "ok":
            took_all.append(took)
            if first is not None:
                first_all.append(first)
    for (begins, group_names), values_ in sorted(found.items()):
        yield (
            begins,
            group_names,
            len(values_[0]),
            [_quantile(sorted(each), share) for each in values_ for share in _SHARES],
        )


def _quantile(values: Sequence[int], share: float) -> float | None:
    """The value below which a share of the sorted values lies, interpolated; None without values."""
    if not values:
        return None
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return round(values[low] + (values[high] - values[low]) * (at - low), 1)


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Milliseconds below which a share of a histogram's values lies, interpolated in its part; None without values. The
    last part counts as its lower bound.
    """
    wanted, below = share * sum(counts), 0
    for count, low, high in zip(counts, (0, *BOUNDS), (*BOUNDS, BOUNDS[-1]), strict=True):
        if count and below + count >= wanted:
            return round(low + (high - low) * (wanted - below) / count, 1)
        below += count
    return None


def findings(cursor: Cursor, query: Query) -> Sequence[Mapping[str, Any]]:
    """Findings of guardrails in a query's time, the most frequent first. Only the query's filters by consumer and team
    apply.
    """
    filters = {name: query.filters[name] for name in ("consumer", "team") if name in query.filters}
    source = RowSource(
        cursor.dialect, "guardrails <> '[]' AND time >= ? AND time < ?", [to_micros(query.start), to_micros(query.end)]
    )
    where, values = source.matching(filters)
    rows = cursor.rows(
        f"SELECT each.value, count(*), max(time) FROM exchanges, {cursor.dialect.each_finding} "
        f"WHERE {where} GROUP BY each.value ORDER BY 2 DESC, 1 LIMIT {MAX_FINDINGS}",
        values,
    )
    return [
        {"finding": value, "exchanges": int(count), "latest": rfc3339(from_micros(at))} for value, count, at in rows
    ]
