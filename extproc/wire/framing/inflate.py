"""Answers that a provider compressed although the request did not allow it: gzip and deflate, incrementally and
bounded.
"""

from __future__ import annotations

import zlib

ENCODINGS = ("gzip", "x-gzip", "deflate")

_EITHER = zlib.MAX_WBITS | 32  # gzip or zlib, by its header

SLICE = 16 << 10
"""Bytes that are decompressed at a time."""
_FREE = 8 << 20
_RATIO = 200
"""Bytes that an answer may grow to at once, and by how much what is larger may be more than what came. Texts and events
shrink to a twentieth or less; zeros to a thousandth, so that one piece of 62 KB would become 64 MB."""


class Inflate:
    """Decompresses one answer in slices. `more`: a further slice waits. Corrupt data, more than `limit` bytes in all,
    or more than `_RATIO` times what came ends it: `broken`.
    """

    __slots__ = ("_came", "_limit", "_made", "_rest", "_stream", "broken", "more")

    def __init__(self, limit: int) -> None:
        self._stream = zlib.decompressobj(_EITHER)
        self._limit = limit
        self._came = self._made = 0
        self._rest = b""  # compressed bytes that wait
        self.broken = self.more = False

    def feed(self, data: bytes = b"") -> bytes:
        """The next decompressed bytes, at most `SLICE`. `data` comes behind those that wait."""
        self._came += len(data)
        data = self._rest + data if self._rest else data
        self._rest, self.more = b"", False
        if self.broken or self._stream.eof:
            return b""
        try:
            piece = self._stream.decompress(data, SLICE)
        except zlib.error:
            self.broken = True
            return b""
        self._made += len(piece)
        if self._made > min(self._limit, max(_FREE, _RATIO * self._came)):
            self.broken = True
            return b""
        self._rest = self._stream.unconsumed_tail
        self.more = not self._stream.eof and (bool(self._rest) or len(piece) == SLICE)
        return piece

    def end(self) -> None:
        """Mark the end: an answer that is cut short is broken."""
        self.broken = self.broken or not self._stream.eof
