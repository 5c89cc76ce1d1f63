"""Sample and Thought: parts of an answer that are kept, to count its tokens later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import random, randrange
from random import sample as choose

BLOCK = 256
BLOCKS = 256
MOST = BLOCK * BLOCKS
"""Bytes kept of one text. A text of at most this length is kept whole."""


class Sample:
    """A whole text, or a random sample of its pieces. Every piece has the same chance to be kept, so its writer cannot
    choose the counted part. If one half of a text has four times the tokens of the other half, the error is 4 % (one
    standard deviation).

    The method is Li's "Algorithm L" (1994): after the first `MOST` bytes, an `add` without a chosen piece costs one
    comparison.
    """

    __slots__ = ("_next", "_slot", "_weight", "kept", "size")

    def __init__(self, text: bytes = b"") -> None:
        self.kept = bytearray()
        self.size = 0  # bytes of the whole text
        self._next = MOST  # offset of the next chosen piece in the text
        self._slot = 0  # offset of that piece in `kept`
        self._weight = 1.0
        if text:
            self.add(text)

    def add(self, data: bytes) -> None:
        """Append to the text."""
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
        """The sample reduced to at most `blocks` pieces."""
        there = len(self.kept) // BLOCK
        if there <= blocks:
            return self
        found = Sample()
        found.size = self.size
        for at in choose(range(there), blocks):
            found.kept += self.kept[at * BLOCK : (at + 1) * BLOCK]
        return found

    def _choose(self, last: int) -> None:
        """Choose the next piece behind the piece at `last`."""
        self._weight *= math.exp(math.log(1 - random()) / BLOCKS)  # noqa: S311 - no secret
        skipped = int(math.log(1 - random()) / math.log1p(-self._weight))  # noqa: S311
        self._next = last + (skipped + 1) * BLOCK
        self._slot = randrange(BLOCKS) * BLOCK  # noqa: S311


@dataclass(slots=True)
class Thought:
    """Traces of the thinking in an answer."""

    size: int = 0  # bytes of the answer's text that are thinking
    sealed: int = 0  # bytes of encrypted thinking, for example signatures, that only its provider can read
    told: bool = False  # True: text without traces of thinking before it had no thinking
    going_on: bool = False  # True: the model is thinking now

    def add(self, text: str, sealed: str = "") -> None:
        """Count thinking: `text` is part of the answer's text, `sealed` is encrypted."""
        self.size += len(text) if text.isascii() else len(text.encode(errors="replace"))
        self.sealed += len(sealed)
