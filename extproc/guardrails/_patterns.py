"""Many RE2 patterns over one text: a set tells which of them match at all, and only those search for their spans.

Time grows in proportion to the text, whatever the text. The spans are in characters of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import re2

_MEMORY = 64 << 20  # bytes for the states of a set


def _options(memory: int) -> re2.Options:
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    return options


class Patterns:
    """Patterns by their index. The span of a match is that of its group `v`; without that group, the whole match."""

    def __init__(self, patterns: Sequence[str]) -> None:
        options = _options(_MEMORY)
        self._set = re2.Set.SearchSet(options)
        self._patterns = []
        for pattern in patterns:
            self._set.Add(pattern)
            compiled = re2.compile(pattern, options=options)
            self._patterns.append((compiled, compiled.groupindex.get("v", 0)))
        self._set.Compile()

    def search(self, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
        """(index of the pattern, span in `text`) of every match; those of one pattern are in order."""
        data = text.encode("utf-8", "surrogatepass")
        plain = len(data) == len(text)
        for index in sorted(self._set.Match(data) or ()):
            pattern, group = self._patterns[index]
            last = characters = 0
            for match in pattern.finditer(data):
                start, end = match.span(group)
                if not plain:
                    characters += len(data[last:start].decode("utf-8", "surrogatepass"))
                    last = start
                    yield index, (characters, characters + len(data[start:end].decode("utf-8", "surrogatepass")))
                else:
                    yield index, (start, end)


@lru_cache(maxsize=16)
def compiled(patterns: tuple[str, ...]) -> Patterns:
    """The patterns, compiled once however often settings are read: a set of many takes 0.3 s."""
    return Patterns(patterns)


class Covered:
    """The parts of a text that findings cover already: each check takes as long as the span, however many there are."""

    def __init__(self, size: int) -> None:
        self._marks = bytearray(size)

    def take(self, start: int, end: int) -> bool:
        """False where [start, end) overlaps what was taken before; else it is taken."""
        if self._marks.find(1, start, end) >= 0:
            return False
        self._marks[start:end] = b"\1" * (end - start)
        return True
