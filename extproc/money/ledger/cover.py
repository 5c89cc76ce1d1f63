"""The places that a report reads: rollups of whole hours and days where they are ready, rows for all other time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, Text, and_, collate, false, func, literal, or_, select, true

from extproc.money.ledger.measures import DAYS, HOURS, LABELS, NAMES, RECENT, VALUES
from extproc.money.ledger.query import Filters, label_of
from extproc.money.ledger.rollups import READY
from extproc.money.ledger.rows import label_key, text
from extproc.money.ledger.table import EXCHANGES, ROLLUPS, UNITS

MAX_RANGES = 64  # ranges of one cube; with more gaps between its units it is not worth it

Range = tuple[int, int]
"""Microseconds; the end is exclusive."""


@dataclass(slots=True, frozen=True)
class Source:
    """Rows of a table. `label`: the value of the report's label, where the table is not of single exchanges."""

    table: Table
    where: ColumnElement[bool]
    label: ColumnElement[Any] | None = None

    @property
    def time(self) -> ColumnElement[Any]:
        return self.table.c.time if self.table is EXCHANGES else self.table.c.start

    def field(self, name: str, dialect: str) -> ColumnElement[Any]:
        """The column of a field, or a label's value: empty where it is missing. Its name is a parameter, never SQL."""
        label = label_of(name)
        if label is None:
            return self.table.c[name]
        if self.label is not None:
            return self.label
        key = label_key(label)
        if dialect == "sqlite":
            return func.coalesce(func.json_extract(EXCHANGES.c.labels, f'$."{key}"'), "")
        return collate(func.coalesce(EXCHANGES.c.labels.op("->>", return_type=Text())(key), ""), "C")

    def matching(self, filters: Filters, dialect: str) -> ColumnElement[bool]:
        """Every field is one of its values."""
        return and_(true(), *[self.field(name, dialect).in_(_wanted(name, values)) for name, values in filters.items()])


ROWS = Source(EXCHANGES, true())


def cover(
    connection: Connection, names: set[str], whole: Range, *, hourly: bool = False, timed: bool = False
) -> Sequence[Source]:
    """Sources that together hold every exchange of a time once, with the fields and labels of these names. `hourly`:
    hours are told apart. `timed`: histograms of times are wanted, which sums of labels do not have.
    """
    left, found = [whole], list[Source]()
    for unit, starts, cube, label in _cubes(connection, names, whole, hourly=hourly, timed=timed):
        taken, rest = _split(left, starts, unit)
        if taken and len(taken) <= MAX_RANGES:
            left = rest
            found.append(Source(ROLLUPS, and_(ROLLUPS.c.cube == cube, _within(ROLLUPS.c.start, taken)), label))
    left = [part for part in left if _has_rows(connection, part)]
    if len(left) > MAX_RANGES:
        left, found = [whole], []
    if left or not found:
        found.append(Source(EXCHANGES, _within(EXCHANGES.c.time, left)))
    return found


def _cubes(
    connection: Connection, names: set[str], whole: Range, *, hourly: bool, timed: bool
) -> Iterator[tuple[int, Sequence[int], str, ColumnElement[Any] | None]]:
    """The cubes that have these names, the smallest first: a unit's length, the starts of ready units, the cube's name,
    and the label's value.
    """

    def starts(cube: str, *, ready: bool = True) -> Sequence[int]:
        wanted = [UNITS.c.cube == cube, UNITS.c.start >= whole[0], UNITS.c.start < whole[1]]
        wanted += [UNITS.c.state == READY] if ready else []
        return connection.execute(select(UNITS.c.start).where(*wanted).order_by(UNITS.c.start)).scalars().all()

    labels = {name for name in names if label_of(name)}
    if not labels:
        for cube in (HOURS, RECENT) if hourly else (DAYS, HOURS, RECENT):
            if names <= set(cube.fields):
                yield cube.unit, starts(cube.name), cube.name, None
    elif len(labels) == 1 and not hourly and not timed:
        key = label_key(label_of(next(iter(labels))) or "")
        for cube in (VALUES, LABELS):
            if names - labels <= set(cube.fields):
                yield cube.unit, starts(cube.named(key)), cube.named(key), ROLLUPS.c.value
        # Days of which all labels are known, and this is none of them.
        without = set(starts(NAMES)) & set(starts(DAYS.name)) - set(starts(VALUES.named(key), ready=False))
        yield DAYS.unit, sorted(without), DAYS.name, literal("")


def _split(parts: Sequence[Range], starts: Sequence[int], unit: int) -> tuple[list[Range], list[Range]]:
    """Ranges of whole units in `parts`, and the ranges that are left."""
    taken, left = list[Range](), list[Range]()
    for begin, end in parts:
        at = begin
        for start in starts:
            if not at <= start <= end - unit:
                continue
            if start > at:
                left.append((at, start))
            if taken and taken[-1][1] == start:
                taken[-1] = (taken[-1][0], start + unit)
            else:
                taken.append((start, start + unit))
            at = start + unit
        if at < end:
            left.append((at, end))
    return taken, left


def _has_rows(connection: Connection, part: Range) -> bool:
    time = EXCHANGES.c.time
    return connection.execute(select(time).where(_within(time, [part])).limit(1)).first() is not None


def _within(time: ColumnElement[Any], ranges: Sequence[Range]) -> ColumnElement[bool]:
    return or_(false(), *[and_(time >= start, time < end) for start, end in ranges])


def _wanted(name: str, values: Sequence[str]) -> list[Any]:
    if name == "status":
        return [int(value) for value in values]
    if name == "stream":
        return [value == "true" for value in values]
    return [text(value) for value in values]  # cut like the stored values
