"""Many RE2 patterns over one text: a set finds the patterns that match at all, and only these search for their spans.

Time grows linearly with any text. Spans are in characters of the text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache

import re2

_ANYWHERE = re2._Anchor.UNANCHORED  # noqa: SLF001 - the constant has no public name
_MEMORY = 64 << 20  # most bytes for the states of a set
_SAMPLE = "Ana Smith, ana@example.org, +44 20 7946 0958, key: sk-a1b2c3, https://example.org/?q=é 4111 1111 1111 1111"


_MAX_PATTERN = 4096  # most characters of a pattern
_PROGRAM = 8 << 20  # most bytes of memory for a compiled pattern


def _options(memory: int) -> re2.Options:
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    return options


def compile_pattern(pattern: str) -> re2._Regexp:
    return re2.compile(pattern, options=_options(_PROGRAM))


def readable(name: str, pattern: str) -> None:
    """The patterns, checked. Raises ValueError for a pattern that is too long or invalid in RE2, and names it."""
    if len(pattern) > _MAX_PATTERN:
        raise ValueError(f"{name}: a pattern has at most {_MAX_PATTERN} characters")
    try:
        compile_pattern(pattern)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"{name}: RE2 does not know this pattern: {reason}") from None


class Matching:
    """A set of patterns that finds the indexes of matching patterns.

    The set has an additional pattern that matches any text. If RE2 cannot compile the set, or has no room for its
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
        """The indexes of the matching patterns, in order; may include patterns without a match."""
        found = sorted(self._set.Match(data) or ()) if self._set is not None else ()
        return found[:-1] if found and found[-1] == self._count else range(self._count)


class CompiledPatterns:
    """Patterns by their index. The span of a match is that of its group `group`, if the pattern has one."""

    def __init__(self, patterns: Sequence[str], group: str = "v") -> None:
        options = _options(_MEMORY)
        compiled = [re2.compile(pattern, options=options) for pattern in patterns]
        self._patterns = [(pattern, pattern.groupindex.get(group, 0)) for pattern in compiled]
        self._matching = Matching(patterns)

    def search(self, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
        """(index of the pattern, span in `text`) of every match; matches of one pattern are in order."""
        data = text.encode("utf-8", "surrogatepass")
        plain = len(data) == len(text)
        for index in self._matching.indexes(data):
            spans = _spans(*self._patterns[index], data)
            if plain:
                for span in spans:
                    yield index, span
                continue
            last = characters = 0
            for start, end in spans:
                if start == end and data[start : start + 1] and data[start] & 0xC0 == 0x80:
                    continue  # an empty match inside of a character
                characters += len(data[last:start].decode("utf-8", "surrogatepass"))
                last = start
                yield index, (characters, characters + len(data[start:end].decode("utf-8", "surrogatepass")))


def _spans(pattern: re2._Regexp, group: int, data: bytes) -> Iterator[tuple[int, int]]:
    """The spans of a group in all matches, in bytes. `finditer` takes twice the time: it makes an object of each
    match.
    """
    match, at, size = pattern._regexp.Match, 0, len(data)  # noqa: SLF001 - RE2 itself
    while at <= size:
        found = match(_ANYWHERE, data, at, size)
        end = found[0][1]
        if end < 0:
            return
        yield found[group]
        at = end if end > at else at + 1


@lru_cache(maxsize=64)
def compiled(patterns: tuple[str, ...], group: str = "v") -> CompiledPatterns:
    """The patterns, compiled once however often settings are read: a large set takes 0.3 s."""
    found = CompiledPatterns(patterns, group)
    deque(found.search(_SAMPLE), 0)  # RE2 completes a pattern at its first search
    return found


class Covered:
    """The parts of a text that findings cover already. A check takes time by the length of the span, not by the number
    of findings.
    """

    def __init__(self, size: int) -> None:
        self._marks = bytearray(size)

    def take(self, start: int, end: int) -> bool:
        """Cover [start, end). False, and nothing covered, if it overlaps a part covered before."""
        if self._marks.find(1, start, end) >= 0:
            return False
        self._marks[start:end] = b"\1" * (end - start)
        return True
