"""Counters and boards in one SQLite file: `sqlite:PATH`. They survive a restart; the processes of one host share them.

Each phase is one transaction, and it runs on the event loop: tens of microseconds cost less than a thread would. WAL
with synchronous=NORMAL survives the death of the process; a power cut may lose the last moments. Open it after forking.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from extproc.stores import (
    EXPIRE_BATCH,
    LATE_SETTLE,
    MAX_COUNT,
    Counters,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    StoreError,
    check_amounts,
    check_note,
    window_at,
)

OPEN_TIMEOUT = 5.0  # seconds to wait for other processes while opening; a start is not a request
PURGE_BATCH = 5000  # counts of ended windows deleted by one call of `expire`

# What leads from each version of the schema to the next. A new file takes every step; a released step stays as it is.
# An ended window is one range of the primary key. `deadline` is the lease's; once expired, when that was.
_STEPS = (
    (
        """CREATE TABLE counts (
            window INTEGER NOT NULL, number INTEGER NOT NULL, scope TEXT NOT NULL,
            settled INTEGER NOT NULL, reserved INTEGER NOT NULL,
            PRIMARY KEY (window, number, scope)
        ) WITHOUT ROWID""",
        """CREATE TABLE reservations (
            id TEXT PRIMARY KEY, deadline REAL NOT NULL, forwarded INTEGER NOT NULL, expired INTEGER NOT NULL,
            holds TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX leases ON reservations (expired, deadline)",
    ),
    (
        """CREATE TABLE notes (
            board TEXT NOT NULL, author TEXT NOT NULL, expires REAL NOT NULL, note BLOB NOT NULL,
            PRIMARY KEY (board, author)
        ) WITHOUT ROWID""",
    ),
)
SCHEMA_VERSION = len(_STEPS)  # 2

_LOAD = "SELECT settled, reserved FROM counts WHERE window = ? AND number = ? AND scope = ?"
_SAVE = "REPLACE INTO counts (settled, reserved, window, number, scope) VALUES (?, ?, ?, ?, ?)"
_DROP = "DELETE FROM counts WHERE window = ? AND number = ? AND scope = ?"
_PURGE = """DELETE FROM counts WHERE (window, number, scope) IN (
    SELECT window, number, scope FROM counts WHERE window = ? AND number < ? AND reserved = 0 LIMIT ?)"""

_Key = tuple[int, int, str]  # window, its number, scope
_Taken = tuple[int, int, str, int, bool]  # the key, what is held there, and whether it is a slot

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Taken]).decode


class SqliteCounters:
    """`timeout` is how long a call waits for another process's transaction, in seconds."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time, timeout: float = 0.05) -> None:
        self._path = Path(path)
        self._clock = clock
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The thread that opens need not be the event loop's; the calls come one at a time all the same.
            self._db = sqlite3.connect(
                self._path, timeout=OPEN_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open {self._path}: {error}") from error
        try:
            self._prepare()
            self._db.execute(f"PRAGMA busy_timeout = {round(timeout * 1000)}")
        except sqlite3.Error as error:
            self._db.close()
            raise StoreError(f"cannot open {self._path}: {error}") from error
        except StoreError:
            self._db.close()
            raise

    async def reserve(
        self, id: str, holds: Sequence[Hold], lease: float, *, forwarded: bool = False
    ) -> Granted | Denied:
        now = self._clock()
        counts: dict[_Key, tuple[int, int]] = {}  # as they will be: two holds may be on one scope
        taken: list[_Taken] = []
        resets: list[float | None] = []
        with self._transaction() as db:
            for index, hold in enumerate(holds):
                number, ends = window_at(now, hold.window)
                resets_in = None if ends is None else ends - now
                key = (hold.window, number, hold.scope)
                settled, reserved = counts.get(key) or _load(db, key)
                room = hold.limit - settled - reserved
                if hold.amount > room:
                    return Denied(index, max(room, 0), resets_in)
                counts[key] = settled, reserved + hold.amount
                taken.append((*key, hold.amount, hold.slot))
                resets.append(resets_in)
            for key, (settled, reserved) in counts.items():
                _save(db, key, settled, reserved)
            try:
                row = (id, now + lease, forwarded, _encode(taken))
                db.execute("INSERT INTO reservations VALUES (?, ?, ?, 0, ?)", row)
            except sqlite3.IntegrityError as error:
                raise ValueError(f"reservation {id!r} exists") from error
        return Granted(
            tuple(
                [
                    Level(*counts[window, number, scope], resets_in)
                    for (window, number, scope, _, _), resets_in in zip(taken, resets, strict=True)
                ]
            )
        )

    async def forward(self, id: str, lease: float) -> bool:
        try:  # one statement is a transaction of its own
            renewed = self._db.execute(
                "UPDATE reservations SET deadline = ?, forwarded = 1 WHERE id = ? AND expired = 0",
                (self._clock() + lease, id),
            ).rowcount
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        return renewed > 0

    async def settle(self, id: str, amounts: Sequence[int]) -> bool:
        with self._transaction() as db:
            row = db.execute("SELECT forwarded, expired, holds FROM reservations WHERE id = ?", (id,)).fetchone()
            if row is not None:
                forwarded, expired, holds = row
                taken = _decode(holds)
                check_amounts(amounts, len(taken))
                for (window, number, scope, held, slot), amount in zip(taken, amounts, strict=True):
                    used = 0 if slot else amount
                    if expired:
                        _move(db, (window, number, scope), used - (held if forwarded and not slot else 0), 0)
                    else:
                        _move(db, (window, number, scope), used, -held)
                # Nothing remembers it: a second settle finds an unknown id.
                db.execute("DELETE FROM reservations WHERE id = ?", (id,))
        return row is not None

    async def expire(self) -> Sequence[Expired]:
        now = self._clock()
        ended: list[Expired] = []
        with self._transaction() as db:
            due = db.execute(
                "SELECT id, forwarded, holds FROM reservations WHERE expired = 0 AND deadline <= ? "
                "ORDER BY deadline LIMIT ?",
                (now, EXPIRE_BATCH),
            ).fetchall()
            for id, forwarded, holds in due:
                taken = _decode(holds)
                charged = tuple(held if forwarded and not slot else 0 for *_, held, slot in taken)
                for (window, number, scope, held, _), amount in zip(taken, charged, strict=True):
                    _move(db, (window, number, scope), amount, -held)
                db.execute("UPDATE reservations SET expired = 1, deadline = ? WHERE id = ?", (now, id))
                ended.append(Expired(id, bool(forwarded), tuple(scope for _, _, scope, _, _ in taken), charged))
            db.execute("DELETE FROM reservations WHERE expired = 1 AND deadline <= ?", (now - LATE_SETTLE,))
            db.execute("DELETE FROM notes WHERE expires <= ?", (now,))
            for window in _windows(db):
                # The last ended window stays: a clock that steps back may still need it. So does what is held.
                db.execute(_PURGE, (window, window_at(now, window)[0] - 1, PURGE_BATCH))
        return ended

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        now = self._clock()
        levels = []
        with self._transaction("BEGIN") as db:  # reading needs no lock, but all of it must be of one instant
            for scope, window in scopes:
                number, ends = window_at(now, window)
                levels.append(Level(*_load(db, (window, number, scope)), None if ends is None else ends - now))
        return levels

    async def share(self, board: str, author: str, note: bytes, ttl: float) -> Sequence[bytes]:
        check_note(note)
        now = self._clock()
        with self._transaction() as db:
            # A pass over the whole table, which has a row for each process that lives or died a moment ago.
            db.execute("DELETE FROM notes WHERE expires <= ? OR (board = ? AND author = ?)", (now, board, author))
            others = db.execute("SELECT note FROM notes WHERE board = ? ORDER BY author", (board,)).fetchall()
            if note:
                db.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", (board, author, now + ttl, note))
        return [other for (other,) in others]

    async def close(self) -> None:
        self._db.close()

    def _prepare(self) -> None:
        deadline = time.monotonic() + OPEN_TIMEOUT
        while True:  # SQLite does not wait for a lock to change the journal mode
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._db.execute("PRAGMA synchronous = NORMAL")
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self._path} was written by a newer release (schema {version}, this one reads {SCHEMA_VERSION})"
                )
            if version < SCHEMA_VERSION:
                for statement in itertools.chain(*_STEPS[version:]):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Commit at the end, roll back on any exception. IMMEDIATE: nobody writes between our reads and our writes."""
        try:
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error


def _load(db: sqlite3.Connection, key: _Key) -> tuple[int, int]:
    return db.execute(_LOAD, key).fetchone() or (0, 0)


def _save(db: sqlite3.Connection, key: _Key, settled: int, reserved: int) -> None:
    """Write a count. One that is all zero is dropped: idle concurrency slots must not pile up."""
    if settled or reserved:
        db.execute(_SAVE, (settled, reserved, *key))
    else:
        db.execute(_DROP, key)


def _move(db: sqlite3.Connection, key: _Key, settled: int, reserved: int) -> None:
    """Add to a count. In Python, because SQLite would turn an integer that overflows into a float."""
    was_settled, was_reserved = _load(db, key)
    _save(db, key, max(0, min(was_settled + settled, MAX_COUNT)), was_reserved + reserved)


def _windows(db: sqlite3.Connection) -> list[int]:
    """List the window lengths in use, by a few seeks: DISTINCT would read every count."""
    windows: list[int] = []
    window = -MAX_COUNT
    while True:
        (window,) = db.execute("SELECT min(window) FROM counts WHERE window > ?", (window,)).fetchone()
        if window is None:
            return windows
        windows.append(window)


def check(url: str) -> None:
    if url == "sqlite:":
        raise ValueError("sqlite: needs a path, for example sqlite:var/counters.db")


def doubts(_url: str) -> Sequence[str]:
    return ()


def from_url(url: str) -> Counters:
    check(url)
    return SqliteCounters(url.removeprefix("sqlite:"))
