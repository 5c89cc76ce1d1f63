"""Files of databases: readable by the user of this process alone, and known again."""

from __future__ import annotations

import os
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


def _narrow(path: Path) -> None:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except (FileNotFoundError, PermissionError):  # the file is another user's, who decides about it
        pass


def identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode of the file at `path`; None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - the ledger looks before every batch
    except OSError:
        return None
    return found.st_dev, found.st_ino
