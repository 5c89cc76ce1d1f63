"""JSON as `msgspec.Struct`s, from any thread.

msgspec reads the annotations of a class at its first use. A second thread that uses the class meanwhile reads
uninitialised memory and crashes the process: with msgspec 0.22, two simultaneous requests of the console did. So a lock
guards the first use. Decoders made while a module is imported need no lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

from extproc.wire.framing import UNREADABLE

T = TypeVar("T")
_lock = threading.Lock()
_known: set[Any] = set()


@overload
def convert(value: Any, kind: type[T], *, strict: bool = True) -> T: ...
@overload
def convert(value: Any, kind: Any, *, strict: bool = True) -> Any: ...
def convert(value: Any, kind: Any, *, strict: bool = True) -> Any:
    """Convert plain JSON to `kind`. Raises msgspec.ValidationError, RecursionError."""
    if kind not in _known:
        _know(kind)
    return msgspec.convert(value, kind, strict=strict)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode JSON bytes to `kind`. Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError."""
    if kind not in _known:
        _know(kind)
    return msgspec.json.decode(data, type=kind)


def reader(kind: type[T], api: str) -> Callable[[bytes], T]:
    """A function that decodes an answer of `api` to `kind`. It raises ValueError."""
    decode = msgspec.json.Decoder(kind).decode

    def read(data: bytes) -> T:
        try:
            return decode(data)
        except UNREADABLE:
            raise ValueError(f"not an answer of {api}") from None

    return read


def _know(kind: Any) -> None:
    with _lock:
        msgspec.json.Decoder(kind)  # this reads the annotations of the class, and of the classes in it
        _known.add(kind)
