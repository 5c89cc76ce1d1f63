"""Counters and boards in one SQLite file: `sqlite:PATH`. They survive a restart; the processes of one host share them.

Each phase is one transaction, and it runs on the event loop: tens of microseconds cost less than a thread would. WAL
with synchronous=NORMAL survives the death of the process; a power cut may lose the last moments. Open it after forking.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from extproc.stores import (
    EXPIRE_BATCH,
    LATE_SETTLE,
    MAX_COUNT,
    MAX_LOOK,
    PAGE,
    Count,
    Counters,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    StoreError,
    check_amounts,
    check_extension,
    check_note,
    fuller,
    resets_in,
    window_at,
    window_end,
)
from extproc.stores.sqlite.schema import OPEN_TIMEOUT, SCHEMA_VERSION, migrate, use_wal

__all__ = ["SCHEMA_VERSION", "SqliteCounters", "check", "doubts", "from_url"]

PURGE_BATCH = 5000  # counts of ended windows, and idle ones, deleted by one call of `expire`

_LOAD = "SELECT settled, reserved, idle FROM counts WHERE window = ? AND number = ? AND scope = ?"
_SAVE = "REPLACE INTO counts (settled, reserved, window, number, scope) VALUES (?, ?, ?, ?, ?)"  # never idle
_SAVE_IDLE = "REPLACE INTO counts (settled, reserved, idle, window, number, scope) VALUES (?, ?, ?, ?, ?, ?)"
_MOVE = """UPDATE counts SET settled = max(0, min(settled + ?, 9223372036854775807)), reserved = reserved + ?
    WHERE window = ? AND number = ? AND scope = ?"""
_END = "DELETE FROM holdings WHERE id = ?"
_AGAIN = "UPDATE holdings SET expired = ?, deadline = ? WHERE id = ?"
_DROP = "DELETE FROM counts WHERE window = ? AND number = ? AND scope = ?"
_PURGE = """DELETE FROM counts WHERE (window, number, scope) IN (
    SELECT window, number, scope FROM counts WHERE window = ? AND number < ? AND reserved = 0 LIMIT ?)"""

_IDLE = """DELETE FROM counts WHERE (window, number, scope) IN (
    SELECT window, number, scope FROM counts WHERE idle <= ? AND reserved = 0 LIMIT ?)"""
_PAGE = """SELECT scope, settled, reserved FROM counts
    WHERE window = ? AND number = ? AND scope > ? AND scope < ? ORDER BY scope LIMIT ?"""

_Key = tuple[int, int, str]  # window, its number, scope
_Count = tuple[int, int, float | None]  # settled, reserved, the time when it may be forgotten (None: never)
_NOTHING: _Count = (0, 0, None)


class _Taken(msgspec.Struct, array_like=True, gc=False):
    """A hold as stored. Entries of older releases end before `idle`."""

    window: int
    number: int
    scope: str
    amount: int
    slot: bool
    idle: float = 0.0

    @property
    def key(self) -> _Key:
        return self.window, self.number, self.scope


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Taken]).decode
_decode_amounts = msgspec.json.Decoder(tuple[int, ...]).decode


class SqliteCounters:
    """Counters in a file. `timeout` is the most seconds that a call waits for another process's transaction."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time, timeout: float = 0.05) -> None:
        self._path = Path(path)
        self._clock = clock
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # the usage of consumers is private
            # The thread that opens need not be the event loop's; the calls come one at a time all the same.
            self._db = sqlite3.connect(
                self._path, timeout=OPEN_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open {self._path}: {error}") from error
        try:
            use_wal(self._db)
            with self._transaction() as db:
                migrate(db, self._path)
            self._db.execute(f"PRAGMA busy_timeout = {round(timeout * 1000)}")
        except (sqlite3.Error, StoreError) as error:
            self._db.close()
            raise StoreError(f"cannot open {self._path}: {error}") from error

    async def reserve(
        self, id: str, holds: Sequence[Hold], lease: float, *, forwarded: bool = False
    ) -> Granted | Denied:
        now = self._clock()
        counts: dict[_Key, _Count] = {}  # their values after this call: two holds may be on one scope
        taken: list[_Taken] = []
        resets: list[float | None] = []
        with self._transaction() as db:
            for index, hold in enumerate(holds):
                number, ends = window_at(now, hold.window)
                key = (hold.window, number, hold.scope)
                settled, reserved, idle = counts.get(key) or _load(db, key)
                room = hold.limit - settled - reserved
                if hold.amount > room:
                    return Denied(index, max(room, 0), resets_in(ends, now))
                counts[key] = settled, reserved + hold.amount, _idle_at(hold, now, idle)
                taken.append(_Taken(*key, hold.amount, hold.slot, hold.idle))
                resets.append(resets_in(ends, now))
            for key, count in counts.items():
                _save(db, key, *count)
            try:
                row = (id, now + lease, forwarded, _encode(taken))
                db.execute("INSERT INTO holdings VALUES (?, ?, ?, 0, ?, NULL)", row)
            except sqlite3.IntegrityError as error:
                raise ValueError(f"reservation {id!r} exists") from error
        return _granted(taken, counts, resets)

    async def forward(self, id: str, lease: float) -> bool:
        try:  # one statement is a transaction of its own
            renewed = self._db.execute(
                "UPDATE holdings SET deadline = ?, forwarded = 1 WHERE id = ? AND expired = 0 AND charged IS NULL",
                (self._clock() + lease, id),
            ).rowcount
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        return renewed > 0

    async def extend(self, id: str, holds: Sequence[Hold]) -> Granted | Denied | None:
        now = self._clock()
        counts: dict[_Key, _Count] = {}
        resets: list[float | None] = []
        with self._transaction() as db:
            row = db.execute(
                "SELECT holds FROM holdings WHERE id = ? AND expired = 0 AND charged IS NULL", (id,)
            ).fetchone()
            if row is None:
                return None
            taken = _decode(row[0])
            check_extension(holds, [(held.scope, held.window, held.slot) for held in taken])
            for index, (held, hold) in enumerate(zip(taken, holds, strict=True)):
                resets.append(resets_in(window_end(held.window, held.number), now))
                settled, reserved, idle = counts.get(held.key) or _load(db, held.key)
                room = hold.limit - settled - reserved
                if hold.amount and hold.amount > room:
                    return Denied(index, max(room, 0), resets[-1])
                counts[held.key] = settled, reserved + hold.amount, _idle_at(hold, now, idle)
                held.amount += hold.amount
                held.idle = hold.idle
            for key, count in counts.items():
                _save(db, key, *count)
            db.execute("UPDATE holdings SET holds = ? WHERE id = ?", (_encode(taken), id))
        return _granted(taken, counts, resets)

    async def settle(self, id: str, amounts: Sequence[int], *, keep: bool = False) -> bool:
        now = self._clock()
        with self._transaction() as db:
            row = db.execute("SELECT forwarded, expired, holds, charged FROM holdings WHERE id = ?", (id,)).fetchone()
            if row is None or row[3] is not None:
                return False
            forwarded, expired, holds, _ = row
            taken = _decode(holds)
            check_amounts(amounts, len(taken))
            charged = [0 if held.slot else amount for held, amount in zip(taken, amounts, strict=True)]
            for held, used in zip(taken, charged, strict=True):
                if expired:
                    _move(db, held, used - (held.amount if forwarded and not held.slot else 0), 0, _idle_at(held, now))
                else:
                    _move(db, held, used, -held.amount, _idle_at(held, now))
            if keep and not expired:
                db.execute("UPDATE holdings SET charged = ? WHERE id = ?", (_encode(charged), id))
            else:  # not remembered: a second settle finds an unknown id
                db.execute(_END, (id,))
        return True

    async def recorded(self, ids: Sequence[str]) -> None:
        with self._transaction() as db:
            db.executemany(_END + " AND charged IS NOT NULL", [(id,) for id in ids])
            db.executemany(_AGAIN + " AND expired = 2", [(1, self._clock(), id) for id in ids])

    async def expire(self, *, keep: float = 0.0) -> Sequence[Expired]:
        now = self._clock()
        ended: list[Expired] = []
        with self._transaction() as db:
            due = db.execute(
                "SELECT id, forwarded, expired, holds, charged FROM holdings "
                "WHERE expired IN (0, 2) AND deadline <= ? ORDER BY deadline LIMIT ?",
                (now, EXPIRE_BATCH),
            ).fetchall()
            for id, forwarded, expired, holds, kept in due:
                taken = _decode(holds)
                scopes = tuple([held.scope for held in taken])
                if kept is not None:
                    charged = _decode_amounts(kept)
                    change, state = (_AGAIN, (0, now + keep, id)) if keep else (_END, (id,))
                else:
                    charged = tuple([held.amount if forwarded and not held.slot else 0 for held in taken])
                    change, state = _AGAIN, (2, now + keep, id) if keep and forwarded else (1, now, id)
                    for held, amount in zip(taken, charged, strict=True):
                        if not expired:
                            _move(db, held, amount, -held.amount, _idle_at(held, now, least=LATE_SETTLE))
                db.execute(change, state)
                ended.append(Expired(id, bool(forwarded), scopes, charged, kept is not None))
            db.execute("DELETE FROM holdings WHERE expired = 1 AND deadline <= ?", (now - LATE_SETTLE,))
            db.execute("DELETE FROM notes WHERE expires <= ?", (now,))
            db.execute(_IDLE, (now, PURGE_BATCH))
            for window in _windows(db):
                # The last ended window stays: a clock that steps back may still need it. Counts with reservations stay
                # too.
                db.execute(_PURGE, (window, window_at(now, window)[0] - 1, PURGE_BATCH))
        return ended

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        now = self._clock()
        levels = []
        with self._transaction("BEGIN") as db:  # reading needs no lock, but all of it must be of one instant
            for scope, window in scopes:
                number, ends = window_at(now, window)
                settled, reserved, _ = _load(db, (window, number, scope))
                levels.append(Level(settled, reserved, resets_in(ends, now)))
        return levels

    async def fullest(self, prefix: str, window: int, limit: int = 100) -> Sequence[tuple[str, Level]]:
        now = self._clock()
        number, ends = window_at(now, window)
        after, beyond = f"{prefix}:", f"{prefix};"
        best: list[Count] = []
        try:
            page = [(scope, *_load(self._db, (window, number, scope))[:2]) for scope in (prefix, after)]
            for _ in range(0, MAX_LOOK, PAGE):
                best = fuller(best, page, limit)
                page = self._db.execute(_PAGE, (window, number, after, beyond, PAGE)).fetchall()
                if not page:
                    break
                after = page[-1][0]
                await asyncio.sleep(0)
            best = fuller(best, page, limit)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        return [(scope, Level(settled, reserved, resets_in(ends, now))) for scope, settled, reserved in best]

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

    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> _Transaction:
        return _Transaction(self._db, self._path, begin)


class _Transaction:
    """Commit at the end, roll back on any exception. IMMEDIATE: no other process writes between the reads and the
    writes here.
    """

    __slots__ = ("_begin", "_db", "_path")

    def __init__(self, db: sqlite3.Connection, path: Path, begin: str) -> None:
        self._db, self._path, self._begin = db, path, begin

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._db.execute(self._begin)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            try:
                if kind is None:
                    self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as failed:
            raise StoreError(f"{self._path}: {failed}") from failed
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"{self._path}: {error}") from error


def _load(db: sqlite3.Connection, key: _Key) -> _Count:
    return db.execute(_LOAD, key).fetchone() or _NOTHING


def _save(db: sqlite3.Connection, key: _Key, settled: int, reserved: int, idle: float | None) -> None:
    """Write a count. One that is all zero is dropped, unless `expire` does that: unused slots must not pile up."""
    if idle is not None:
        db.execute(_SAVE_IDLE, (settled, reserved, idle, *key))
    elif settled or reserved:
        db.execute(_SAVE, (settled, reserved, *key))
    else:
        db.execute(_DROP, key)


def _move(db: sqlite3.Connection, held: _Taken, settled: int, reserved: int, idle: float | None) -> None:
    """Add to a count, which is `idle` then at the earliest."""
    if held.window and db.execute(_MOVE, (settled, reserved, *held.key)).rowcount:
        return  # a count that became all zero goes with its window
    was_settled, was_reserved, was_idle = _load(db, held.key)
    if idle is not None and was_idle is not None:
        idle = max(idle, was_idle)
    _save(db, held.key, max(0, min(was_settled + settled, MAX_COUNT)), was_reserved + reserved, idle)


def _idle_at(hold: Hold | _Taken, now: float, before: float | None = None, least: float = 0.0) -> float | None:
    """The time when the count of a hold that touches it now may be forgotten: not sooner than `before`."""
    if hold.window or not hold.idle:
        return None
    return max(before or 0.0, now + max(hold.idle, least))


def _granted(taken: Sequence[_Taken], counts: dict[_Key, _Count], resets: Sequence[float | None]) -> Granted:
    levels = []
    for held, resets_in_ in zip(taken, resets, strict=True):
        settled, reserved, _ = counts[held.key]
        levels.append(Level(settled, reserved, resets_in_))
    return Granted(tuple(levels))


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
