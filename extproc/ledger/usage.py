"""Usage reports: rows summed by time and by any fields, in the database; exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, and_, case, collate, func, literal_column, select, true

from extproc.ledger.query import Filters, Query, label_of, month_of, next_month
from extproc.ledger.rows import label_key, text
from extproc.ledger.table import EXCHANGES
from extproc.prices import decimal

MAX_BUCKETS = 10_000
FIRST_PART = 16  # one part in this many of a report's time is read first

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_LOW = (1 << 32) - 1

_c = EXCHANGES.c


@dataclass(slots=True, frozen=True)
class Numbers:
    """Sums. `cost` is in nano-USD, of the requests whose price is known; `unpriced` are the others. `saved` is the cost
    that answers from the cache had, `would_save` the same in shadow mode.
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

    def __add__(self, other: Numbers) -> Numbers:
        return Numbers(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def json(self) -> dict[str, Any]:
        numbers: dict[str, Any] = asdict(self)
        unpriced = numbers.pop("unpriced")
        cost, saved, would_save = (decimal(numbers.pop(name)) for name in ("cost", "saved", "would_save"))
        kept = {"saved_usd": saved, "would_save_usd": would_save}
        return {**numbers, "cost_usd": cost, "unpriced": unpriced, **kept}


@dataclass(slots=True, frozen=True)
class Bucket:
    """A time and a value for each field of the query's `group_by`. Hours, days and months are whole ones."""

    start: datetime
    end: datetime
    group: tuple[str, ...]
    numbers: Numbers


@dataclass(slots=True, frozen=True)
class UsageReport:
    """A report: buckets in order of time, the dearest of each first. `total` covers all buckets, `truncated` or not."""

    query: Query
    buckets: Sequence[Bucket]
    total: Numbers
    truncated: bool = False

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
        }


def usage(connection: Connection, query: Query) -> UsageReport:
    """Answer a query: in order of time, until the answer is full."""
    dialect = connection.dialect.name
    length = _LENGTHS.get(query.resolution)
    times = [] if length is None else [_c.time - _c.time % (length // _MICRO)]
    keys = [*times, *[field_of(name, dialect) for name in query.group_by]]
    by_position: list[ColumnElement[Any]] = [literal_column(str(number + 1)) for number in range(len(keys))]
    sums, dearest = _sums(dialect)
    wanted = conditions(query.filters, dialect)
    report = select(*keys, *sums).group_by(*by_position)  # positions, because a label's name is a parameter, not a name
    report = report.order_by(*by_position[: len(times)], *dearest, *by_position[len(times) :]).limit(MAX_BUCKETS + 1)
    buckets: list[Bucket] = []
    for part in _parts(connection, query):
        for row in connection.execute(report.where(_within(*part), wanted)):
            numbers = _numbers(row[len(keys) :])
            if numbers.requests:  # a query without keys gives one row, even of nothing
                group = tuple(map(_value, row[len(times) : len(keys)]))
                buckets.append(Bucket(*_bounds(query, part, row[0]), group, numbers))
        if len(buckets) > MAX_BUCKETS:
            total = connection.execute(select(*sums).where(_within(query.start, query.end), wanted)).one()
            return UsageReport(query, buckets[:MAX_BUCKETS], _numbers(total), truncated=True)
    return UsageReport(query, buckets, sum((bucket.numbers for bucket in buckets), Numbers()))


def _parts(connection: Connection, query: Query) -> Iterator[tuple[datetime, datetime]]:
    """The query's time in pieces for separate queries. Months are single pieces. Whole hours and days come in pieces
    that double in length, so that a report of few groups needs few queries, and many groups soon fill the answer.
    """
    if query.resolution == "total":
        yield query.start, query.end
        return
    latest = select(func.max(_c.time)).where(_c.time < to_micros(query.end))
    end = from_micros(connection.execute(latest).scalar() or 0) + _MICRO
    start = _next(connection, query.start, end)
    length = _LENGTHS.get(query.resolution, _MICRO)
    step = max(length, (end - start) / FIRST_PART)
    while start < end:
        if query.resolution == "month":
            until = min(end, next_month(start))
        elif start < end - step:
            until, step = _floor(start + step, length), step * 2
        else:
            until = end
        yield start, until
        start = _next(connection, until, end)


def _next(connection: Connection, at: datetime, end: datetime) -> datetime:
    """Start of the first exchange at `at` or later; `end` when there is none."""
    found = connection.execute(select(func.min(_c.time)).where(_c.time >= to_micros(at))).scalar()
    return end if found is None else from_micros(found)


def _floor(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % length


def _within(start: datetime, end: datetime) -> ColumnElement[bool]:
    return and_(_c.time >= to_micros(start), _c.time < to_micros(end))


def conditions(filters: Filters, dialect: str) -> ColumnElement[bool]:
    """Every field is one of its values."""
    return and_(true(), *[field_of(name, dialect).in_(_wanted(name, values)) for name, values in filters.items()])


def field_of(name: str, dialect: str) -> ColumnElement[Any]:
    """The column of a field, or a label's value: empty where it is missing. Its name is a parameter, never SQL."""
    label = label_of(name)
    if label is None:
        return _c[name]
    key = label_key(label)
    if dialect == "sqlite":
        return func.coalesce(func.json_extract(_c.labels, f'$."{key}"'), "")
    return collate(func.coalesce(_c.labels.op("->>", return_type=Text())(key), ""), "C")


def to_micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICRO


def from_micros(micros: int) -> datetime:
    return _EPOCH + micros * _MICRO


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _bounds(query: Query, part: tuple[datetime, datetime], begins: Any) -> tuple[datetime, datetime]:
    if query.resolution == "total":
        return part
    if query.resolution == "month":
        return month_of(part[0]), next_month(part[0])
    start = from_micros(int(begins))
    return start, start + _LENGTHS[query.resolution]


def _sums(dialect: str) -> tuple[list[ColumnElement[Any]], list[ColumnElement[Any]]]:
    """The sums that `_numbers` reads, and the order from dear to cheap. SQLite's sums are of 64 bits: money is in two
    halves.
    """
    cost: list[ColumnElement[Any]] = [func.coalesce(func.sum(_c.cost), 0)]
    dearest: list[ColumnElement[Any]] = [cost[0].desc()]
    if dialect == "sqlite":
        high = func.coalesce(func.sum(_c.cost.op(">>")(32)), 0)
        low = func.coalesce(func.sum(_c.cost.op("&")(_LOW)), 0)
        cost = [low, high]
        dearest = [(high + low.op(">>")(32)).desc(), low.op("&")(_LOW).desc()]
    counts: list[ColumnElement[Any]] = [
        func.count(),
        *[func.sum(case((_c.outcome == outcome, 1), else_=0)) for outcome in ("refused", "error")],
        func.count(_c.cost),
        *[func.sum(column) for column in (_c.input_tokens, _c.output_tokens, _c.cached_tokens)],
        *[func.sum(column) for column in (_c.cache_write_tokens, _c.reasoning_tokens)],
        *[
            func.sum(case((_c.cache == outcome, value), else_=0))
            for outcome in ("hit", "shadow")
            for value in (1, _c.saved)
        ],
    ]
    return [*counts, *cost], dearest


def _numbers(row: Sequence[Any]) -> Numbers:
    requests, refused, errors, priced, *others = [int(number or 0) for number in row[:13]]
    cost = sum(int(part) << (32 * place) for place, part in enumerate(row[13:]))
    tokens, (hits, saved, shadow_hits, would_save) = others[:5], others[5:]
    sums = [requests, refused, errors, *tokens, cost, requests - priced, hits, saved, shadow_hits, would_save]
    return Numbers(*sums)


def _wanted(name: str, values: Sequence[str]) -> list[Any]:
    if name == "status":
        return [int(value) for value in values]
    if name == "stream":
        return [value == "true" for value in values]
    return [text(value) for value in values]  # cut like the stored values


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
