"""An open ledger: rows are added on the event loop, reports are read on any thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from extproc.money.ledger import LedgerError, SchemaError, capacity, comparing, exchanges, privacy, runs
from extproc.money.ledger.database import Database
from extproc.money.ledger.latency import findings, latency
from extproc.money.ledger.operators import Operators
from extproc.money.ledger.query import ExchangeQuery, Query
from extproc.money.ledger.rollups import Rollups, drop, share
from extproc.money.ledger.rows import micros
from extproc.money.ledger.sql import SQLITE
from extproc.money.ledger.texts import Texts
from extproc.money.ledger.trail import Trail
from extproc.money.ledger.url import LedgerURL
from extproc.money.ledger.usage import UsageReport, usage
from extproc.money.ledger.writer import MAX_QUEUED, Writer

PRUNE_BATCH = 5000
PRUNE_PAUSE = 0.05  # seconds between batches, for the writer's transactions

_log = logging.getLogger(__name__)


class Ledger:
    """Rows and reports. `writer` takes rows on the event loop. The methods block, and raise LedgerError."""

    def __init__(self, url: LedgerURL, max_queued: int = MAX_QUEUED) -> None:
        self._database = Database(url)
        self.writer = Writer(self._database, max_queued)
        self.operators = Operators(self._database)
        self.trail = Trail(self._database)
        self.texts = Texts(self._database, lambda: self.writer.stopping)
        self._rollups = Rollups(self._database, lambda: self.writer.stopping)
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

    def close(self) -> None:
        """Close the connections. Rows of a ledger in memory are lost."""
        self._database.close()

    def usage(self, query: Query) -> UsageReport:
        """The usage report."""
        with self._database.read() as cursor:
            return usage(cursor, query)

    def latency(self, query: Query) -> Mapping[str, Any]:
        """Times of answers, as JSON."""
        with self._database.read() as cursor:
            return latency(cursor, query)

    def findings(self, query: Query) -> Sequence[Mapping[str, Any]]:
        """Findings of guardrails in the query's time, the most frequent first."""
        with self._database.read() as cursor:
            return findings(cursor, query)

    def exchanges(self, query: ExchangeQuery) -> Sequence[Mapping[str, Any]]:
        """The latest exchanges, as JSON."""
        with self._database.read() as cursor:
            return exchanges.latest(cursor, query)

    def exchange(self, id: str) -> Mapping[str, Any] | None:
        """One exchange, as JSON, by its id or its `request_id`; None: not found."""
        with self._database.read() as cursor:
            return exchanges.one(cursor, id)

    def runs(self, since: datetime, consumer: str | None = None) -> Sequence[Mapping[str, Any]]:
        """The latest runs since a time, as JSON."""
        with self._database.read() as cursor:
            return runs.latest(cursor, since, consumer)

    def run(self, id: str, consumer: str | None = None) -> Sequence[Mapping[str, Any]]:
        """The runs of that name, one for each consumer, as JSON."""
        with self._database.read() as cursor:
            return runs.one(cursor, id, consumer)

    def compare(self, query: comparing.CompareQuery) -> Mapping[str, Any]:
        """Two targets compared, as JSON."""
        with self._database.read() as cursor:
            return comparing.compare(cursor, query)

    def charges_by_scope(self, prefix: str, since: float = 0.0) -> Mapping[str, int]:
        """Sums of charges by scope, of exchanges since `since` (epoch seconds), to compare with the counters."""
        with self._database.read() as cursor:
            return exchanges.charges(cursor, prefix, since)

    def keep_capacity(self, minutes: Sequence[capacity.Minute]) -> None:
        """Keep what minutes of own hardware cost."""
        with self._database.change() as cursor:
            capacity.keep(cursor, minutes)

    def examine(self) -> None:
        """Write and roll back: a readable ledger may still not be writable."""
        try:
            self.operators.examine()
        except LedgerError:
            if self._database.dialect is SQLITE:
                raise
            self.operators.examine()  # the server may have ended the connection since it was last used

    def prune(self, before: float) -> int:
        """Delete rows older than `before` (epoch seconds), batch by batch. Returns the number deleted. A stop of the
        ledger ends it early.
        """
        total, oldest = 0, "SELECT id FROM exchanges WHERE time < ? ORDER BY time, id LIMIT ?"
        while True:
            with self._database.change() as cursor:
                share(cursor)
                drop(cursor, micros(before))
                deleted = cursor.execute(
                    f"DELETE FROM exchanges WHERE id IN ({oldest})",  # noqa: S608
                    (micros(before), PRUNE_BATCH),
                )
                cursor.execute("DELETE FROM capacity WHERE time < ?", (micros(before),))
            total += deleted
            if deleted < PRUNE_BATCH or self.writer.stopping:
                return total
            time.sleep(PRUNE_PAUSE)

    def forget(self, consumer: str, *, delete: bool = False) -> int:
        """Forget a consumer: its rows lose name, key, labels and ids, or are deleted. Sums with these values are
        deleted, and so are its recorded texts. Returns the number of rows. Its entries in the audit trail are emptied
        and keep their place in the chain.
        """
        self.trail.forget(consumer)
        self.texts.forget(consumer)
        total = 0
        while done := privacy.forget(self._database, consumer, delete=delete):
            total += done
            if done < privacy.BATCH or self.writer.stopping:
                break
            time.sleep(PRUNE_PAUSE)
        if total:
            self._database.empty_log()
        return total

    def roll_up(self, now: float) -> int:
        """Sum up the hours and days that have passed, so that reports are fast; `now` in epoch seconds. Returns the
        number made. A stop of the ledger ends it early.
        """
        return self._rollups.make(now)

    def rebuild(self) -> None:
        """Mark all sums of hours and days for the next `roll_up` to make anew. Until then reports show the earlier
        sums.
        """
        self._rollups.reset()
