"""Paths of unix sockets that no other user can connect to."""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import stat
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def private(path: str) -> Iterator[None]:
    """Make sockets bound at `path` in this context have mode 0600 from their first moment. Removes the socket of a
    killed process. Raises OSError when `path` is another kind of file, or in use.
    """
    _make_room(Path(path))
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(f"{path} exists and is no socket")
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.settimeout(1)
            if probe.connect_ex(str(path)) == 0:
                raise OSError(f"another process serves {path}")
        path.unlink()
