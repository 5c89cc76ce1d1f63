"""Detectors made from a table: kinds of text, each with patterns and a check of their matches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import Field, field_validator

from extproc.guardrails import Detector, Finding
from extproc.guardrails._patterns import Covered, compile_pattern, compiled, readable
from extproc.guardrails._unwrap import RUNS, unwrapped
from extproc.words.values import Section

BEFORE = 64
"""Characters before a match in which a word may show its meaning."""


@dataclass(slots=True, frozen=True)
class TextKind:
    """A kind of text. Group `v` of a pattern is the match, if the pattern needs text before it. `check` gets up to
    `BEFORE` characters before a match, and the match. It returns the number of characters that it accepts from the
    match's beginning: 0 rejects it.
    """

    name: str
    patterns: Sequence[str]
    check: Callable[[str, str], int]


_gaps = re.compile(r"[\s-]+")


class AllowSettings(Section):
    """Texts that a guardrail does not count as findings."""

    values: Sequence[str] = Field(
        (),
        max_length=10_000,
        description="Texts as they are found, such as the number of a test card. Case, spaces and hyphens do not "
        "matter.",
    )
    patterns: Sequence[str] = Field(
        (),
        max_length=256,
        description="RE2 patterns that match a whole finding, such as `(?i).*@example\\.com` for addresses of your "
        "own.",
    )

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, value: Sequence[str]) -> Sequence[str]:
        for pattern in value:
            readable("allow", pattern)
        return value


class Allow:
    """Texts that are no findings."""

    def __init__(self, settings: AllowSettings | None = None) -> None:
        settings = settings or AllowSettings()
        self._values = frozenset(map(_bare, settings.values))
        self._matches = [compile_pattern(pattern).fullmatch for pattern in settings.patterns]

    def __call__(self, found: str) -> bool:
        if self._values and _bare(found) in self._values:
            return True
        return any(matches(found) is not None for matches in self._matches)


def _bare(text: str) -> str:
    return _gaps.sub("", text).casefold()


class Table(Detector):
    """Finds every kind in `rows`. Where findings overlap, that of the first row stays. A finding in encoded text has
    the span of the whole run.
    """

    def __init__(self, rows: Sequence[TextKind], allow: Allow | None = None) -> None:
        self._allow = allow or Allow()
        self._rows = [row for row in rows for _ in row.patterns]
        self._patterns = compiled((*(pattern for row in rows for pattern in row.patterns), *RUNS))

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        if not (matches := list(self._patterns.search(text))):
            return []
        covered = Covered(len(text))
        found = self._checked(text, matches, covered)
        runs = [(index - len(self._rows), span) for index, span in matches if index >= len(self._rows)]
        for content, span in unwrapped(text, runs) if runs else ():
            inside = self._checked(content, self._patterns.search(content), Covered(len(content)))
            if inside and covered.take(*span):
                found.append(Finding(inside[0].kind, span))
        return found

    def _checked(self, text: str, matches: Iterable[tuple[int, tuple[int, int]]], covered: Covered) -> list[Finding]:
        """The findings among the matches of rows in `text`, which is not decoded."""
        found: list[Finding] = []
        for index, (start, end) in matches:
            if index >= len(self._rows):
                continue
            row = self._rows[index]
            size = row.check(text[max(0, start - BEFORE) : start], text[start:end])
            if size and covered.take(start, start + size) and not self._allow(text[start : start + size]):
                found.append(Finding(row.name, (start, start + size)))
        return found
