"""Answers that a provider compressed although the request did not allow it: gzip and deflate, incrementally and
bounded.
"""

from __future__ import annotations

import zlib

ENCODINGS = ("gzip", "x-gzip", "deflate")

_EITHER = zlib.MAX_WBITS | 32  # gzip or zlib, by its header


class Inflate:
    """Decompresses one answer. Corrupt data, or more than `limit` bytes in all, ends it: `broken`."""

    __slots__ = ("_left", "_stream", "broken")

    def __init__(self, limit: int) -> None:
        self._stream = zlib.decompressobj(_EITHER)
        self._left = limit
        self.broken = False

    def feed(self, data: bytes) -> bytes:
        """The decompressed bytes of `data`."""
        out: list[bytes] = []
        while data and not self.broken and not self._stream.eof:
            try:
                piece = self._stream.decompress(data, self._left + 1)
            except zlib.error:
                self.broken = True
                break
            data = self._stream.unconsumed_tail
            self._left -= len(piece)
            if self._left < 0:
                self.broken = True
                break
            out.append(piece)
        return b"".join(out)

    def end(self) -> None:
        """Mark the end: an answer that is cut short is broken."""
        self.broken = self.broken or not self._stream.eof
