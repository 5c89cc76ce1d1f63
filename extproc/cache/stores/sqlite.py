"""Kept answers in an SQLite file. One thread of its own writes and reads, so the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from extproc.cache.stores import OVERHEAD, CacheError
from extproc.stores.sqlite.files import connect, make_private

T = TypeVar("T")
_PATIENCE = 1.0  # seconds to wait for another process's transaction
_BATCH = 64  # entries that one write deletes at most, so that no write takes long
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, owner BLOB NOT NULL, value BLOB NOT NULL, size INTEGER NOT NULL,
    used INTEGER NOT NULL, ends REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_owner ON answers (owner);
CREATE INDEX IF NOT EXISTS answers_by_use ON answers (used);
CREATE INDEX IF NOT EXISTS answers_by_end ON answers (ends);
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL);
INSERT OR IGNORE INTO total VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON answers BEGIN UPDATE total SET size = size + new.size; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON answers BEGIN UPDATE total SET size = size - old.size; END;
"""


def _open(path: str) -> sqlite3.Connection:
    """Open the file. Raises sqlite3.Error."""
    db = connect(path, _PATIENCE)
    try:
        db.execute("PRAGMA recursive_triggers = ON")
        db.execute("PRAGMA secure_delete = ON")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db


class SqliteStore:
    """A store of at most `limit` bytes; the least recently used entries are dropped first. The time of use is kept by
    the minute.
    """

    def __init__(self, path: str, limit: int, now: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._now = now
        self._thread = ThreadPoolExecutor(1, "cache")
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            make_private(path)
            self._db = _open(path)
        except (OSError, sqlite3.Error) as error:
            raise CacheError(f"cannot open {path}: {type(error).__name__}") from None

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except sqlite3.Error as error:
            raise CacheError(type(error).__name__) from None

    async def get(self, key: bytes) -> bytes | None:
        return await self._run(self._get, key)

    def _get(self, key: bytes) -> bytes | None:
        found = self._db.execute("SELECT value, used, ends FROM answers WHERE key = ?", (key,)).fetchone()
        now = self._now()
        if found is None or found[2] <= now:
            return None
        if now - found[1] > 60:
            self._db.execute("UPDATE answers SET used = ? WHERE key = ?", (int(now), key))
        value: bytes = found[0]
        return value

    async def put(self, key: bytes, value: bytes, owner: bytes, ttl: float) -> None:
        await self._run(self._write_row, key, value, owner, ttl)

    def _write_row(self, key: bytes, value: bytes, owner: bytes, ttl: float) -> None:
        size, now = len(value) + OVERHEAD, self._now()
        if size > self._limit:
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            row = (key, owner, value, size, int(now), now + ttl)
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)
            self._delete("ends <= ? ORDER BY ends", now)
            while self._db.execute("SELECT size FROM total").fetchone()[0] > self._limit:
                used = self._delete("key <> ? ORDER BY used", key, most=1)
                if not used:
                    break

    def _delete(self, where: str, *values: Any, most: int = _BATCH) -> int:
        chosen = f"SELECT key FROM answers WHERE {where} LIMIT {most}"  # noqa: S608 - constants
        return self._db.execute(f"DELETE FROM answers WHERE key IN ({chosen})", values).rowcount  # noqa: S608

    async def forget(self, owner: bytes) -> int:
        return await self._run(lambda: self._db.execute("DELETE FROM answers WHERE owner = ?", (owner,)).rowcount)

    async def clear(self) -> int:
        return await self._run(lambda: self._db.execute("DELETE FROM answers WHERE 1").rowcount)

    async def stats(self) -> Mapping[str, int]:
        return await self._run(self._stats)

    def _stats(self) -> Mapping[str, int]:
        count, size = self._db.execute("SELECT (SELECT count(*) FROM answers), size FROM total").fetchone()
        return {"entries": count, "bytes": size, "limit": self._limit}

    async def close(self) -> None:
        await self._run(self._db.close)
        self._thread.shutdown(wait=False)
