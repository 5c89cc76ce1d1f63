"""The tables that a report reads: rollups of whole hours and days that are ready, and rows for all other time."""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from extproc.money.ledger.measures import DAYS, HOURS, LABELS, NAMES, VALUES
from extproc.money.ledger.query import Filters, label_of
from extproc.money.ledger.rollups import DUE, READY
from extproc.money.ledger.rows import label_key, text
from extproc.money.ledger.sql import Cursor, Dialect, places

MAX_RANGES = 64  # most ranges of one cube; with more gaps between its units, reading rows is faster

Range = tuple[int, int]
"""A range of time in microseconds; the end is exclusive."""


@dataclass(slots=True)
class RowSource:
    """Rows of `exchanges`, or rollups of a cube: a condition, and the values for it. `label` is the value of the
    report's label in rollups.
    """

    dialect: Dialect
    where: str = "TRUE"
    values: list[object] = field(default_factory=list)
    cube: str = ""  # empty: rows
    label: str = "value"

    @property
    def table(self) -> str:
        return "rollups" if self.cube else "exchanges"

    @property
    def time(self) -> str:
        return "start" if self.cube else "time"

    def field(self, name: str) -> tuple[str, list[object]]:
        """The SQL for a field, or for a label's value (empty if missing), and the parameters of that SQL."""
        label = label_of(name)
        if label is None:
            return name, []
        if self.cube:
            return self.label, []
        return self.dialect.label, [self.dialect.label_path.format(label_key(label))]

    def matching(self, filters: Filters) -> tuple[str, list[object]]:
        """The source's condition, and a condition that every filtered field has one of its allowed values."""
        where, values = [self.where], [*self.values]
        for name, wanted in filters.items():
            column, needed = self.field(name)
            where.append(f"{column} IN ({places(len(wanted))})" if wanted else "FALSE")
            values += [*(needed if wanted else []), *_parameters(name, wanted)]
        return " AND ".join(where), values


def cover(
    cursor: Cursor, names: set[str], whole: Range, *, resolution: str = "total", timed: bool = False
) -> Sequence[RowSource]:
    """Sources that together hold every exchange of a time exactly once, with these fields and labels. `timed`:
    histograms of times are needed, which sums by label lack.
    """
    left, found = [whole], list[RowSource]()
    for unit, starts, cube, label in _cubes(cursor, names, whole, resolution, timed=timed):
        taken, rest = _split(left, starts, unit)
        if taken and len(taken) <= MAX_RANGES:
            left = rest
            where = f"cube = ? AND ({_within('start', taken)})"
            found.append(RowSource(cursor.dialect, where, [cube], cube, label))
    left = [part for part in left if _has_rows(cursor, part)]
    if len(left) > MAX_RANGES:
        left, found = [whole], []
    if left or not found:
        found.append(RowSource(cursor.dialect, f"({_within('time', left)})"))
    return found


def _cubes(
    cursor: Cursor, names: set[str], whole: Range, resolution: str, *, timed: bool
) -> Iterator[tuple[int, Sequence[int], str, str]]:
    """The cubes with these fields and labels, the smallest first: a unit's length, the starts of ready units, the
    cube's name, and the label's value.
    """

    def starts(cube: str, state: str = f"AND state IN ('{READY}', '{DUE}')") -> list[int]:
        found = cursor.rows(
            f"SELECT start FROM rollup_units WHERE cube = ? AND start >= ? AND start < ? {state} ORDER BY start",
            (cube, *whole),
        )
        return [start for (start,) in found]

    if resolution == "minute":  # no cube keeps minutes apart
        return
    hourly = resolution == "hour"
    labels = {name for name in names if label_of(name)}
    if not labels:
        for cube in (HOURS,) if hourly else (DAYS, HOURS):
            if names <= set(cube.fields):
                yield cube.unit, starts(cube.name), cube.name, ""
    elif len(labels) == 1 and not hourly and not timed:
        key = label_key(label_of(next(iter(labels))) or "")
        for cube in (VALUES, LABELS):
            if names - labels <= set(cube.fields):
                yield cube.unit, starts(cube.named(key)), cube.named(key), "value"
        # Days whose labels are all known, without this label.
        without = set(starts(NAMES)) & set(starts(DAYS.name)) - set(starts(VALUES.named(key), state=""))
        yield DAYS.unit, sorted(without), DAYS.name, "''"


def _split(parts: Sequence[Range], starts: Sequence[int], unit: int) -> tuple[list[Range], list[Range]]:
    """Ranges of whole units in `parts`, and the remaining ranges."""
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


def _has_rows(cursor: Cursor, part: Range) -> bool:
    return cursor.value(f"SELECT 1 FROM exchanges WHERE {_within('time', [part])} LIMIT 1") is not None


def _within(column: str, ranges: Sequence[Range]) -> str:
    return " OR ".join(f"{column} >= {start} AND {column} < {end}" for start, end in ranges) or "FALSE"


def _parameters(name: str, values: Sequence[str]) -> list[Any]:
    if name == "status":
        return [int(value) for value in values]
    if name == "stream":
        return [value == "true" for value in values]
    return [text(value) for value in values]  # cut as stored values are
