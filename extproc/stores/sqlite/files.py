"""SQLite files: private to the user of this process, in write-ahead mode, and recognised by device and inode."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

_PARTS = ("", "-wal", "-shm")  # files of an SQLite database; SQLite gives new ones the mode of the first


def make_private(path: str | Path) -> None:
    """Create the SQLite file `path` with mode 0600, or give an existing one that mode. Raises OSError.

    An existing file is not opened: closing it would release the locks that SQLite holds on it in this process.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        for part in _PARTS:
            _narrow(Path(f"{path}{part}"))


def connect(path: str | Path, timeout: float, *, cached_statements: int = 128) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time. It uses a write-ahead log without a sync for each commit,
    and waits `timeout` seconds for other processes. Raises sqlite3.Error.
    """
    db = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=cached_statements
    )
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:  # SQLite does not wait for a lock to change the journal mode
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        db.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _narrow(path: Path) -> None:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except (FileNotFoundError, PermissionError):  # another user owns the file: leave its mode
        pass


def identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode of the file at `path`; None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - the ledger calls this before every batch
    except OSError:
        return None
    return found.st_dev, found.st_ino
