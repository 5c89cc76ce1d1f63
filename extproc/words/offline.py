"""Settings examined away from the machine they are for: its secrets, files and packages are taken to be there."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_OFFLINE: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline(active: bool = True) -> Iterator[None]:
    """Until the end of the block, stand-ins take the place of what is missing here."""
    token = _OFFLINE.set(active)
    try:
        yield
    finally:
        _OFFLINE.reset(token)


def is_offline() -> bool:
    return _OFFLINE.get()


def stand_in(reference: str) -> str | None:
    """The text in place of a secret that is missing here, another for each reference. None: it counts as missing."""
    return hashlib.sha256(reference.encode()).hexdigest() if _OFFLINE.get() else None


def has_package(name: str) -> bool:
    return _OFFLINE.get() or importlib.util.find_spec(name) is not None


def has_file(path: str) -> bool:
    return _OFFLINE.get() or Path(path).is_file()
