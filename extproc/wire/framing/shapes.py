"""JSON as `msgspec.Struct`s, from any thread.

msgspec reads the annotations of a class at its first use. A thread that uses the class meanwhile reads memory that is
not there yet, which ends the process: with msgspec 0.22, two requests of the console at the same time. So one thread at
a time makes a class known, before it is used. The decoders that modules make for themselves need none of this.
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
    """`value`, plain JSON, as `kind`. Raises msgspec.ValidationError, RecursionError."""
    if kind not in _known:
        _know(kind)
    return msgspec.convert(value, kind, strict=strict)


def decode(data: bytes | str, kind: type[T]) -> T:
    """The JSON `data` as `kind`. Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError."""
    if kind not in _known:
        _know(kind)
    return msgspec.json.decode(data, type=kind)


def reader(kind: type[T], api: str) -> Callable[[bytes], T]:
    """A function that reads an answer of `api` as `kind`. Raises ValueError."""
    decode = msgspec.json.Decoder(kind).decode

    def read(data: bytes) -> T:
        try:
            return decode(data)
        except UNREADABLE:
            raise ValueError(f"not an answer of {api}") from None

    return read


def _know(kind: Any) -> None:
    with _lock:
        msgspec.json.Decoder(kind)  # reads the annotations of the class, and of all in it
        _known.add(kind)
