"""Compressed answers to requests that allowed no compression: gzip and deflate, read incrementally and bounded."""

from __future__ import annotations

import zlib

ENCODINGS = ("gzip", "x-gzip", "deflate")

_EITHER = zlib.MAX_WBITS | 32  # zlib detects gzip or zlib by the header

SLICE = 16 << 10
"""Bytes decompressed in one step."""
_FREE = 8 << 20
_RATIO = 200
"""Bytes that an answer may always grow to, and the highest ratio of decompressed to compressed bytes above them. Text
and events compress to a twentieth at best; zeros to a thousandth, so 62 KB would become 64 MB.
"""


class Inflate:
    """Decompresses one answer in slices. `more`: another slice waits. `broken`: decompression ended at corrupt data,
    beyond `limit` bytes in all, or beyond `_RATIO` times the compressed bytes.
    """

    __slots__ = ("_came", "_limit", "_made", "_rest", "_stream", "broken", "more")

    def __init__(self, limit: int) -> None:
        self._stream = zlib.decompressobj(_EITHER)
        self._limit = limit
        self._came = self._made = 0
        self._rest = b""  # compressed bytes not yet decompressed
        self.broken = self.more = False

    def feed(self, data: bytes = b"") -> bytes:
        """The next decompressed bytes, at most `SLICE`. `data` is queued behind earlier compressed bytes."""
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
        """Mark the end of input: a truncated answer is broken."""
        self.broken = self.broken or not self._stream.eof
