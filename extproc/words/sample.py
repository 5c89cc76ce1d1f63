"""Sample and Thought: so much of an answer as is kept to count its tokens later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import random, randrange
from random import sample as choose

BLOCK = 256
BLOCKS = 256
MOST = BLOCK * BLOCKS
"""Bytes that are kept of one text. A text up to this length is kept whole."""


class Sample:
    """A text whole, or pieces of it that chance chose: every piece of a longer text has the same chance to be kept, so
    neither its writer nor its place decides what is counted. The error for a text half of which has four times the
    tokens of the other is 4 % (one standard deviation).

    The choice is Li's "Algorithm L" (1994): after the first `MOST` bytes an `add` that holds no chosen piece costs one
    comparison.
    """

    __slots__ = ("_next", "_slot", "_weight", "kept", "size")

    def __init__(self, text: bytes = b"") -> None:
        self.kept = bytearray()
        self.size = 0  # bytes of the whole text
        self._next = MOST  # where the next chosen piece begins
        self._slot = 0  # its place in `kept`
        self._weight = 1.0
        if text:
            self.add(text)

    def add(self, data: bytes) -> None:
        """Go on with the text."""
        kept, start = self.kept, self.size
        self.size = size = start + len(data)
        if size <= MOST:
            kept += data
            return
        if start < MOST:
            kept += data[: MOST - start]
        if self._weight == 1.0:
            self._choose(MOST - BLOCK)
        while self._next < self.size:
            begin, end = max(self._next, start), min(self._next + BLOCK, self.size)
            at = self._slot + begin - self._next
            kept[at : at + end - begin] = data[begin - start : end - start]
            if end < self._next + BLOCK:
                break
            self._choose(self._next)

    def less(self, blocks: int) -> Sample:
        """The same text by so many of its pieces at most."""
        there = len(self.kept) // BLOCK
        if there <= blocks:
            return self
        found = Sample()
        found.size = self.size
        for at in choose(range(there), blocks):
            found.kept += self.kept[at * BLOCK : (at + 1) * BLOCK]
        return found

    def _choose(self, last: int) -> None:
        """Choose the next piece behind the one that begins at `last`."""
        self._weight *= math.exp(math.log(1 - random()) / BLOCKS)  # noqa: S311 - no secret
        skipped = int(math.log(1 - random()) / math.log1p(-self._weight))  # noqa: S311
        self._next = last + (skipped + 1) * BLOCK
        self._slot = randrange(BLOCKS) * BLOCK  # noqa: S311


@dataclass(slots=True)
class Thought:
    """Traces of the thinking in an answer."""

    size: int = 0  # bytes of the answer's text that are thinking
    sealed: int = 0  # bytes of thinking that only its provider can read, as in signatures
    told: bool = False  # True: text without any trace before it had no thinking
    going_on: bool = False  # True: the model is thinking now

    def add(self, text: str, sealed: str = "") -> None:
        """Note that so much of the answer's text is thinking, and what came sealed beside it."""
        self.size += len(text) if text.isascii() else len(text.encode(errors="replace"))
        self.sealed += len(sealed)
