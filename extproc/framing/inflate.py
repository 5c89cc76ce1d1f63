"""Answers that a provider compressed although the request did not allow it: gzip and deflate, incrementally and
bounded.
"""

from __future__ import annotations

import zlib

ENCODINGS = ("gzip", "x-gzip", "deflate")

_EITHER = zlib.MAX_WBITS | 32  # gzip or zlib, by its header


_FREE = 8 << 20
_RATIO = 200
"""Bytes that an answer may grow to at once, and by how much what is larger may be more than what came. Texts and events
shrink to a twentieth or less; zeros to a thousandth, so that one piece of 62 KB would become 64 MB."""


class Inflate:
    """Decompresses one answer. Corrupt data, more than `limit` bytes in all, or more than `_RATIO` times what came ends
    it: `broken`.
    """

    __slots__ = ("_came", "_limit", "_made", "_stream", "broken")

    def __init__(self, limit: int) -> None:
        self._stream = zlib.decompressobj(_EITHER)
        self._limit = limit
        self._came = self._made = 0
        self.broken = False

    def feed(self, data: bytes) -> bytes:
        """The decompressed bytes of `data`."""
        self._came += len(data)
        left = min(self._limit, max(_FREE, _RATIO * self._came)) - self._made
        out: list[bytes] = []
        while data and not self.broken and not self._stream.eof:
            try:
                piece = self._stream.decompress(data, left + 1)
            except zlib.error:
                self.broken = True
                break
            data = self._stream.unconsumed_tail
            left -= len(piece)
            if left < 0:
                self.broken = True
                break
            self._made += len(piece)
            out.append(piece)
        return b"".join(out)

    def end(self) -> None:
        """Mark the end: an answer that is cut short is broken."""
        self.broken = self.broken or not self._stream.eof
