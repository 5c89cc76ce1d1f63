"""The tables, and the numbered steps that migrate a file from each version to the next."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

from extproc.stores import StoreError

# Migrations from each version of the schema to the next. A new file takes every step; a released step never changes.
_STEPS = (
    (
        # An ended window is one range of the primary key. `idle` is the time at which a count without a window may be
        # forgotten.
        """CREATE TABLE counts (
            window INTEGER NOT NULL, number INTEGER NOT NULL, scope TEXT NOT NULL,
            settled INTEGER NOT NULL, reserved INTEGER NOT NULL, idle REAL,
            PRIMARY KEY (window, number, scope)
        ) WITHOUT ROWID""",
        "CREATE INDEX idle ON counts (idle) WHERE idle IS NOT NULL",
        # `deadline` is the end of the lease; if `expired` is 1 the time of the expiry, if 2 the time of the next
        # report. `charged` are the charges of a kept reservation's settle.
        """CREATE TABLE holdings (
            id TEXT PRIMARY KEY, deadline REAL NOT NULL, forwarded INTEGER NOT NULL, expired INTEGER NOT NULL,
            holds TEXT NOT NULL, charged TEXT, facts BLOB NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX leases ON holdings (expired, deadline)",
        """CREATE TABLE notes (
            board TEXT NOT NULL, author TEXT NOT NULL, expires REAL NOT NULL, note BLOB NOT NULL,
            PRIMARY KEY (board, author)
        ) WITHOUT ROWID""",
    ),
    (
        # Parked holdings (`expired` 3), by the time when they are due.
        "CREATE TABLE parked (id TEXT PRIMARY KEY, due REAL NOT NULL) WITHOUT ROWID",
        "CREATE INDEX due ON parked (due)",
    ),
)
SCHEMA_VERSION = len(_STEPS)


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
