"""What is kept of an event too long to be read whole: its beginning, its end, and the usage wherever it stands.

The usage is found without decoding the event: quotes tell strings from the rest, and brackets outside of strings tell
the level of a key. So text of a model cannot pass for usage, and neither can an object in the arguments of a call.
"""

from __future__ import annotations

import re

KEPT = 64 << 10
"""Bytes of the beginning, and of the end, that are kept of an event too long to be read."""

USAGE = b'"usage"'
"""The name of usage in most APIs, with its quotes."""

_colon = re.compile(rb"[ \t\r\n]*+(:|\Z)?").match
_MOST_LEVELS = 2  # the deepest level at which an API has its usage
_MOST_BYTES = 16 << 10  # of a usage object
_MOST_STRINGS = 256  # strings with the name in one event
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


class Edges:
    """Beginning, end and usage of the payload of an event that is too long to be read whole. `key` is the name of
    usage, with its quotes.
    """

    __slots__ = ("_inside", "_key", "_level", "_pending", "_rest", "_strings", "_tail", "_values", "head")

    def __init__(self, first: bytes, key: bytes = USAGE) -> None:
        self.head = first[:KEPT]
        self._tail = bytearray(first[-KEPT:])
        self._rest = b""  # the end of the text, where it may be half an escape or half a name
        self._inside = False  # in a string
        self._level = 0  # objects and lists that are open
        self._key = key
        self._pending: int | None = None  # level of a string with the name, which is a key where a colon follows
        self._strings = 0
        self._values: dict[int, bytearray] = {}
        self._scan(first)

    @property
    def tail(self) -> bytes:
        """The end of the payload, without the line ends behind it."""
        return bytes(self._tail[-KEPT:]).rstrip(b"\r\n")

    @property
    def usages(self) -> dict[int, bytes]:
        """The last value at each level, 1 in the outermost object or list, and text behind it."""
        return {level: bytes(value) for level, value in self._values.items()}

    def add(self, piece: bytes) -> None:
        """Take in the next piece of the event."""
        self._tail += piece[-KEPT:]
        if len(self._tail) > 4 * KEPT:  # not with each of many small pieces
            del self._tail[:-KEPT]
        self._scan(piece)

    def _scan(self, piece: bytes) -> None:
        """Look for usage in the next piece."""
        text = self._rest + piece
        masked = text.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in text else text
        keep = self._safe_end(masked)
        self._rest, text, masked = text[keep:], text[:keep], masked[:keep]
        for value in self._values.values():
            value.extend(text[: _MOST_BYTES - len(value)])
        at = 0
        if self._pending is not None:
            self._begin_value(self._pending, text, 0)
        while (found := masked.find(self._key, at)) >= 0:
            self._pass(masked[at:found])
            at = found
            self._strings += 1
            if self._strings > _MOST_STRINGS:
                break
            if self._inside:  # the quote ends a string
                self._inside, at = False, at + 1
                continue
            at += len(self._key)
            if self._level <= _MOST_LEVELS:
                self._begin_value(self._level, text, at)
        self._pass(masked[at:])

    def _begin_value(self, level: int, text: bytes, at: int) -> None:
        """Keep the value of the key that ends at `at`, unless it is no key."""
        behind = _colon(text, at)
        assert behind is not None, "it matches nothing, too"
        self._pending = level if behind[1] == b"" else None
        if behind[1] == b":":
            self._values[level] = bytearray(text[behind.end() : behind.end() + _MOST_BYTES])

    def _pass(self, masked: bytes) -> None:
        """Count the brackets outside of strings."""
        parts = masked.split(b'"')
        brackets = b"".join(parts[self._inside :: 2]).translate(None, _OTHERS)
        opened = brackets.count(b"{") + brackets.count(b"[")
        self._level += 2 * opened - len(brackets)
        self._inside ^= len(parts) % 2 == 0

    def _safe_end(self, masked: bytes) -> int:
        """The end of the text, or the place before it where an escape or the name begins that may go on."""
        if masked.endswith(b"\\"):
            return len(masked) - 1
        if masked.endswith(self._key):
            return len(masked)
        quote = masked.rfind(b'"', max(0, len(masked) - len(self._key) + 1))
        return quote if quote >= 0 and self._key.startswith(masked[quote:]) else len(masked)
