"""Statements for both databases: `?` stands for a value. A `Dialect` has the parts that SQLite and PostgreSQL write
differently.

Names and numbers in statements come from this package. Texts from outside are values, never SQL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class Dialect:
    """The SQL of one database. `types` are the types of columns. `label` is SQL for a label's value in `exchanges`,
    empty if missing; its parameter is the path that `label_path` makes of the label's key. `each_label` has a row for
    each label of an exchange, with `key` and `value`; so have `each_charge` and `each_finding` for charges and
    findings.
    """

    name: str
    types: Mapping[str, str]
    begin_read: str
    begin_write: str
    label: str
    label_path: str
    each_label: str
    each_charge: str
    each_finding: str


SQLITE = Dialect(
    name="sqlite",
    types={"text": "TEXT", "json": "TEXT"},
    begin_read="BEGIN",
    begin_write="BEGIN IMMEDIATE",  # no other process writes between the reads and the writes of a transaction
    label="coalesce(json_extract(labels, ?), '')",
    label_path='$."{}"',
    each_label="json_each(exchanges.labels) AS each",
    each_charge="json_each(exchanges.charges) AS each",
    each_finding="json_each(exchanges.guardrails) AS each",
)
POSTGRESQL = Dialect(
    name="postgresql",
    # PostgreSQL orders text by its locale by default; SQLite orders by bytes.
    types={"text": 'TEXT COLLATE "C"', "json": "JSONB"},
    begin_read="",  # its driver begins a transaction by itself
    begin_write="",
    label="""coalesce(labels ->> CAST(? AS TEXT), '') COLLATE "C\"""",
    label_path="{}",
    each_label="jsonb_each_text(exchanges.labels) AS each",
    each_charge="jsonb_each_text(exchanges.charges) AS each",
    each_finding="jsonb_array_elements_text(exchanges.guardrails) AS each(value)",
)


class Cursor:
    """A cursor of either driver (PEP 249), in a transaction."""

    def __init__(self, cursor: Any, dialect: Dialect) -> None:
        self._cursor = cursor
        self.dialect = dialect

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement. Returns the number of changed rows."""
        self._cursor.execute(self._own(statement), values)
        return int(self._cursor.rowcount)

    def execute_each(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._cursor.executemany(self._own(statement), rows)

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        self.execute(statement, values)
        found: list[tuple[Any, ...]] = self._cursor.fetchall()
        return found

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None without a row."""
        self.execute(statement, values)
        row = self._cursor.fetchone()
        return None if row is None else row[0]

    def _own(self, statement: str) -> str:
        """The statement with the driver's placeholders."""
        return statement if self.dialect is SQLITE else statement.replace("%", "%%").replace("?", "%s")


class DriverConnection:
    """A connection of either driver. `broken`: a rollback failed."""

    def __init__(self, connection: Any, dialect: Dialect) -> None:
        self.raw = connection
        self.dialect = dialect
        self.broken = False

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Cursor]:
        """A transaction, committed at the end. Raises the driver's errors."""
        cursor = Cursor(self.raw.cursor(), self.dialect)
        try:
            if begin := self.dialect.begin_write if write else self.dialect.begin_read:
                cursor.execute(begin)
            yield cursor
            self.raw.commit()
        except BaseException:
            try:
                self.raw.rollback()
            except Exception:  # noqa: BLE001 - the first error is raised, not that of the rollback
                self.broken = True
            raise

    def close(self) -> None:
        self.raw.close()


def places(count: int) -> str:
    """Placeholders for this number of values, separated by commas."""
    return ", ".join("?" * count)
