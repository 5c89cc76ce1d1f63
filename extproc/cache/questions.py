"""Questions that an operator has listed as equal: they share answers through an equal key, without any score.

Texts are compared in Unicode's form NFC, without blanks at their ends. Differences of case, punctuation, signs,
numbers, emoji or inner blanks make texts different.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence


def normal(text: str) -> str:
    """A text in the form for comparison."""
    return unicodedata.normalize("NFC", text).strip()


class Questions:
    """Listed questions, each with questions of the same meaning."""

    def __init__(self, listed: Mapping[str, Sequence[str]]) -> None:
        self._groups: dict[str, Sequence[str]] = {}
        for question, others in listed.items():
            group = sorted({normal(text) for text in (question, *others)})
            self._groups |= dict.fromkeys(group, group)

    def group(self, text: str) -> Sequence[str] | None:
        """All questions listed as equal to a text; None for a text in no list."""
        return self._groups.get(normal(text)) if self._groups else None


def twice(listed: Mapping[str, Sequence[str]]) -> str:
    """A text that is listed under two questions; empty without one."""
    known: dict[str, str] = {}
    for question, others in listed.items():
        for text in (question, *others):
            if known.setdefault(normal(text), question) != question:
                return text
    return ""
