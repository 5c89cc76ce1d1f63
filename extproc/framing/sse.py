"""Server-sent events, incrementally.

Source: WHATWG HTML, "Server-sent events", 9.2.6 interpreting an event stream. Lines end with LF, CR or CRLF, an event
ends with an empty line, `data:` may be followed by one space, several data lines are joined with LF. Unlike a browser
this reader also gives the last event when its empty line never came, because providers forget it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from extproc.framing import BOM, OVERSIZE, Edges, Frame

# The end of a line and an empty one. A CR at the very end may be half a CRLF, so it has to wait for the next byte.
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}")
_WAITS = 3  # bytes at the end in which an empty line may have begun
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment. The blank line behind it is for clients that read a stream block by block."""
_LINES = re.compile(rb"\r\n|\n|\r")


class SSE:
    """Cuts a stream of server-sent events. An event over `limit` bytes is passed on in pieces, without its data,
    also when it arrives whole. The empty line behind it does not count.
    """

    __slots__ = ("_buffer", "_edges", "_limit", "_searched")

    def __init__(self, limit: int = 1 << 20) -> None:
        self._buffer = b""
        self._limit = limit
        self._edges: Edges | None = None  # edges of an event beyond the limit
        self._searched = 0

    @property
    def parted(self) -> bool:
        """True while an event over the limit leaves in pieces."""
        return self._edges is not None

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        buffer = self._buffer + chunk if self._buffer else chunk
        events: list[Frame] = []
        start, search = 0, self._searched
        limit = self._limit
        if b"\r" not in buffer:  # nearly every provider sends LF only
            while (blank := buffer.find(b"\n\n", search)) >= 0:
                if blank - start > limit:
                    start = self._part(buffer, start, blank, events)
                events.append(self._event(buffer[start : blank + 2]))
                start = search = blank + 2
        else:
            while (match := _BLANK.search(buffer, search)) is not None:
                if match.start() - start > limit:
                    start = self._part(buffer, start, match.start(), events)
                events.append(self._event(buffer[start : match.end()]))
                start = search = match.end()
        if len(buffer) - start > limit + _WAITS:  # however it is cut, an event of `limit` bytes is read
            start = self._part(buffer, start, len(buffer) - _WAITS, events)
        self._buffer = rest = buffer[start:] if start else buffer
        self._searched = max(0, len(rest) - _WAITS)
        return events

    def end(self) -> Sequence[Frame]:
        rest, self._buffer = self._buffer, b""
        events: list[Frame] = []
        if len(rest.rstrip(b"\r\n")) > self._limit:
            self._part(rest, 0, len(rest), events)
            rest = b""
        return [*events, self._event(rest)] if rest or events else []

    def _part(self, buffer: bytes, start: int, end: int, events: list[Frame]) -> int:
        """Pass on a piece of an event over the limit. Returns where the rest begins."""
        piece = buffer[start:end]
        events.append(Frame(piece, None, "" if self._edges else OVERSIZE))
        if self._edges is None:
            self._edges = Edges(piece)
        else:
            self._edges.add(piece)
        return end

    def _event(self, raw: bytes) -> Frame:
        if self._edges is not None:  # the tail of an event whose head has left
            edges, self._edges = self._edges, None
            edges.add(raw)
            edges.head = edges.head.partition(b"data:")[2]
            edges.tail = edges.tail.rstrip(b"\r\n")
            return Frame(raw, None, edges=edges)
        if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
            return Frame(raw, raw[6:-2])  # a single line, the usual case
        data = [
            line[6:] if line.startswith(b"data: ") else line[5:]
            for line in _LINES.split(raw.removeprefix(BOM))
            if line.startswith(b"data:")
        ]
        return Frame(raw, b"\n".join(data) if data else None)
