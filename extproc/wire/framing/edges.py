"""Edges of an event too long to be read whole: its beginning, its end, and its usage at any place.

The usage is found without decoding the event: quotes tell strings from the rest, and brackets outside of strings tell
the level of a key. So neither a model's text nor an object in the arguments of a call can pass for usage.
"""

from __future__ import annotations

import re

KEPT = 64 << 10
"""Bytes kept of the beginning, and of the end, of an event too long to be read."""

USAGE = b'"usage"'
"""The key of usage in most APIs, with its quotes."""

_colon = re.compile(rb"[ \t\r\n]*+(:|\Z)?").match
_MOST_LEVELS = 2  # deepest level at which an API has its usage
_MOST_BYTES = 16 << 10  # bytes kept of a usage object
_MOST_STRINGS = 256  # occurrences of the quoted key in one event
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


class Edges:
    """Beginning, end and usage of the payload of an event that is too long to be read whole. `key` is the key of usage,
    with its quotes.
    """

    __slots__ = ("_inside", "_key", "_level", "_pending", "_rest", "_strings", "_tail", "_values", "head")

    def __init__(self, first: bytes, key: bytes = USAGE) -> None:
        self.head = first[:KEPT]
        self._tail = bytearray(first[-KEPT:])
        self._rest = b""  # unscanned end of the text: half an escape, or half of the key
        self._inside = False  # True: the scan is inside a string
        self._level = 0  # count of open objects and lists
        self._key = key
        self._pending: int | None = None  # level of a string equal to the key, until the next byte shows a colon
        self._strings = 0
        self._values: dict[int, bytearray] = {}
        self._scan(first)

    @property
    def tail(self) -> bytes:
        """The end of the payload, without its line ends."""
        return bytes(self._tail[-KEPT:]).rstrip(b"\r\n")

    @property
    def usages(self) -> dict[int, bytes]:
        """The last usage at each level, and the text behind it. The outermost object or list is level 1."""
        return {level: bytes(value) for level, value in self._values.items()}

    def add(self, piece: bytes) -> None:
        """Add the next piece of the event."""
        self._tail += piece[-KEPT:]
        if len(self._tail) > 4 * KEPT:  # shorten the tail seldom: pieces may be small and many
            del self._tail[:-KEPT]
        self._scan(piece)

    def _scan(self, piece: bytes) -> None:
        """Search the next piece for usage."""
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
            if self._inside:  # this quote closes a string
                self._inside, at = False, at + 1
                continue
            at += len(self._key)
            if self._level <= _MOST_LEVELS:
                self._begin_value(self._level, text, at)
        self._pass(masked[at:])

    def _begin_value(self, level: int, text: bytes, at: int) -> None:
        """Keep the value behind the string that ends at `at`, if a colon makes that string a key."""
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
        """The end of the text, or the start of an incomplete escape or key at its end."""
        if masked.endswith(b"\\"):
            return len(masked) - 1
        if masked.endswith(self._key):
            return len(masked)
        quote = masked.rfind(b'"', max(0, len(masked) - len(self._key) + 1))
        return quote if quote >= 0 and self._key.startswith(masked[quote:]) else len(masked)
