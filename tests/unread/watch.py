"""`extproc/exchange/unread/watch.lua` in Python, step by step, so that tests need no Envoy; `tests/e2e/test_unread.py`
compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from extproc.exchange.unread import BESIDE, COUNTS, EVERY, HEAD, TAIL, TIMES
from extproc.words.tries import Seen


def lines_in(text: bytes) -> tuple[int, int]:
    """How many there are, and where the last begins, from 1 on."""
    return text.count(b"\ndata:") + text.count(b"\rdata:"), max(text.rfind(b"\ndata:"), text.rfind(b"\rdata:")) + 1


def usage_in(text: bytes) -> int:
    """Where the last object called usage begins, counted from 1 as Lua does; 0: nowhere."""
    found, at = 0, text.find(b'"usage":')
    while at >= 0:
        value = at + 8
        value += text[value : value + 1] == b" "
        if text[value : value + 1] == b"{":
            found = at + 1
        at = text.find(b'"usage":', value)
    return found


class Watch:
    """What Envoy's script has written down after each piece that `feed` was given."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._ring = b""
        self._size = self._lines = self._count = 0
        self._checked_size = self._checked_count = self._noted_size = self._noted_count = 0
        self._line_at = 0
        self._before = b"\n"
        self._missing = 0

    def feed(self, piece: bytes, seconds: float = 0.0) -> None:
        if not piece:
            return
        self._count += 1
        before = self._before
        if self._count <= TIMES:
            self._note(times=[*self.seen.times, (self._size, seconds)])
        if self._size < HEAD:
            self._note(head=self.seen.head + piece[: HEAD - self._size])
        earlier, self._ring = self._ring, (self._ring + piece)[-TAIL:]
        (split, split_at), (whole, whole_at) = lines_in(before[-5:] + piece[:5]), lines_in(piece)
        self._lines += split + whole
        if whole:
            self._line_at = self._size + whole_at - 1
        elif split:
            self._line_at = max(0, self._size - min(5, len(before)) + split_at - 1)
        at = usage_in(piece) or int(usage_in(before[-9:] + piece[:9]) > 0)
        start = self._size
        self._size += len(piece)
        self._before = (before + piece)[-9:]
        if at:
            self._mark(piece, at, start, earlier)
        elif self._missing > 0:
            self._note(usage=self.seen.usage + piece[: self._missing])
            self._missing -= len(piece)
        if (
            self._count <= TIMES
            or self._count - self._checked_count >= EVERY
            or self._size - self._checked_size >= TAIL
        ):
            self._checkpoint()
        elif self._count - self._noted_count >= COUNTS or self._size - self._noted_size >= HEAD:
            self._count_up()

    def end(self) -> Seen:
        """The answer reached its end."""
        if self._size > self._checked_size:
            self._checkpoint()
        self._note(size=self._size, lines=self._lines, ended=True)
        return self.seen

    def _mark(self, piece: bytes, at: int, start: int, earlier: bytes) -> None:
        begin = at - BESIDE if at > BESIDE else 1
        window, where = piece[begin - 1 : at + BESIDE - 1], start + begin - 1
        self._missing = BESIDE - (len(piece) - at + 1)
        if at <= BESIDE:
            window, where = earlier[-BESIDE:] + window, where - len(earlier[-BESIDE:])
        self._note(usage=window, usage_at=where)

    def _checkpoint(self) -> None:
        self._checked_size, self._checked_count = self._size, self._count
        tail = self._ring
        self._note(tail=tail, tail_at=self._size - len(tail))
        self._count_up()

    def _count_up(self) -> None:
        self._noted_size, self._noted_count = self._size, self._count
        self._note(size=self._line_at, lines=max(0, self._lines - 1))

    def _note(self, **values: object) -> None:
        self.seen = replace(self.seen, **values)


def watched(pieces: Iterable[bytes], *, ended: bool = True) -> Seen:
    watch = Watch()
    for piece in pieces:
        watch.feed(piece)
    return watch.end() if ended else watch.seen
