"""The tables, and the numbered steps that migrate a file from each version to the next."""

from __future__ import annotations

import itertools
import sqlite3
import time
from pathlib import Path

from extproc.stores import StoreError

OPEN_TIMEOUT = 5.0  # seconds to wait for other processes while opening; a start is not a request

# Migrations from each version of the schema to the next. A new file takes every step; a released step never changes.
# An ended window is one range of the primary key. `deadline` is the end of the lease; with `expired` 1 the time of the
# expiry, with 2 the time of the next report.
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
    (
        # `idle` is the time when a count without a window may be forgotten, `charged` the charges of a kept
        # reservation's settle.
        "ALTER TABLE counts ADD COLUMN idle REAL",
        "CREATE INDEX idle ON counts (idle) WHERE idle IS NOT NULL",
        "ALTER TABLE reservations ADD COLUMN charged TEXT",
        # A worker of an older release that is still running would take kept ones for live: after this it finds none.
        "ALTER TABLE reservations RENAME TO holdings",
    ),
    ("ALTER TABLE holdings ADD COLUMN facts BLOB NOT NULL DEFAULT x''",),
)
SCHEMA_VERSION = len(_STEPS)  # 4


def use_wal(db: sqlite3.Connection) -> None:
    """Write ahead, without a sync for each commit. Raises sqlite3.Error."""
    deadline = time.monotonic() + OPEN_TIMEOUT
    while True:  # SQLite does not wait for a lock to change the journal mode
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    db.execute("PRAGMA synchronous = NORMAL")


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Migrate the file to SCHEMA_VERSION, in a transaction that is IMMEDIATE. Raises StoreError when a newer release
    wrote it.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path} was written by a newer release (schema {version}, this one reads {SCHEMA_VERSION})")
    if version < SCHEMA_VERSION:
        for statement in itertools.chain(*_STEPS[version:]):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
