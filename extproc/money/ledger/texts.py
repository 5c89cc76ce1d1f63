"""The table of recorded texts, which are sealed before they come here."""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from extproc.money.ledger.database import Database
from extproc.money.ledger.rows import micros, text
from extproc.money.ledger.sql import places
from extproc.money.texts import Sealed

BATCH = 500  # rows of one transaction
_PAUSE = 0.05  # seconds between batches, for the writer's transactions
_COLUMNS = "id, time, consumer, key, content"


class Texts:
    """Sealed texts by the exchange's id. All methods block, and raise LedgerError."""

    def __init__(self, database: Database, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._stopping = stopping

    def add(self, texts: Sequence[Sealed]) -> None:
        """Store texts. One of an exchange that is stored already replaces it."""
        with self._database.change() as cursor:
            for one in texts:
                cursor.execute(
                    f"INSERT INTO texts ({_COLUMNS}) VALUES ({places(5)}) ON CONFLICT (id) DO UPDATE SET "
                    "time = excluded.time, key = excluded.key, content = excluded.content",
                    (one.id, micros(one.time), text(one.consumer), one.key, one.content),
                )

    def find(self, id: str) -> Sealed | None:
        """The text of an exchange."""
        with self._database.look() as cursor:
            for id_, at, consumer, key, content in cursor.rows(f"SELECT {_COLUMNS} FROM texts WHERE id = ?", (id,)):
                return Sealed(id_, at / 1e6, consumer, key, content)
        return None

    def prune(self, before: float) -> int:
        """Delete texts older than `before` (epoch seconds). Returns their number."""
        return self._delete("time < ?", micros(before))

    def forget(self, consumer: str) -> int:
        """Delete the texts of a consumer. Returns their number."""
        return self._delete("consumer = ?", text(consumer))

    def _delete(self, where: str, value: object) -> int:
        total = 0
        while True:
            with self._database.change() as cursor:
                chosen = f"SELECT id FROM texts WHERE {where} LIMIT {BATCH}"
                done = cursor.execute(f"DELETE FROM texts WHERE id IN ({chosen})", (value,))
            total += done
            if done < BATCH or self._stopping():
                return total
            time.sleep(_PAUSE)
