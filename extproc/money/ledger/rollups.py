"""Sums by hour and by day, made in the background from the rows of passed time. A report over a million rows then reads
some thousands of sums.

A unit is an hour, with its rollups of HOURS, or a day, with those of the other cubes (`measures.py`). Reports use the
cubes of a unit whose state is READY and read rows for all other time, so they are exact at any moment:

   1. claim    a short transaction writes a token into the unit's state
   2. sum      the rows are summed into a temporary table, while writers go on
   3. keep     a short transaction copies the sums and sets READY, if the token is still there

A transaction that changes rows of a unit's time also marks the unit STALE (`spoil`), in any step. A cube with too many
combinations is LEFT: reports read rows instead. Sums that an operator wants anew are DUE: reports use them until the
new ones replace them. PostgreSQL runs transactions side by side: transactions that change
rows hold a shared lock, steps 1 and 3 an exclusive lock.

Each of the cubes pays for itself. A million rows of a month, 200 consumers and 20,000 runs on SQLite, against one table
of hours and all fields (686,000 sums, because an hour has few rows of one combination):

                                        rows     cubes    one table
    in all                              1.6 s    0.1 s    0.9 s
    by team                             3.1 s    0.2 s    1.9 s
    by label and team, each day         2.3 s    1.1 s    5.3 s
    by 13 fields                        2.4 s    0.7 s    3.8 s

If the writer added each row to its sums, that would cost the serving process more than the row itself. So the writer
only marks sums as stale; a thread sums up in SQL, without the interpreter's lock.
"""

# ruff: noqa: S608 - names and numbers of this file only; texts are values
from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from extproc.money.ledger.database import READ_TIMEOUT, Database
from extproc.money.ledger.measures import DAY, DAYS, HOUR, HOURS, LABELS, MEASURES, NAMES, USAGE, VALUES, Cube
from extproc.money.ledger.rows import micros
from extproc.money.ledger.sql import POSTGRESQL, SQLITE, Cursor, DriverConnection

READY, LEFT, STALE, DUE = "", "left", "stale", "due"
GRACE = 120.0  # seconds after which an hour counts as passed; a later row has its rollups made anew
MAX_LABELS = 64  # most names of labels in a day; with more, reports by label read rows
MAX_LABEL_ROWS = 100_000  # most combinations of labels in a day
PAUSE = 0.05  # seconds between units, for the writer's transactions
_ABANDONED = 600  # seconds after which a claim is void: its process ended
_LOCK = 7_310_868_733_423_013  # key of an advisory lock in PostgreSQL
_STEPS = 1_000_000  # instructions of SQLite between two checks for a stop
_UNIT = {HOURS: f"cube = '{HOURS.name}'", DAYS: f"cube <> '{HOURS.name}'"}  # the cubes of an hour, and of a day


def _sums(measures: Iterable[str]) -> str:
    return ", ".join(f"sum({name}) AS {name}" for name in measures)


def share(cursor: Cursor) -> None:
    """Let no unit be claimed or kept before this transaction, which changes rows, has ended."""
    if cursor.dialect is POSTGRESQL:  # SQLite has one writer at a time
        cursor.execute(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")


def _units(times: Iterable[int]) -> Iterator[tuple[int, str]]:
    """The start and the cubes of each unit that holds any of these times (microseconds)."""
    hours = {at // HOUR * HOUR for at in times}
    for unit, starts in ((HOURS, hours), (DAYS, {hour // DAY * DAY for hour in hours})):
        for start in sorted(starts):
            yield start, _UNIT[unit]


def spoil(cursor: Cursor, times: Iterable[int]) -> None:
    """Mark the units that hold any of these times (microseconds) as stale."""
    for start, cubes in _units(times):
        cursor.execute(f"UPDATE rollup_units SET state = '{STALE}' WHERE start = {start} AND {cubes}")


def erase(cursor: Cursor, times: Iterable[int]) -> None:
    """Mark units as stale, as `spoil` does, and delete their rollups, which hold names."""
    for start, cubes in _units(times):
        _clear(cursor, start, cubes)
        cursor.execute(f"UPDATE rollup_units SET state = '{STALE}' WHERE start = {start} AND {cubes}")


def drop(cursor: Cursor, before: int) -> None:
    """Delete the rollups of all days before that of a time (microseconds), and mark units of its own day up to the time
    as stale.
    """
    day = before // DAY * DAY
    for table in ("rollups", "rollup_units"):
        cursor.execute(f"DELETE FROM {table} WHERE start < {day}")
    cursor.execute(f"UPDATE rollup_units SET state = '{STALE}' WHERE start BETWEEN {day} AND {before}")


class Rollups:
    """Makes the missing units. `stopping` ends the work early."""

    def __init__(self, database: Database, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._stopping = stopping

    def make(self, now: float) -> int:
        """Make the units of time that has passed, the oldest first; `now` in epoch seconds. Returns their number.
        Blocks, and raises LedgerError.
        """
        made, passed = 0, micros(now - GRACE) // HOUR * HOUR
        if self._database.in_memory:
            return 0
        with self._database.alone() as connection:
            if connection.dialect is SQLITE:
                connection.raw.execute("PRAGMA temp_store = MEMORY")  # works without a folder for temporary files
                connection.raw.set_progress_handler(self._stopping, _STEPS)
            else:
                connection.raw.execute(f"SET statement_timeout = {READ_TIMEOUT}")
                connection.raw.commit()
            for start, unit in self._missing(connection, passed):
                if self._stopping():
                    break
                made += self._make(connection, start, unit)
                time.sleep(PAUSE)
        return made

    def reset(self) -> None:
        """Have all units made again."""
        with self._database.change() as cursor:
            _lock(cursor)
            ready = f"state IN ('{READY}', '{DUE}')"
            cursor.execute(f"UPDATE rollup_units SET state = CASE WHEN {ready} THEN '{DUE}' ELSE '{STALE}' END")

    def _missing(self, connection: DriverConnection, passed: int) -> Iterator[tuple[int, Cube]]:
        """The passed units that are not ready, in days that have rows."""
        day = 0
        while True:
            with connection.transaction(write=False) as cursor:
                first = cursor.value(f"SELECT min(time) FROM exchanges WHERE time >= {day}")
                if first is None or first >= passed:
                    return
                day = first // DAY * DAY
                made = set(
                    cursor.rows(
                        f"SELECT start, cube FROM rollup_units WHERE start >= {day} AND start < {day + DAY} "
                        f"AND cube IN ('{HOURS.name}', '{DAYS.name}') AND state IN ('{READY}', '{LEFT}')"
                    )
                )
            for hour in range(day, min(passed, day + DAY), HOUR):
                if (hour, HOURS.name) not in made:
                    yield hour, HOURS
            if day + DAY <= passed and (day, DAYS.name) not in made:
                yield day, DAYS
            day += DAY

    def _make(self, connection: DriverConnection, start: int, unit: Cube) -> bool:
        """Make a unit. False: another process makes it, or its rows changed meanwhile."""
        token = self._claim(connection, start, unit)
        if token is None:
            return False
        time_of_unit = f"time >= {start} AND time < {start + unit.unit}"
        try:
            with connection.transaction(write=False) as cursor:
                summed = _sum(cursor, unit, time_of_unit)
            with self._writing(connection) as cursor:
                held = f"SELECT state FROM rollup_units WHERE start = {start} AND cube = '{unit.name}'"
                if cursor.value(held) != token:
                    return False
                _replace_rollups(cursor, start, unit, summed)
            return True
        finally:
            with connection.transaction(write=False) as cursor:
                cursor.execute("DROP TABLE IF EXISTS made")
                cursor.execute("DROP TABLE IF EXISTS labelled")

    def _claim(self, connection: DriverConnection, start: int, unit: Cube) -> str | None:
        """Claim a unit that is not ready. Returns the claim's token; None: another process makes the unit."""
        token, now = uuid.uuid4().hex, int(time.time())
        with self._writing(connection) as cursor:
            claimed = cursor.execute(
                "INSERT INTO rollup_units (start, cube, state, claimed) "
                f"VALUES ({start}, '{unit.name}', '{token}', {now}) "
                "ON CONFLICT (start, cube) DO UPDATE SET state = excluded.state, claimed = excluded.claimed WHERE "
                f"rollup_units.state IN ('{READY}', '{LEFT}', '{STALE}', '{DUE}') "
                f"OR rollup_units.claimed NOT BETWEEN {now - _ABANDONED} AND {now + _ABANDONED}"
            )
        return token if claimed else None

    @contextlib.contextmanager
    def _writing(self, connection: DriverConnection) -> Iterator[Cursor]:
        with connection.transaction(write=True) as cursor:
            _lock(cursor)
            yield cursor


def _lock(cursor: Cursor) -> None:
    if cursor.dialect is POSTGRESQL:
        cursor.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")


@dataclass(slots=True, frozen=True)
class _Summed:
    """Numbers of rollups that `_sum` made: in all, and for each label in LABELS and in VALUES. Without `labels` reports
    by label read rows.
    """

    rollups: int
    labels: Mapping[str, tuple[int, int]] | None = None


def _sum(cursor: Cursor, unit: Cube, when: str) -> _Summed:
    """Sum a unit's rows into the temporary table `made`; sum a day's rows by the values of each label into
    `labelled`.
    """
    fields = ", ".join(unit.fields)
    sums = ", ".join(f"{sql} AS {name}" for name, sql in MEASURES.items())
    cursor.execute(
        f"CREATE TEMPORARY TABLE made AS SELECT {fields}, {sums} FROM exchanges WHERE {when} "
        f"GROUP BY {fields} LIMIT {unit.most + 1}"
    )
    count = int(cursor.value("SELECT count(*) FROM made"))
    if unit is HOURS or count > unit.most:
        return _Summed(count)
    fields = ", ".join(LABELS.fields)
    sums = ", ".join(f"{sql} AS {name}" for name, sql in USAGE.items())
    cursor.execute(
        f"CREATE TEMPORARY TABLE labelled AS SELECT each.key AS name, each.value AS value, {fields}, {sums} "
        f"FROM exchanges, {cursor.dialect.each_label} WHERE {when} GROUP BY each.key, each.value, {fields} "
        f"LIMIT {MAX_LABEL_ROWS + 1}"
    )
    found = cursor.rows("SELECT name, count(*), count(DISTINCT value) FROM labelled GROUP BY name")
    if len(found) > MAX_LABELS or sum(rows for _, rows, _ in found) > MAX_LABEL_ROWS:
        return _Summed(count)
    # Rows without the label are all rows of the day less those with it. Their value is the empty text.
    less = ", ".join(f"-sum({name}) AS {name}" for name in USAGE)
    cursor.execute(
        f"INSERT INTO labelled SELECT name, '', {fields}, {_sums(USAGE)} FROM ("
        f"SELECT names.name, whole.* FROM (SELECT DISTINCT name FROM labelled) AS names "
        f"CROSS JOIN (SELECT {fields}, {_sums(USAGE)} FROM made GROUP BY {fields}) AS whole "
        f"UNION ALL SELECT name, {fields}, {less} FROM labelled GROUP BY name, {fields}) AS rest "
        f"GROUP BY name, {fields} HAVING sum(requests) > 0"
    )
    return _Summed(count, {name: (rows, values) for name, rows, values in found})


def _replace_rollups(cursor: Cursor, start: int, unit: Cube, summed: _Summed) -> None:
    """Replace a unit's older rollups by the summed ones."""
    _clear(cursor, start, _UNIT[unit])
    cursor.execute(f"DELETE FROM rollup_units WHERE start = {start} AND {_UNIT[unit]}")
    if ready := summed.rollups <= unit.most:
        fields = ", ".join((*unit.fields, *MEASURES))
        cursor.execute(f"INSERT INTO rollups (cube, start, {fields}) SELECT '{unit.name}', {start}, {fields} FROM made")
    _set(cursor, start, unit.name, ready)
    if unit is DAYS:
        _set(cursor, start, NAMES, summed.labels is not None)
        for label, sizes in (summed.labels or {}).items():
            for cube, size in zip((LABELS, VALUES), sizes, strict=True):
                if small := size < cube.most:
                    _keep_label(cursor, start, cube, label)
                _set(cursor, start, cube.named(label), small)


def _keep_label(cursor: Cursor, start: int, cube: Cube, label: str) -> None:
    fields = ", ".join(("value", *cube.fields))
    cursor.execute(
        f"INSERT INTO rollups (cube, start, {fields}, {', '.join(USAGE)}) "
        f"SELECT ?, {start}, {fields}, {_sums(USAGE)} FROM labelled WHERE name = ? GROUP BY {fields}",
        (cube.named(label), label),
    )


def _clear(cursor: Cursor, start: int, cubes: str) -> None:
    """Delete the rollups of a unit."""
    cursor.execute(
        f"DELETE FROM rollups WHERE start = {start} AND cube IN "
        f"(SELECT cube FROM rollup_units WHERE start = {start} AND {cubes})"
    )


def _set(cursor: Cursor, start: int, cube: str, ready: bool) -> None:
    cursor.execute(
        f"INSERT INTO rollup_units (start, cube, state, claimed) VALUES ({start}, ?, '{READY if ready else LEFT}', 0)",
        (cube,),
    )
