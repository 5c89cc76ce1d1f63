"""The thread that writes rows: it takes them from a bounded queue, commits batches, and waits while the database is
away.

A row leaves the queue when it is committed. A batch may be written twice, if the outcome of the first commit is
unknown; ids of rows make that harmless. A row that the database refuses for its values is found by halving the batch,
counted and left out. Its reservation stays in the counters, so that the end of its lease makes a row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from extproc.money.ledger import EXPIRED, PENDING, LedgerError, Row, rollups
from extproc.money.ledger.database import Database, reason
from extproc.money.ledger.rows import COLUMNS, values
from extproc.money.ledger.schema import AMEND, INSERT
from extproc.money.ledger.sql import Cursor, places

MAX_QUEUED = 100_000
BATCH = 1000
PAUSE = 0.25  # most seconds that a row waits for further rows
SLICE = 50  # rows prepared or sent at once, before a pause for the event loop
YIELD = 0.0005  # seconds of the pause for the event loop
FIRST_RETRY, LAST_RETRY = 0.25, 10.0  # first and longest pause between tries, seconds
STOP_TIMEOUT = 5.0
_ID, _TIME, _SOURCE = COLUMNS.index("id"), COLUMNS.index("time"), COLUMNS.index("usage_source")
_CHARGES, _COMPLETE = COLUMNS.index("charges"), COLUMNS.index("complete")

_Stored = tuple[str, tuple[object, ...]]  # a row's id, and its values

_log = logging.getLogger(__name__)


class Writer:
    def __init__(self, database: Database, max_queued: int = MAX_QUEUED) -> None:
        self.written = 0  # rows committed by this process
        self.dropped = 0  # rows that `add` did not take
        self.refused = 0  # rows that the database refused for their values
        self.failures = 0  # commits that failed; their rows wait
        # Callbacks on the writer's thread. `on_written` gets the ids of committed rows, those of replays included;
        # `on_refused` the id of a row that the database refused for its values.
        self.on_written: Callable[[Sequence[str]], None] = lambda _ids: None
        self.on_refused: Callable[[str], None] = lambda _id: None
        self._database = database
        self._max_queued = max_queued
        self._queue: deque[Row] = deque()
        self._batch: list[_Stored] = []
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._away: set[str] = set()  # logged reasons why the ledger cannot be written; empty while it can
        self._idle = False  # True: the thread sleeps until the next row
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    @property
    def queued(self) -> int:
        """Rows that are not committed yet."""
        return len(self._queue) + len(self._batch)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def add(self, row: Row) -> bool:
        """Queue a row. False: the queue is full or closed. Never blocks."""
        if self.queued >= self._max_queued or self._stopping.is_set():
            self.dropped += 1
            return False
        self._queue.append(row)
        if self._idle or len(self._queue) >= BATCH:
            self._idle = False
            self._wake.set()
        return True

    def start(self) -> None:
        """Begin to write. Rows may be added before."""
        self._thread.start()

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Write the queued rows, for `timeout` seconds at most, and end the thread. Returns how many rows are lost."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout + 0.5)
        if self.queued:
            _log.error("the ledger was stopped with %d rows unwritten", self.queued)
        return self.queued

    def _run(self) -> None:
        retry = FIRST_RETRY
        while time.monotonic() <= self._deadline:
            if not self._batch:
                self._wait_for_rows()
            if len(self._queue) < BATCH and not self._stopping.is_set():
                self._wake.wait(PAUSE)
                self._wake.clear()
            self._fill_batch()
            if not self._batch:
                if self._stopping.is_set():
                    return
            elif self._write_batch():
                retry = FIRST_RETRY
            elif self._stopping.is_set():
                time.sleep(FIRST_RETRY)
            else:
                self._stopping.wait(retry)
                retry = min(retry * 2, LAST_RETRY)

    def _wait_for_rows(self) -> None:
        """Sleep until there is a row: an idle process costs nothing."""
        self._idle = True
        if not self._queue and not self._stopping.is_set():  # look again, as a stop may have come before `_idle`
            self._wake.wait()
            self._wake.clear()
        self._idle = False

    def _fill_batch(self) -> None:
        """Fill the batch from the queue, in the form the database takes."""
        while self._queue and len(self._batch) < BATCH:
            for _ in range(min(SLICE, len(self._queue), BATCH - len(self._batch))):
                row = self._queue[0]
                try:
                    self._batch.append((row.id, values(row)))
                except Exception as error:  # noqa: BLE001 - the thread must survive, or no row is written again
                    self._refuse(row.id, error)
                self._queue.popleft()  # removed last, so `queued` never reports too few rows
            time.sleep(YIELD)

    def _write_batch(self) -> bool:
        """Write the batch; unwritten rows stay in it. False: the database is away."""
        waited = self.queued
        try:
            self._write(self._batch)
        except Exception as error:  # noqa: BLE001 - after any error the rows wait for the next try
            self.failures += 1
            detail = str(error) if isinstance(error, LedgerError) else reason(error)
            if detail not in self._away:
                self._away.add(detail)
                _log.error("the ledger cannot be written: %s; rows wait", detail)
            return False
        if self._away:
            self._away.clear()
            _log.warning("the ledger is written again; %d rows waited", waited)
        return True

    def _write(self, batch: Sequence[_Stored]) -> None:
        """Commit rows and remove them from the batch; in halves, if the database refuses one of them."""
        try:
            with self._database.write() as cursor:
                self._spoil(cursor, batch)
                for first in range(0, len(batch), SLICE):
                    cursor.execute_each(INSERT, [row for _, row in batch[first : first + SLICE]])
                if ended := [row for _, row in batch if row[_SOURCE] == EXPIRED]:
                    cursor.execute_each(AMEND, [(row[_CHARGES], row[_ID], row[_COMPLETE]) for row in ended])
        except self._database.refusals as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._write(batch[:middle])
                self._write(batch[middle:])
                return
            self._refuse(batch[0][0], error)
        else:
            self.written += len(batch)
            self._notify([id for id, _ in batch])
        self._batch = self._batch[len(batch) :]  # the written rows are the first of the batch

    def _spoil(self, cursor: Cursor, batch: Sequence[_Stored]) -> None:
        """Mark the rollups that hold rows of these times, and those of the rows that they replace."""
        rollups.share(cursor)
        times = {at for _, row in batch if isinstance(at := row[_TIME], int)}
        ids = [row[_ID] for _, row in batch]
        replaced = f"SELECT time FROM exchanges WHERE usage_source IN (?, ?) AND id IN ({places(len(ids))})"  # noqa: S608
        rollups.spoil(cursor, times.union(at for (at,) in cursor.rows(replaced, [EXPIRED, PENDING, *ids])))

    def _refuse(self, id: str, error: Exception) -> None:
        self.refused += 1
        self.on_refused(id)
        _log.error("the ledger refused the row %.256r: %s", id, reason(error))

    def _notify(self, ids: Sequence[str]) -> None:
        try:
            self.on_written(ids)
        except Exception as error:  # noqa: BLE001 - a bug in a callback must not stop the ledger
            _log.error("a listener of the ledger failed: %s", type(error).__name__)
