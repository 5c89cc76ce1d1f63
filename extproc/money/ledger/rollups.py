"""Sums by hour and by day, made beside the traffic from the rows of time that has passed. A report over a million
rows then reads some thousands of sums.

A unit is one cube's rollups of an hour or a day (`measures.py`). Reports use the units whose state is READY and read
rows for all other time, so they are exact at any moment:

   1. claim    a short transaction writes a token into the unit's state
   2. read     the rows are summed in a snapshot, into a temporary table; writers go on
   3. keep     a short transaction copies the sums and sets READY, if the token is still there

Whatever changes rows of a unit's time marks the unit STALE in the same transaction (`spoil`), whichever step it is in.
A unit with too many combinations is LEFT to the rows. PostgreSQL runs transactions side by side: those that change rows
hold a shared lock, steps 1 and 3 an exclusive one. Only the driver is used here: a process that answers no report has
no SQLAlchemy.

Each of the cubes pays for itself. A million rows of a month, 200 consumers and 20,000 runs on SQLite, against one table
of hours and all fields (686,000 sums, because an hour has few rows of one combination):

                                        rows     cubes    one table
    in all                              1.6 s    0.1 s    0.9 s
    by team                             3.1 s    0.2 s    1.9 s
    by label and team, each day         2.3 s    1.1 s    5.3 s
    by 13 fields                        2.4 s    0.7 s    3.8 s

A writer that added each row to its sums would cost the process that serves more than the row does. A writer only marks
sums as stale; a thread adds up in SQL, without the interpreter's lock.
"""

# ruff: noqa: S608 - names and numbers of this file only; texts are parameters
from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from extproc.money.ledger.database import READ_TIMEOUT, Database
from extproc.money.ledger.measures import (
    DAY,
    DAYS,
    HOUR,
    HOURLY,
    HOURS,
    LABELS,
    LATENCY,
    MEASURES,
    NAMES,
    RECENT,
    USAGE,
    VALUES,
    Cube,
)
from extproc.money.ledger.query import FIELDS
from extproc.money.ledger.rows import micros

READY, LEFT, STALE = "", "left", "stale"
GRACE = 120.0  # seconds after which an hour counts as passed; later rows make its rollups again
KEPT_HOURS = 3 * DAY  # age at which the hours of a finished day are dropped
MAX_LABELS = 64  # names of labels in a day; with more, labels are left to the rows
MAX_LABEL_ROWS = 100_000  # combinations of labels in a day
PAUSE = 0.05  # seconds between units, in which the writer has its turn
_ABANDONED = 600  # seconds after which a claim is void: its process ended
_LOCK = 7_310_868_733_423_013  # of PostgreSQL
_STEPS = 1_000_000  # instructions of SQLite between looks whether to stop

_NO_TIMES = ", ".join(f"0 AS {name}" for name in LATENCY)
_USAGE_SUMS = ", ".join(f"{sql} AS {name}" for name, sql in USAGE.items()) + f", {_NO_TIMES}"
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in MEASURES)
_RAW_SUMS = ", ".join(f"{sql} AS {name}" for name, sql in MEASURES.items())
_NOTHING = "''"
_EMPTY = {"status": "0", "stream": "FALSE"}
_COLUMNS = ", ".join(("cube", "start", "value", *FIELDS, *MEASURES))
_EACH_LABEL = {
    "sqlite": "exchanges, json_each(exchanges.labels) AS each",
    "postgresql": "exchanges, jsonb_each_text(exchanges.labels) AS each",
}


def share(cursor: Any, dialect: str) -> None:
    """Let no unit be claimed or kept before this transaction, which changes rows, has ended."""
    if dialect == "postgresql":  # SQLite has one writer at a time
        cursor.execute(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")


def spoil(cursor: Any, times: Iterable[int]) -> None:
    """Mark the units that hold any of these times (microseconds) as stale."""
    for hour in sorted({at // HOUR for at in times}):
        cursor.execute(
            f"UPDATE rollup_units SET state = '{STALE}' WHERE "
            f"start = {hour * HOUR} AND cube IN {HOURLY} OR start = {hour * HOUR // DAY * DAY} AND cube NOT IN {HOURLY}"
        )


def erase(cursor: Any, times: Iterable[int]) -> None:
    """The same, and delete the rollups of these units: they hold names."""
    spoil(cursor, times := list(times))
    for hour in sorted({at // HOUR * HOUR for at in times}):
        for start, cubes in ((hour, "IN"), (hour // DAY * DAY, "NOT IN")):
            cursor.execute(
                f"DELETE FROM rollups WHERE start = {start} AND cube IN "
                f"(SELECT cube FROM rollup_units WHERE start = {start} AND cube {cubes} {HOURLY})"
            )


def drop(cursor: Any, before: int) -> None:
    """Delete the rollups of the days before a time (microseconds), and mark those of its day up to it as stale."""
    day = before // DAY * DAY
    for table in ("rollups", "rollup_units"):
        cursor.execute(f"DELETE FROM {table} WHERE start < {day}")
    cursor.execute(f"UPDATE rollup_units SET state = '{STALE}' WHERE start BETWEEN {day} AND {before}")


class Rollups:
    """Makes the missing units. `stopping` ends that early."""

    def __init__(self, database: Database, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._stopping = stopping
        self._dialect = database.dialect
        self._place = database.placeholder

    def make(self, now: float) -> int:
        """Make the units of time that has passed, the oldest first; `now` in epoch seconds. Returns their number.
        Blocks, and raises LedgerError.
        """
        made, passed = 0, micros(now - GRACE) // HOUR * HOUR
        if self._database.in_memory:
            return 0
        with self._database.alone() as connection:
            if self._dialect == "sqlite":
                connection.execute("PRAGMA temp_store = MEMORY")  # there may be no folder for temporary files
                connection.set_progress_handler(self._stopping, _STEPS)
            else:
                connection.execute(f"SET statement_timeout = {READ_TIMEOUT}")
                connection.commit()
            day = self._next(connection, 0)
            while day is not None and day < passed and not self._stopping():
                done = self._make_day(connection, day, min(passed, day + DAY), whole=day + DAY <= passed)
                if done:  # a ledger of years loses the hours of one day at a time
                    self._drop_hours(connection, min(day + 1, passed // DAY * DAY - KEPT_HOURS))
                made += done
                day = self._next(connection, day + DAY)
            self._drop_hours(connection, passed // DAY * DAY - KEPT_HOURS)
        return made

    def reset(self) -> None:
        """Mark all units as stale, so that they are made again."""
        with self._database.change() as cursor:
            self._lock(cursor)
            cursor.execute(f"UPDATE rollup_units SET state = '{STALE}'")

    def _make_day(self, connection: Any, day: int, until: int, *, whole: bool) -> int:
        """Make what is missing of a day; of one that has not passed, its hours."""
        with self._reading(connection) as cursor:
            cursor.execute(f"SELECT start, cube, state FROM rollup_units WHERE start >= {day} AND start < {day + DAY}")
            made = {(start, cube) for start, cube, state in cursor.fetchall() if state in (READY, LEFT)}
        steps: list[Callable[[], bool]] = []
        if (day, DAYS.name) not in made:
            missing = [hour for hour in range(day, until, HOUR) if (hour, RECENT.name) not in made]
            steps += [partial(self._make_hour, connection, hour) for hour in missing]
            steps += [partial(self._add_up, connection, day)] if whole else []
        if whole and (day, NAMES) not in made:
            steps.append(partial(self._make_labels, connection, day))
        done = 0
        for step in steps:
            if self._stopping():
                break
            done += step()
            time.sleep(PAUSE)
        return done

    def _make_hour(self, connection: Any, hour: int) -> bool:
        """Sum an hour's rows, by all fields and by most of them."""
        fields = ", ".join(FIELDS)
        if self._is_empty(connection, hour):
            return True
        token = self._claim(connection, hour, *HOURLY)
        if token is None:
            return False
        with (
            self._summed(
                connection,
                f"SELECT {fields}, {_RAW_SUMS} FROM exchanges WHERE time >= {hour} AND time < {hour + HOUR} "
                f"GROUP BY {fields} LIMIT {RECENT.most + 1}",
            ) as count,
            self._keeping(connection, hour, token, *HOURLY) as cursor,
        ):
            if cursor is None:
                return False
            if count <= RECENT.most:
                self._copy(cursor, RECENT, hour, "made")
                self._copy(cursor, HOURS, hour, "made")
            self._set(cursor, hour, READY if count <= RECENT.most else LEFT, *HOURLY)
        return True

    def _is_empty(self, connection: Any, hour: int) -> bool:
        """True when an hour has no rows: its units are then ready. No row arrives during this transaction."""
        with self._writing(connection) as cursor:
            cursor.execute(f"SELECT 1 FROM exchanges WHERE time >= {hour} AND time < {hour + HOUR} LIMIT 1")
            if cursor.fetchone() is not None:
                return False
            self._clear(cursor, hour, *HOURLY)
            self._set(cursor, hour, READY, *HOURLY)
        return True

    def _add_up(self, connection: Any, day: int) -> bool:
        """Add up a day from its hours, in one transaction: nothing changes them meanwhile."""
        source = f"rollups WHERE cube = '{RECENT.name}' AND start >= {day} AND start < {day + DAY}"
        with self._writing(connection) as cursor:
            cursor.execute(
                f"SELECT state, count(*) FROM rollup_units WHERE cube = '{RECENT.name}' "
                f"AND start >= {day} AND start < {day + DAY} GROUP BY state"
            )
            states = dict(cursor.fetchall())
            if sum(states.get(state, 0) for state in (READY, LEFT)) < DAY // HOUR:
                return False  # an hour has changed, or another process is at it
            cursor.execute(f"SELECT count(*) FROM (SELECT 1 FROM {source} GROUP BY {', '.join(FIELDS)}) AS found")
            [[count]] = cursor.fetchall()
            self._clear(cursor, day, DAYS.name)
            if ready := LEFT not in states and count <= DAYS.most:
                self._copy(cursor, DAYS, day, source)
            self._set(cursor, day, READY if ready else LEFT, DAYS.name)
        return True

    def _make_labels(self, connection: Any, day: int) -> bool:
        """Sum a day's rows by the values of each label."""
        token = self._claim(connection, day, NAMES)
        if token is None:
            return False
        by = ", ".join(("each.key", "each.value", *LABELS.fields))
        with (
            self._summed(
                connection,
                f"SELECT each.key AS name, each.value AS value, {', '.join(LABELS.fields)}, {_USAGE_SUMS} "
                f"FROM {_EACH_LABEL[self._dialect]} WHERE time >= {day} AND time < {day + DAY} "
                f"GROUP BY {by} LIMIT {MAX_LABEL_ROWS + 1}",
            ) as count,
            self._keeping(connection, day, token, NAMES) as cursor,
        ):
            if cursor is None:
                return False
            cursor.execute(f"SELECT state FROM rollup_units WHERE start = {day} AND cube = '{DAYS.name}'")
            [[days]] = cursor.fetchall() or [[STALE]]
            cursor.execute("SELECT name, count(*), count(DISTINCT value) FROM made GROUP BY name")
            names = cursor.fetchall()
            if days != READY or count > MAX_LABEL_ROWS or len(names) > MAX_LABELS:
                self._set(cursor, day, STALE if days not in (READY, LEFT) else LEFT, NAMES)
                return days in (READY, LEFT)
            cursor.execute(
                f"DELETE FROM rollup_units WHERE start = {day} AND cube NOT IN {(*HOURLY, DAYS.name, NAMES)}"
            )
            for name, rows, values in names:
                for cube, size in ((LABELS, rows), (VALUES, values)):
                    if size < cube.most:
                        self._copy(cursor, cube, day, "made", name)
                    self._set(cursor, day, READY if size < cube.most else LEFT, cube.named(name))
            self._set(cursor, day, READY, NAMES)
        return True

    def _copy(self, cursor: Any, cube: Cube, start: int, source: str, label: str | None = None) -> None:
        """Add up a cube's rollups from finer ones. Of a label, rows without it are the difference to all of the day."""
        fields = [name if name in cube.fields else f"{_EMPTY.get(name, _NOTHING)} AS {name}" for name in FIELDS]
        by = [*(["value"] if label is not None else []), *cube.fields]
        group = f"GROUP BY {', '.join(by)}" if by else ""
        value = _NOTHING if label is None else "value"
        into = f"INSERT INTO rollups ({_COLUMNS}) SELECT {self._place}, {start}"
        named = (cube.name,) if label is None else (cube.named(label), label)
        where = "" if label is None else f"WHERE name = {self._place}"
        cursor.execute(f"{into}, {value}, {', '.join(fields)}, {_SUMS} FROM {source} {where} {group}", named)
        if label is None:
            return
        rest = ", ".join(f"sum(sign * {name}) AS {name}" for name in USAGE) + f", {_NO_TIMES}"
        both = ", ".join((*cube.fields, *USAGE))
        group = f"GROUP BY {', '.join(cube.fields)}" if cube.fields else ""
        cursor.execute(
            f"{into}, {_NOTHING}, {', '.join(fields)}, {rest} FROM ("
            f"SELECT 1 AS sign, {both} FROM rollups WHERE cube = '{DAYS.name}' AND start = {start} "
            f"UNION ALL SELECT -1 AS sign, {both} FROM made {where}) AS found "
            f"{group} HAVING sum(sign * requests) > 0",
            named,
        )

    @contextlib.contextmanager
    def _summed(self, connection: Any, select: str) -> Iterator[int]:
        """The temporary table `made` with what a query gives: the number of its rows."""
        with self._reading(connection) as cursor:
            cursor.execute(f"CREATE TEMPORARY TABLE made AS {select}")
            cursor.execute("SELECT count(*) FROM made")
            [[count]] = cursor.fetchall()
        try:
            yield int(count)
        finally:
            with self._reading(connection) as cursor:
                cursor.execute("DROP TABLE made")

    @contextlib.contextmanager
    def _keeping(self, connection: Any, start: int, token: str, *cubes: str) -> Iterator[Any]:
        """A transaction that holds the claim on units, their old rollups deleted; None, where the claim is lost."""
        with self._writing(connection) as cursor:
            cursor.execute(f"SELECT count(*) FROM rollup_units WHERE start = {start} AND state = '{token}'")
            [[held]] = cursor.fetchall()
            if held < len(cubes):
                yield None
                return
            self._clear(cursor, start, *cubes)
            yield cursor

    def _clear(self, cursor: Any, start: int, *cubes: str) -> None:
        """Delete rollups of units; with NAMES, those of all labels."""
        if NAMES in cubes:
            wanted = (
                f"cube IN (SELECT cube FROM rollup_units WHERE start = {start} AND cube NOT IN {(*HOURLY, DAYS.name)})"
            )
        else:
            wanted = f"cube IN ({', '.join(map(repr, cubes))})"
        cursor.execute(f"DELETE FROM rollups WHERE start = {start} AND {wanted}")

    def _claim(self, connection: Any, start: int, *cubes: str) -> str | None:
        """Claim units that are not made, for the token that this returns. None: another process is at it."""
        token, now = uuid.uuid4().hex, int(time.time())
        with self._writing(connection) as cursor:
            for cube in cubes:
                cursor.execute(
                    "INSERT INTO rollup_units (start, cube, state, claimed) "
                    f"VALUES ({start}, '{cube}', '{token}', {now}) "
                    "ON CONFLICT (start, cube) DO UPDATE SET state = excluded.state, claimed = excluded.claimed WHERE "
                    f"rollup_units.state IN ('{READY}', '{LEFT}', '{STALE}') "
                    f"OR rollup_units.claimed NOT BETWEEN {now - _ABANDONED} AND {now + _ABANDONED}"
                )
                if not cursor.rowcount:
                    return None
        return token

    def _set(self, cursor: Any, start: int, state: str, *cubes: str) -> None:
        for cube in cubes:
            cursor.execute(
                f"INSERT INTO rollup_units (start, cube, state, claimed) VALUES ({start}, {self._place}, '{state}', 0) "
                "ON CONFLICT (start, cube) DO UPDATE SET state = excluded.state, claimed = 0",
                (cube,),
            )

    def _drop_hours(self, connection: Any, before: int) -> None:
        """Drop hours of days that are added up."""
        with self._reading(connection) as cursor:
            cursor.execute(
                f"SELECT DISTINCT start - start % {DAY} FROM rollup_units "
                f"WHERE cube = '{RECENT.name}' AND start < {before}"
            )
            days = [int(day) for (day,) in cursor.fetchall()]
        for day in days:
            if self._stopping():
                return
            with self._writing(connection) as cursor:
                cursor.execute(f"SELECT state FROM rollup_units WHERE start = {day} AND cube = '{DAYS.name}'")
                if cursor.fetchone() == (READY,):
                    for table in ("rollups", "rollup_units"):
                        cursor.execute(
                            f"DELETE FROM {table} "
                            f"WHERE cube = '{RECENT.name}' AND start >= {day} AND start < {day + DAY}"
                        )
            time.sleep(PAUSE)

    def _next(self, connection: Any, at: int) -> int | None:
        """The first day, at `at` or later, that has rows."""
        with self._reading(connection) as cursor:
            cursor.execute(f"SELECT min(time) FROM exchanges WHERE time >= {at}")
            [[first]] = cursor.fetchall()
        return None if first is None else int(first) // DAY * DAY

    def _lock(self, cursor: Any) -> None:
        if self._dialect == "postgresql":
            cursor.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")

    @contextlib.contextmanager
    def _writing(self, connection: Any) -> Iterator[Any]:
        with _transaction(connection, "BEGIN IMMEDIATE" if self._dialect == "sqlite" else "") as cursor:
            self._lock(cursor)
            yield cursor

    @contextlib.contextmanager
    def _reading(self, connection: Any) -> Iterator[Any]:
        with _transaction(connection, "BEGIN" if self._dialect == "sqlite" else "") as cursor:
            yield cursor


@contextlib.contextmanager
def _transaction(connection: Any, begin: str) -> Iterator[Any]:
    cursor = connection.cursor()
    if begin:  # PostgreSQL's driver begins by itself
        cursor.execute(begin)
    try:
        yield cursor
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
