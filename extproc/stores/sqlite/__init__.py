"""Counters and boards in one SQLite file: `sqlite:PATH`. They survive a restart; the processes of one host share them.

Each phase is one transaction on the event loop: its tens of microseconds cost less than a thread would. The loop never
waits for a lock: while another process has the file locked, a call sleeps and tries again, and a breaker ends the wait
of all calls. WAL with synchronous=NORMAL survives the death of the process; a power cut may lose the last moments. Open
the store after forking.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from extproc.stores import (
    CORRECTED,
    EXPIRE_BATCH,
    LATE_SETTLE,
    MAX_COUNT,
    MAX_LOOK,
    MAX_PARKED,
    PAGE,
    TIMEOUT,
    Count,
    Counters,
    CountsLostError,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    NotSentError,
    Parked,
    StoreError,
    Waits,
    check_amounts,
    check_extension,
    check_facts,
    check_note,
    fuller,
    resets_in,
    window_at,
    window_end,
    write,
)
from extproc.stores.sqlite.files import connect, identity, make_private
from extproc.stores.sqlite.schema import SCHEMA_VERSION, migrate
from extproc.wire.outbound.breaker import Breaker

__all__ = ["SCHEMA_VERSION", "SqliteCounters", "check", "doubts", "from_url"]

log = logging.getLogger(__name__)

OPEN_TIMEOUT = 5.0  # seconds to wait for other processes while opening; a start is not a request
CHECKPOINT = 1 << 20  # bytes of the log beyond which `expire` moves it into the file, and truncates it to this
MOST_PAGES = 16_000  # pages of the log (4 KiB each) beyond which a transaction moves it, on the event loop
RENEW_BATCH = 500  # most leases renewed by one transaction
PURGE_BATCH = 5000  # most counts, of ended windows or idle, deleted by one call of `expire`

_LOAD = "SELECT settled, reserved, idle FROM counts WHERE window = ? AND number = ? AND scope = ?"
_SAVE = "REPLACE INTO counts (settled, reserved, window, number, scope) VALUES (?, ?, ?, ?, ?)"  # leaves `idle` NULL
_SAVE_IDLE = "REPLACE INTO counts (settled, reserved, idle, window, number, scope) VALUES (?, ?, ?, ?, ?, ?)"
_MOVE = """UPDATE counts SET settled = max(0, min(settled + ?, 9223372036854775807)), reserved = reserved + ?
    WHERE window = ? AND number = ? AND scope = ?"""
_RENEW = "UPDATE holdings SET deadline = ? WHERE id = ? AND expired = 0 AND charged IS NULL"
_STATE = "SELECT forwarded, expired, holds, charged FROM holdings WHERE id = ?"
_HOLD = "INSERT INTO holdings VALUES (?, ?, 0, ?, ?, NULL, ?)"
_FORWARD = "UPDATE holdings SET forwarded = 1 WHERE id = ? AND expired = 0 AND charged IS NULL"
_RELEASED = "SELECT holds FROM holdings WHERE id = ? AND expired = 1 AND forwarded = 0"
_END = "DELETE FROM holdings WHERE id = ?"
_ENDED, _PARKED = (1, 2), 3  # values of `expired`
_UNPARK = "DELETE FROM parked WHERE id = ?"
_AGAIN = "UPDATE holdings SET expired = ?, deadline = ? WHERE id = ?"
_DROP = "DELETE FROM counts WHERE window = ? AND number = ? AND scope = ?"
_PURGE = """DELETE FROM counts WHERE (window, number, scope) IN (
    SELECT window, number, scope FROM counts WHERE window = ? AND number < ? AND reserved = 0 LIMIT ?)"""

_IDLE = """DELETE FROM counts WHERE (window, number, scope) IN (
    SELECT window, number, scope FROM counts WHERE idle <= ? AND reserved = 0 LIMIT ?)"""
_PAGE = """SELECT scope, settled, reserved FROM counts
    WHERE window = ? AND number = ? AND scope > ? AND scope < ? ORDER BY scope LIMIT ?"""
_NOTES = "SELECT note FROM notes WHERE board = ? ORDER BY author"
_STALE = "SELECT note FROM notes WHERE expires <= ? OR (board = ? AND author = ?) LIMIT 1"

_LONGEST_PAUSE = 0.025  # longest pause between two tries to begin a transaction, seconds

_Identity = tuple[int, int] | None  # device and inode
_Key = tuple[int, int, str]  # window, its number, scope
_Count = tuple[int, int, float | None]  # settled, reserved, the time when it may be forgotten (None: never)
_NOTHING: _Count = (0, 0, None)


class _Taken(msgspec.Struct, array_like=True, gc=False):
    """A stored hold."""

    window: int
    number: int
    scope: str
    amount: int
    slot: bool
    idle: float

    @property
    def key(self) -> _Key:
        return self.window, self.number, self.scope


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Taken]).decode
_decode_amounts = msgspec.json.Decoder(tuple[int, ...]).decode


class SqliteCounters:
    """Counters in a file. `timeout` is the most seconds that a call waits for another process's transaction."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time, timeout: float = TIMEOUT) -> None:
        self.path = Path(path)
        self._clock = clock
        self._pauses = tuple(_pauses(timeout))
        self._closed = False
        self.breaker = Breaker(refusal=NotSentError)
        self._log = Path(f"{self.path}-wal")
        self._db, self._files = self._open()

    def _open(self) -> tuple[sqlite3.Connection, tuple[_Identity, _Identity]]:
        """A connection, and the identities of its file and that file's log. Blocks. Raises StoreError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # the usage of consumers is private
            make_private(self.path)
            db = connect(self.path, OPEN_TIMEOUT, cached_statements=32)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open {self.path}: {_reason(error)}") from error
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                migrate(db, self.path)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
            db.execute("PRAGMA busy_timeout = 0")
            db.execute(f"PRAGMA wal_autocheckpoint = {MOST_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT}")  # truncates a log that was once long
        except (sqlite3.Error, StoreError) as error:
            db.close()
            raise StoreError(f"cannot open {self.path}: {error}") from error
        return db, (identity(self.path), identity(self._log))

    async def _reopen(self) -> None:
        """Open the file that is at the path now, because counts in a deleted file are lost. Raises StoreError."""
        self._db.close()  # calls fail until the new connection is open
        self._db, self._files = await asyncio.to_thread(self._open_anew)
        if self._closed:
            self._db.close()

    def _open_anew(self) -> tuple[sqlite3.Connection, tuple[_Identity, _Identity]]:
        if identity(self._log) == self._files[1]:  # SQLite would apply the old file's log to the new file
            self._log.unlink(missing_ok=True)
            Path(f"{self.path}-shm").unlink(missing_ok=True)
        return self._open()

    async def reserve(self, id: str, holds: Sequence[Hold], lease: float, *, facts: bytes = b"") -> Granted | Denied:
        check_facts(facts)
        now = self._clock()
        counts: dict[_Key, _Count] = {}  # values of counts after this call: two holds may share a scope
        taken: list[_Taken] = []
        resets: list[float | None] = []
        async with self._transaction() as db:
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
                db.execute(_HOLD, (id, now + lease, 0, _encode(taken), facts))
            except sqlite3.IntegrityError as error:
                raise ValueError(f"reservation {id!r} exists") from error
        return _granted(taken, counts, resets)

    async def forward(self, ids: Sequence[str]) -> None:
        now = self._clock()
        async with self._transaction() as db:
            for id in ids:
                if db.execute(_FORWARD, (id,)).rowcount:
                    continue
                for (holds,) in db.execute(_RELEASED, (id,)).fetchall():
                    for held in _decode(holds):
                        _add_to_count(
                            db, held, 0 if held.slot else held.amount, 0, _idle_at(held, now, least=LATE_SETTLE)
                        )
                    db.execute("UPDATE holdings SET forwarded = 1 WHERE id = ?", (id,))
                    db.execute(_AGAIN, (2, now, id))

    async def void(self, ids: Sequence[str]) -> None:
        now = self._clock()
        async with self._transaction() as db:
            for id in ids:
                row = db.execute(_STATE, (id,)).fetchone()
                if row is None:
                    db.execute(_HOLD, (id, now, 1, b"[]", b""))
                elif row[0] == row[1] == 0 and row[3] is None:
                    for held in _decode(row[2]):
                        _add_to_count(db, held, 0, -held.amount, _idle_at(held, now))
                    db.execute("UPDATE holdings SET holds = '[]' WHERE id = ?", (id,))
                    db.execute(_AGAIN, (1, now, id))

    async def renew(self, ids: Sequence[str], lease: float) -> None:
        for first in range(0, len(ids), RENEW_BATCH):
            deadline = self._clock() + lease
            async with self._transaction() as db:
                db.executemany(_RENEW, [(deadline, id) for id in ids[first : first + RENEW_BATCH]])
            await asyncio.sleep(0)

    async def extend(self, id: str, holds: Sequence[Hold]) -> Granted | Denied | None:
        now = self._clock()
        counts: dict[_Key, _Count] = {}
        resets: list[float | None] = []
        async with self._transaction() as db:
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

    async def park(self, id: str, facts: bytes, *, lease: float, again: float, most: int = MAX_PARKED) -> bool:
        check_facts(facts)
        now = self._clock()
        async with self._transaction() as db:
            row = db.execute(_STATE, (id,)).fetchone()
            if row is None or row[1] not in (0, _PARKED) or row[3] is not None:
                return False
            if not row[1] and db.execute("SELECT count(*) FROM parked").fetchone()[0] >= most:
                return False
            taken = _decode(row[2])
            for held in taken:
                if held.slot:
                    _add_to_count(db, held, 0, -held.amount, _idle_at(held, now))
                    held.amount = 0
            db.execute(
                "UPDATE holdings SET forwarded = 1, holds = ?, facts = ? WHERE id = ?", (_encode(taken), facts, id)
            )
            db.execute(_AGAIN, (_PARKED, now + lease, id))
            db.execute("REPLACE INTO parked VALUES (?, ?)", (id, now + again))
        return True

    async def parked(self, *, again: float, most: int = 1, id: str = "") -> Sequence[Parked]:
        now = self._clock()
        where, which = ("id = ?", (id,)) if id else ("due <= ? ORDER BY due LIMIT ?", (now, most))
        query = f"SELECT id FROM parked WHERE {where}"  # noqa: S608
        if not self._rows(query, which):  # a query without rows takes no lock
            return []
        found = []
        async with self._transaction() as db:
            for (one,) in db.execute(query, which).fetchall():
                holds, facts = db.execute("SELECT holds, facts FROM holdings WHERE id = ?", (one,)).fetchone()
                taken = _decode(holds)
                db.execute("UPDATE parked SET due = ? WHERE id = ?", (now + again, one))
                scopes, amounts = [held.scope for held in taken], [held.amount for held in taken]
                found.append(Parked(one, tuple(scopes), tuple(amounts), facts))
        return found

    async def settle(self, id: str, amounts: Sequence[int], *, keep: bool = False) -> bool:
        now = self._clock()
        async with self._transaction() as db:
            row = db.execute(_STATE, (id,)).fetchone()
            if row is None or row[3] is not None:
                return False
            forwarded, expired, holds, _ = row
            taken = _decode(holds)
            check_amounts(amounts, len(taken))
            charged = [0 if held.slot else amount for held, amount in zip(taken, amounts, strict=True)]
            for held, used in zip(taken, charged, strict=True):
                if expired in _ENDED:
                    _add_to_count(
                        db, held, used - (held.amount if forwarded and not held.slot else 0), 0, _idle_at(held, now)
                    )
                else:
                    _add_to_count(db, held, used, -held.amount, _idle_at(held, now))
            if keep:
                db.execute("UPDATE holdings SET charged = ? WHERE id = ?", (_encode(charged), id))
                if expired:
                    db.execute(_AGAIN, (0, now + CORRECTED, id))
            else:  # delete it: a second settle finds an unknown id
                db.execute(_END, (id,))
            if expired == _PARKED:
                db.execute(_UNPARK, (id,))
        return True

    async def recorded(self, ids: Sequence[str], *, expired: bool = False) -> None:
        async with self._transaction() as db:
            if not expired:
                db.executemany(_END + " AND charged IS NOT NULL", [(id,) for id in ids])
            db.executemany(_AGAIN + " AND expired = 2", [(1, self._clock(), id) for id in ids])

    async def expire(self, *, keep: float = 0.0) -> Sequence[Expired]:
        """See `Counters.expire`. Raises CountsLostError, once, when the file was removed or replaced."""
        if not self._closed and self._files[0] != identity(self.path):
            await self._reopen()
            raise CountsLostError(f"{self.path} was removed or replaced: its counts are lost")
        if self._log_is_long():
            await asyncio.to_thread(self._checkpoint)
        now = self._clock()
        ended: list[Expired] = []
        async with self._transaction() as db:
            due = db.execute(
                "SELECT id, forwarded, expired, holds, charged, facts FROM holdings "
                "WHERE expired IN (0, 2, 3) AND deadline <= ? ORDER BY deadline LIMIT ?",
                (now, EXPIRE_BATCH),
            ).fetchall()
            for id, forwarded, expired, holds, kept, facts in due:
                taken = _decode(holds)
                scopes = tuple([held.scope for held in taken])
                if kept is not None:
                    charged = _decode_amounts(kept)
                    change, state = (_AGAIN, (0, now + keep, id)) if keep else (_END, (id,))
                else:
                    charged = tuple([held.amount if forwarded and not held.slot else 0 for held in taken])
                    change, state = _AGAIN, (2, now + keep, id) if keep and forwarded else (1, now, id)
                    for held, amount in zip(taken, charged, strict=True):
                        if expired not in _ENDED:
                            _add_to_count(db, held, amount, -held.amount, _idle_at(held, now, least=LATE_SETTLE))
                db.execute(change, state)
                if expired == _PARKED:
                    db.execute(_UNPARK, (id,))
                ended.append(Expired(id, bool(forwarded), scopes, charged, kept is not None, facts))
            db.execute("DELETE FROM holdings WHERE expired = 1 AND deadline <= ?", (now - LATE_SETTLE,))
            db.execute("DELETE FROM notes WHERE expires <= ?", (now,))
            db.execute(_IDLE, (now, PURGE_BATCH))
            for window in _windows(db):
                # Keep the last ended window, because a clock that steps back may still need it, and counts with
                # reservations.
                db.execute(_PURGE, (window, window_at(now, window)[0] - 1, PURGE_BATCH))
        return ended

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        now = self._clock()
        levels = []
        try:
            self._db.execute("BEGIN")  # reading needs no lock, but all reads must show one instant
            try:
                for scope, window in scopes:
                    number, ends = window_at(now, window)
                    settled, reserved, _ = _load(self._db, (window, number, scope))
                    levels.append(Level(settled, reserved, resets_in(ends, now)))
            finally:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        return levels

    async def reset(self, scope: str, window: int) -> int:
        number, _ = window_at(self._clock(), window)
        key = window, number, scope
        async with self._transaction() as db:
            was = _load(db, key)[0]
            db.execute(_MOVE, (-was, 0, *key))
        return was

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
            raise StoreError(f"{self.path}: {error}") from error
        return [(scope, Level(settled, reserved, resets_in(ends, now))) for scope, settled, reserved in best]

    async def share(self, board: str, author: str, note: bytes, ttl: float) -> Sequence[bytes]:
        check_note(note)
        now = self._clock()
        if not note and not self._stale(board, author, now):  # a reader takes no lock
            return [other for (other,) in self._rows(_NOTES, (board,))]
        async with self._transaction() as db:
            # Scan the whole table, which has a row for each process that lives or died a moment ago.
            db.execute("DELETE FROM notes WHERE expires <= ? OR (board = ? AND author = ?)", (now, board, author))
            others = db.execute(_NOTES, (board,)).fetchall()
            if note:
                db.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", (board, author, now + ttl, note))
        return [other for (other,) in others]

    async def examine(self) -> str:
        await write(self)
        return ""

    def _stale(self, board: str, author: str, now: float) -> bool:
        """True if the author's note, or expired notes, are to be deleted."""
        return bool(self._rows(_STALE, (now, board, author)))

    def _rows(self, query: str, values: tuple[object, ...]) -> list[tuple[bytes]]:
        """Rows of a query, read without a lock. Raises StoreError."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def _log_is_long(self) -> bool:
        try:
            return self._log.stat().st_size > CHECKPOINT
        except OSError:
            return False

    def _checkpoint(self) -> None:
        """Move the log into the file. This syncs the disk, which can take long, so it runs on a thread, on a separate
        connection, and waits for no lock.
        """
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:  # the next checkpoint may succeed
            return

    async def close(self) -> None:
        self._closed = True
        self._db.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self)

    async def begin(self) -> sqlite3.Connection:
        """Begin a transaction, once no other process has one open. Raises StoreError after the timeout."""
        probe = self.breaker.enter()
        pauses = iter(self._pauses)
        try:
            while True:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    break
                except sqlite3.Error as error:
                    pause = next(pauses, None) if _is_busy(error) else None
                    if pause is None:
                        if self.breaker.failed(probe):
                            log.error(  # noqa: TRY400 - the place says nothing
                                "%s cannot be written (%s); budgets follow their store_failure", self.path, error
                            )
                        raise StoreError(f"{self.path}: {error}") from error
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            self.breaker.abandoned(probe)
            raise
        self.breaker.succeeded()
        return self._db


class _Transaction:
    """A transaction: commits at its end, rolls back on any exception. IMMEDIATE: no other process writes between its
    reads and writes. Its body must not await, because calls of this process share the connection.
    """

    __slots__ = ("_db", "_store")

    def __init__(self, store: SqliteCounters) -> None:
        self._store = store

    async def __aenter__(self) -> sqlite3.Connection:
        self._db = await self._store.begin()
        return self._db

    async def __aexit__(self, kind: object, error: BaseException | None, _traceback: object) -> None:
        path = self._store.path
        try:
            try:
                if kind is None:
                    self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as failed:
            raise StoreError(f"{path}: {failed}") from failed
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"{path}: {error}") from error


def _pauses(timeout: float) -> Iterator[float]:
    """Pauses between tries, `timeout` seconds in all. Their number is fixed, not bound to the clock, so a busy loop has
    as many tries.
    """
    pause = 0.001
    while timeout > 0:
        yield min(pause, timeout)
        timeout -= pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _load(db: sqlite3.Connection, key: _Key) -> _Count:
    return db.execute(_LOAD, key).fetchone() or _NOTHING


def _save(db: sqlite3.Connection, key: _Key, settled: int, reserved: int, idle: float | None) -> None:
    """Write a count. An all-zero count is dropped, unless `expire` will drop it, so that unused slots do not
    pile up.
    """
    if idle is not None:
        db.execute(_SAVE_IDLE, (settled, reserved, idle, *key))
    elif settled or reserved:
        db.execute(_SAVE, (settled, reserved, *key))
    else:
        db.execute(_DROP, key)


def _add_to_count(db: sqlite3.Connection, held: _Taken, settled: int, reserved: int, idle: float | None) -> None:
    """Add to a count. `idle` is the earliest time when the count may be forgotten."""
    if held.window and db.execute(_MOVE, (settled, reserved, *held.key)).rowcount:
        return  # the window's end deletes a count that became all zero
    was_settled, was_reserved, was_idle = _load(db, held.key)
    if idle is not None and was_idle is not None:
        idle = max(idle, was_idle)
    _save(db, held.key, max(0, min(was_settled + settled, MAX_COUNT)), was_reserved + reserved, idle)


def _idle_at(hold: Hold | _Taken, now: float, before: float | None = None, least: float = 0.0) -> float | None:
    """The time when the count of a hold made now may be forgotten: not sooner than `before`."""
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
    """The window lengths in use, found by a few seeks, because DISTINCT would read every count."""
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


def from_url(url: str, waits: Waits) -> Counters:
    check(url)
    return SqliteCounters(url.removeprefix("sqlite:"), timeout=waits.timeout)
