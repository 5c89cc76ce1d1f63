"""Usage reports: rows summed by time and by any fields, in the database; exact."""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from operator import add, attrgetter, itemgetter
from typing import Any

from extproc.money.ledger import capacity
from extproc.money.ledger.cover import cover
from extproc.money.ledger.measures import LOW, USAGE
from extproc.money.ledger.query import Query, month_of, next_month
from extproc.money.ledger.sql import Cursor
from extproc.upstream.prices import decimal

MAX_BUCKETS = 10_000
FIRST_PART = 16  # a report's time is divided by this to get the length of its first part

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}

_MONEY = ("cost", "saved", "would_save", "prompt_saved", "prompt_extra")


@dataclass(slots=True, frozen=True)
class Numbers:
    """Sums of a group. `cost` is in nano-USD, of requests with a known price; `unpriced` counts requests without one.
    `saved` is the cost that cache hits avoided, `would_save` the same in shadow mode. `prompt_saved` is the cost that
    providers' prompt caches saved, `prompt_extra` the extra cost of writing to them.
    """

    requests: int = 0
    refused: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    unpriced: int = 0
    cache_hits: int = 0
    saved: int = 0
    shadow_hits: int = 0
    would_save: int = 0
    prompt_saved: int = 0
    prompt_extra: int = 0

    def __add__(self, other: Numbers) -> Numbers:
        return Numbers(*map(add, _all_numbers(self), _all_numbers(other)))

    def json(self) -> dict[str, Any]:
        numbers: dict[str, Any] = dict(zip(_NAMES, _all_numbers(self), strict=True))  # ten times as fast as asdict
        unpriced = numbers.pop("unpriced")
        money = {f"{name}_usd": decimal(numbers.pop(name)) for name in _MONEY}
        return {**numbers, "unpriced": unpriced, **money}


_NAMES = tuple(each.name for each in fields(Numbers))
_all_numbers: Callable[[Numbers], tuple[int, ...]] = attrgetter(*_NAMES)
_PLACES = [[*USAGE].index({"cost": "cost_low", "unpriced": "requests", "cache_hits": "hits"}.get(n, n)) for n in _NAMES]
_picked: Callable[[Sequence[Any]], tuple[Any, ...]] = itemgetter(*_PLACES)  # the sums in the order of Numbers
_COST, _UNPRICED = _NAMES.index("cost"), _NAMES.index("unpriced")
_PRICED, _COST_HIGH = [*USAGE].index("priced"), [*USAGE].index("cost_high")


@dataclass(slots=True, frozen=True)
class UsageBucket:
    """A time and a value for each field of the query's `group_by`. The time is a whole hour, day or month."""

    start: datetime
    end: datetime
    group: tuple[str, ...]
    numbers: Numbers


@dataclass(slots=True, frozen=True)
class UsageReport:
    """A report: buckets in order of time, within a time the dearest first. `total` covers all buckets, `truncated` or
    not. `capacity` has the providers on own hardware, see `capacity.shown`; of all requests only, not of some.
    """

    query: Query
    buckets: Sequence[UsageBucket]
    total: Numbers
    truncated: bool = False
    capacity: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        query = self.query
        return {
            "object": "usage",
            "start": rfc3339(query.start),
            "end": rfc3339(query.end),
            "resolution": query.resolution,
            "group_by": list(query.group_by),
            "data": [
                {
                    "start": rfc3339(bucket.start),
                    "end": rfc3339(bucket.end),
                    "group": dict(zip(query.group_by, bucket.group, strict=True)),
                    **bucket.numbers.json(),
                }
                for bucket in self.buckets
            ],
            "total": self.total.json(),
            "truncated": self.truncated,
            "capacity": self.capacity,
        }


def usage(cursor: Cursor, query: Query) -> UsageReport:
    """The report for a query: buckets in order of time, until the report is full."""
    buckets: list[UsageBucket] = []
    for part in parts(cursor, query):
        for begins, group, sums in summed(cursor, query, USAGE, *part, limit=MAX_BUCKETS + 1):
            buckets.append(UsageBucket(*bounds(query, part, begins), group, numbers(sums)))
        if len(buckets) > MAX_BUCKETS:
            whole = replace(query, resolution="total", group_by=())
            [(_, _, sums)] = summed(cursor, whole, USAGE, query.start, query.end, limit=1)
            return UsageReport(query, buckets[:MAX_BUCKETS], numbers(sums), True, _capacity(cursor, query))
    total = sum((bucket.numbers for bucket in buckets), Numbers())
    return UsageReport(query, buckets, total, capacity=_capacity(cursor, query))


def _capacity(cursor: Cursor, query: Query) -> Mapping[str, Mapping[str, str]]:
    """The providers on own hardware; none for a part of their requests."""
    if query.filters.keys() - {"provider"}:
        return {}
    found = capacity.costs(cursor, to_micros(query.start), to_micros(query.end))
    asked = query.filters.get("provider", [*found])
    found = {provider: cost for provider, cost in found.items() if provider in asked}
    if not found:
        return {}
    whole = replace(query, resolution="total", group_by=("provider",), filters={"provider": [*found]})
    sums = summed(cursor, whole, USAGE, query.start, query.end, limit=len(found))
    used = {group[0]: numbers(each).cost for _, group, each in sums}
    return {provider: capacity.shown(cost, used.get(provider, 0)) for provider, cost in found.items()}


def summed(
    cursor: Cursor, query: Query, measures: Mapping[str, str], start: datetime, end: datetime, *, limit: int
) -> Iterator[tuple[int, tuple[str, ...], Sequence[Any]]]:
    """Sums of a part of a query's time. Each has its beginning in microseconds (for hours and days), its group, and the
    sums of `measures`, which begin with `requests`. The dearest come first if `measures` include the cost.
    """
    length = _LENGTHS.get(query.resolution)
    keyed = len(query.group_by) + (length is not None)
    by = f"GROUP BY {', '.join(str(number + 1) for number in range(keyed))}" if keyed else ""
    names, whole = {*query.group_by, *query.filters}, (to_micros(start), to_micros(end))
    selects: list[str] = []
    values: list[object] = []
    for source in cover(cursor, names, whole, resolution=query.resolution, timed=measures is not USAGE):
        columns = [] if length is None else [f"{source.time} / {length // _MICRO} * {length // _MICRO}"]
        for name in query.group_by:
            column, needed = source.field(name)
            columns.append(column)
            values += needed
        columns += [f"sum({name})" if source.cube else sql for name, sql in measures.items()]
        where, needed = source.matching(query.filters)
        values += needed
        named = ", ".join(f"{column} AS c{number}" for number, column in enumerate(columns))
        selects.append(f"SELECT {named} FROM {source.table} WHERE {where} {by}")
    keys = [f"c{number}" for number in range(keyed)]
    # PostgreSQL's sums are of type numeric, which has no shifts.
    sums = {name: f"CAST(sum(c{keyed + number}) AS BIGINT)" for number, name in enumerate(measures)}
    order = [*keys[: keyed - len(query.group_by)], *_dearest(sums), *keys[keyed - len(query.group_by) :]]
    ordered = f"ORDER BY {', '.join(order)}" if order else ""
    report = (
        f"SELECT {', '.join([*keys, *sums.values()])} FROM ({' UNION ALL '.join(selects)}) AS parts "
        f"{by} {ordered} LIMIT {limit}"
    )
    shown = [shown_as(name) for name in query.group_by]
    for row in cursor.rows(report, values):
        if row[keyed]:  # a query without keys gives one row, even for no exchanges
            group = row[keyed - len(shown) : keyed]
            yield row[0], tuple([show(value) for show, value in zip(shown, group, strict=True)]), row[keyed:]


def _dearest(sums: Mapping[str, str]) -> Sequence[str]:
    """The order from dear to cheap, by two halves of the cost, because these sums have 64 bits."""
    if "cost_low" not in sums:
        return ()
    low, high = sums["cost_low"], sums["cost_high"]
    return f"{high} + ({low} >> 32) DESC", f"{low} & {LOW} DESC"


def parts(cursor: Cursor, query: Query) -> Iterator[tuple[datetime, datetime]]:
    """The query's time in pieces for separate queries. Months are single pieces. Whole hours and days come in pieces
    that double in length, so that a report of few groups needs few queries, and many groups soon fill the answer.
    """
    if query.resolution == "total":
        yield query.start, query.end
        return
    latest = cursor.value("SELECT max(time) FROM exchanges WHERE time < ?", (to_micros(query.end),))
    end = from_micros(latest or 0) + _MICRO
    length = _LENGTHS.get(query.resolution, _MICRO)
    start = _next(cursor, query.start, end, length)
    step = max(length, (end - start) / FIRST_PART)
    while start < end:
        if query.resolution == "month":
            until = min(end, next_month(start))
        elif start < end - step:
            until, step = _floor(start + step, length), step * 2
        else:
            until = end
        yield start, until
        start = _next(cursor, until, end, length)


def _next(cursor: Cursor, at: datetime, end: datetime, length: timedelta) -> datetime:
    """Start of the first hour or day with an exchange at `at` or later, at least `at`; `end` when there is none."""
    found = cursor.value("SELECT min(time) FROM exchanges WHERE time >= ?", (to_micros(at),))
    return end if found is None else max(at, _floor(from_micros(found), length))


def _floor(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % length


def to_micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICRO


def from_micros(micros: int) -> datetime:
    return _EPOCH + micros * _MICRO


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def bounds(query: Query, part: tuple[datetime, datetime], begins: Any) -> tuple[datetime, datetime]:
    if query.resolution == "total":
        return part
    if query.resolution == "month":
        return month_of(part[0]), next_month(part[0])
    start = from_micros(int(begins))
    return start, start + _LENGTHS[query.resolution]


def begin_of(query: Query, time: int) -> int:
    """The microseconds at which the hour or day of a time begins; 0 if the query has other buckets."""
    length = _LENGTHS.get(query.resolution)
    return 0 if length is None else time - time % (length // _MICRO)


def numbers(sums: Sequence[Any]) -> Numbers:
    """The numbers of a report's row. Reports of ten thousand rows are common, so this function has to be fast."""
    found = [value or 0 for value in _picked(sums)]
    found[_COST] += (sums[_COST_HIGH] or 0) << 32
    found[_UNPRICED] -= sums[_PRICED] or 0
    return Numbers(*found)


def shown_as(name: str) -> Callable[[Any], str]:
    """The text of a field's values in reports."""
    return (lambda value: "true" if value else "false") if name == "stream" else str
