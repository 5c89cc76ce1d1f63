"""An open ledger: rows go in on the event loop, reports come out on any thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from extproc.money.ledger import LedgerError, Row, SchemaError, privacy
from extproc.money.ledger.database import Database
from extproc.money.ledger.operators import Operators
from extproc.money.ledger.query import ExchangeQuery, Query
from extproc.money.ledger.rollups import Rollups, drop, share
from extproc.money.ledger.rows import micros
from extproc.money.ledger.schema import prune
from extproc.money.ledger.url import LedgerURL
from extproc.money.ledger.writer import MAX_QUEUED, STOP_TIMEOUT, Writer

if TYPE_CHECKING:
    from extproc.money.ledger.usage import UsageReport

PRUNE_BATCH = 5000
PRUNE_PAUSE = 0.05  # seconds between batches, in which the writer has its turn

_log = logging.getLogger(__name__)


class Ledger:
    """`start`, `stop` and `add` are the event loop's. The other methods block, and raise LedgerError.

    The first report of a process imports SQLAlchemy.
    """

    def __init__(self, url: LedgerURL, max_queued: int = MAX_QUEUED) -> None:
        self._database = Database(url)
        self._writer = Writer(self._database, max_queued)
        self.operators = Operators(self._database)
        self._rollups = Rollups(self._database, lambda: self._writer.stopping)
        try:
            self._database.prepare()
        except SchemaError:
            self._database.close()
            raise
        except LedgerError as error:
            if url.server is None:
                self._database.close()
                raise LedgerError(f"cannot open {url.path}: {error}") from None
            _log.warning("%s: rows wait until it does", error)

    @property
    def on_written(self) -> Callable[[Sequence[str]], None]:
        """Called on the writer's thread with the ids of rows, once they are committed; those of replays too."""
        return self._writer.on_written

    @on_written.setter
    def on_written(self, listener: Callable[[Sequence[str]], None]) -> None:
        self._writer.on_written = listener

    @property
    def on_refused(self) -> Callable[[str], None]:
        """Called on the writer's thread with the id of a row that the database refused for its values."""
        return self._writer.on_refused

    @on_refused.setter
    def on_refused(self, listener: Callable[[str], None]) -> None:
        self._writer.on_refused = listener

    @property
    def written(self) -> int:
        """Rows committed by this process."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """Rows that `add` did not take."""
        return self._writer.dropped

    @property
    def refused(self) -> int:
        """Rows that the database refused for their values."""
        return self._writer.refused

    @property
    def failures(self) -> int:
        """Commits that failed; their rows wait."""
        return self._writer.failures

    @property
    def queued(self) -> int:
        """Rows that wait to be committed."""
        return self._writer.queued

    def start(self) -> None:
        """Begin to write. Rows may be added before."""
        self._writer.start()

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Write the queued rows, in `timeout` seconds at most, and end the thread. Returns how many rows are lost."""
        return self._writer.stop(timeout)

    def close(self) -> None:
        """Give the connections back. Rows in memory are gone."""
        self._database.close()

    def add(self, row: Row) -> bool:
        """Queue a row; never blocks. False: the queue is full, and the row is not taken."""
        return self._writer.add(row)

    def usage(self, query: Query) -> UsageReport:
        """The usage report."""
        from extproc.money.ledger.usage import usage  # noqa: PLC0415

        with self._database.read() as connection:
            return usage(connection, query)

    def latency(self, query: Query) -> Mapping[str, Any]:
        """How long answers took, as JSON."""
        from extproc.money.ledger.latency import latency  # noqa: PLC0415

        with self._database.read() as connection:
            return latency(connection, query)

    def findings(self, query: Query) -> Sequence[Mapping[str, Any]]:
        """Findings of guardrails in the query's time, the most frequent first."""
        from extproc.money.ledger.latency import findings  # noqa: PLC0415

        with self._database.read() as connection:
            return findings(connection, query)

    def exchanges(self, query: ExchangeQuery) -> Sequence[Mapping[str, Any]]:
        """The latest exchanges, as JSON."""
        from extproc.money.ledger import exchanges  # noqa: PLC0415

        with self._database.read() as connection:
            return exchanges.latest(connection, query)

    def exchange(self, id: str) -> Mapping[str, Any] | None:
        """One exchange, as JSON, by its id or its request's; None: there is none."""
        from extproc.money.ledger import exchanges  # noqa: PLC0415

        with self._database.read() as connection:
            return exchanges.one(connection, id)

    def charges_by_scope(self, prefix: str, since: float = 0.0) -> Mapping[str, int]:
        """Sums of charges by scope, of exchanges since `since` (epoch seconds): the counters should show the same."""
        from extproc.money.ledger import exchanges  # noqa: PLC0415

        with self._database.read() as connection:
            return exchanges.charges(connection, prefix, since)

    def examine(self) -> None:
        """Write, and take it back: a ledger that can be read may not be writable."""
        try:
            self.operators.examine()
        except LedgerError:
            if self._database.dialect == "sqlite":
                raise
            self.operators.examine()  # the server may have ended the connection since it was last used

    def prune(self, before: float) -> int:
        """Delete rows older than `before` (epoch seconds), batch by batch. Returns their number: not all, once the
        ledger is stopped.
        """
        total, statement = 0, prune(self._database.placeholder)
        while True:
            with self._database.change() as cursor:
                share(cursor, self._database.dialect)
                drop(cursor, micros(before))
                cursor.execute(statement, (micros(before), PRUNE_BATCH))
                deleted = int(cursor.rowcount)
            total += deleted
            if deleted < PRUNE_BATCH or self._writer.stopping:
                return total
            time.sleep(PRUNE_PAUSE)

    def forget(self, consumer: str, *, delete: bool = False) -> int:
        """Forget a consumer: its rows lose name, key, labels and ids, or are deleted, and so are sums that hold them.
        Returns the number of rows.
        """
        total = 0
        while done := privacy.forget(self._database, consumer, delete=delete):
            total += done
            if done < privacy.BATCH or self._writer.stopping:
                break
            time.sleep(PRUNE_PAUSE)
        if total:
            self._database.empty_log()
        return total

    def roll_up(self, now: float) -> int:
        """Add up the hours and days that have passed, so that reports are fast; `now` in epoch seconds. Returns how
        many were made: not all, once the ledger is stopped.
        """
        return self._rollups.make(now)

    def rebuild(self) -> None:
        """Have all sums of hours and days made anew, by the next `roll_up`. Until then reports read the rows."""
        self._rollups.reset()
