"""Detectors made from a table: kinds of text, each with patterns and a check of what they match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from extproc.guardrails import Detector, Finding
from extproc.guardrails._patterns import Covered, compiled
from extproc.guardrails._unwrap import inner


class Row(Protocol):
    """A kind of text, as the table lists it."""

    @property
    def name(self) -> str: ...

    @property
    def patterns(self) -> Sequence[str]: ...


Kind = TypeVar("Kind", bound=Row)


class Table(Detector, Generic[Kind]):
    """Finds every kind in `rows`. Of findings that overlap, that of the first row stays. A finding in encoded text has
    the span of the whole run.
    """

    def __init__(self, rows: Sequence[Kind]) -> None:
        self._rows = [row for row in rows for _ in row.patterns]
        self._patterns = compiled(tuple([pattern for row in rows for pattern in row.patterns]))

    def checked(self, row: Kind, text: str, start: int, end: int) -> int:
        """The length of the finding that begins at `start`; 0 where the match is none."""
        raise NotImplementedError

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        covered = Covered(len(text))
        found = self._search(text, covered)
        for content, span in inner(text):
            if (inside := self._search(content, Covered(len(content)))) and covered.take(*span):
                found.append(Finding(inside[0].kind, span))
        return found

    def _search(self, text: str, covered: Covered) -> list[Finding]:
        found: list[Finding] = []
        for index, (start, end) in self._patterns.search(text):
            row = self._rows[index]
            size = self.checked(row, text, start, end)
            if size and covered.take(start, start + size):
                found.append(Finding(row.name, (start, start + size)))
        return found
