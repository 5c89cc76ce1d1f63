"""Many RE2 patterns over one text: a set tells which of them match at all, and only those search for their spans.

Time grows in proportion to the text, whatever the text. The spans are in characters of the text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache

import re2

_MEMORY = 64 << 20  # bytes for the states of a set
_SAMPLE = "Ana Smith, ana@example.org, +44 20 7946 0958, key: sk-a1b2c3, https://example.org/?q=é 4111 1111 1111 1111"


_MAX_PATTERN = 4096  # characters
_PROGRAM = 8 << 20  # bytes of memory for a compiled pattern


def _options(memory: int) -> re2.Options:
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    return options


def compile_pattern(pattern: str) -> re2._Regexp:
    return re2.compile(pattern, options=_options(_PROGRAM))


def readable(name: str, pattern: str) -> None:
    """Raises ValueError, naming the pattern, for one that is too long or that RE2 does not know."""
    if len(pattern) > _MAX_PATTERN:
        raise ValueError(f"{name}: a pattern has at most {_MAX_PATTERN} characters")
    try:
        compile_pattern(pattern)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"{name}: RE2 does not know this pattern: {reason}") from None


class Matching:
    """A set of patterns, which tells those that match.

    The set has one pattern more, which matches any text. Where RE2 cannot compile the set, or has no room for its
    states, that match is missing, and every pattern may match.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._count = len(patterns)
        self._set: re2.Set | None = None
        every = re2.Set.SearchSet(_options(_MEMORY))
        for pattern in (*patterns, ""):
            every.Add(pattern)
        try:
            every.Compile()
        except re2.error:  # too many large patterns
            return
        self._set = every

    def indexes(self, data: bytes) -> Sequence[int]:
        """The indexes of the patterns that match, in order; perhaps more of them."""
        found = sorted(self._set.Match(data) or ()) if self._set is not None else ()
        return found[:-1] if found and found[-1] == self._count else range(self._count)


class CompiledPatterns:
    """Patterns by their index. The span of a match is that of its group `group`, where the pattern has one."""

    def __init__(self, patterns: Sequence[str], group: str = "v") -> None:
        options = _options(_MEMORY)
        compiled = [re2.compile(pattern, options=options) for pattern in patterns]
        self._patterns = [(pattern, pattern.groupindex.get(group, 0)) for pattern in compiled]
        self._matching = Matching(patterns)

    def search(self, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
        """(index of the pattern, span in `text`) of every match; those of one pattern are in order."""
        data = text.encode("utf-8", "surrogatepass")
        plain = len(data) == len(text)
        for index in self._matching.indexes(data):
            pattern, group = self._patterns[index]
            last = characters = 0
            for match in pattern.finditer(data):
                start, end = match.span(group)
                if not plain:
                    if start == end and data[start : start + 1] and data[start] & 0xC0 == 0x80:
                        continue  # an empty match inside of a character
                    characters += len(data[last:start].decode("utf-8", "surrogatepass"))
                    last = start
                    yield index, (characters, characters + len(data[start:end].decode("utf-8", "surrogatepass")))
                else:
                    yield index, (start, end)


@lru_cache(maxsize=64)
def compiled(patterns: tuple[str, ...], group: str = "v") -> CompiledPatterns:
    """The patterns, compiled once however often settings are read: a set of many takes 0.3 s."""
    found = CompiledPatterns(patterns, group)
    deque(found.search(_SAMPLE), 0)  # RE2 makes the rest of a pattern at its first search
    return found


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
