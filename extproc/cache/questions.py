"""Questions that an operator has listed as one: they share their answers, by their key and without any score.

Two texts are equal here in Unicode's form NFC, without the blanks at their ends. Nothing else is made equal: neither
case nor punctuation, signs, numbers, emoji or the blanks inside.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence


def normal(text: str) -> str:
    """A text as lists compare it."""
    return unicodedata.normalize("NFC", text).strip()


class Questions:
    """Listed questions, each with others that mean the same."""

    def __init__(self, listed: Mapping[str, Sequence[str]]) -> None:
        self._groups: dict[str, Sequence[str]] = {}
        for question, others in listed.items():
            group = sorted({normal(text) for text in (question, *others)})
            self._groups |= dict.fromkeys(group, group)

    def group(self, text: str) -> Sequence[str] | None:
        """All questions that mean the same as a listed one; None for any other text."""
        return self._groups.get(normal(text)) if self._groups else None


def twice(listed: Mapping[str, Sequence[str]]) -> str:
    """A text that stands under two questions; empty where there is none."""
    known: dict[str, str] = {}
    for question, others in listed.items():
        for text in (question, *others):
            if known.setdefault(normal(text), question) != question:
                return text
    return ""
