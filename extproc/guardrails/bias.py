"""Toxic text: insults, threats, and hostility against groups of people.

A linear model (`_model.py`) scores each sentence and the text as a whole. Names of groups are taken out before, so
that no group counts for more than another. A passage counts only where it has a word of the table of insults, slurs and
threats: the name of a group is never a finding by itself, nor is "kill the process".

Controls: FINOS AIGF ri-16 (bias and discrimination).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from pydantic import Field

from extproc.guardrails import Detector, Finding, GuardrailSettings
from extproc.guardrails._model import weights
from extproc.guardrails._shapes import Shapes, read

_WINDOW = 2048  # characters
_SENTENCES = 3  # sentences that are judged together
_LONG, _WORDS = 240, 24  # characters of a long sentence; words of its parts
_SHORT = 600  # characters of a text that is judged as a whole
_STRICTER = 1.5  # additional score that a passage of a long text needs
_word = re.compile(r"\S+").finditer
_sentence = re.compile(r"[^.!?\n]+[.!?\n]*").finditer
_letters = re.compile(r"[^\W\d_]{2,}").finditer


class _Words(Shapes):
    """Patterns of words, with blanks between them."""

    insults: str
    groups: str
    english: str


def _any_of(patterns: str) -> str:
    return "|".join(patterns.split()).replace("_", " ")


_TABLE = read("toxicity", _Words)
_insults = re.compile(rf"(?i)(?<!\w)(?:{_any_of(_TABLE.insults)})(?!\w)").search
_groups = re.compile(rf"(?i)\b(?:{_any_of(_TABLE.groups)})\b(?:[ -](?:people|persons?|folks?|guys?|ones))?")


_english = frozenset(_TABLE.english.split())
_FEW = 8  # most words of a text whose language shows only in its letters
_ENGLISH = 0.08  # share of `english` words that a longer text must have; two at least
_SAMPLE = 512  # characters at the beginning of a text that are checked for its language


def neutral(text: str) -> str:
    """`text` with each name of a group replaced by the same neutral words."""
    return _groups.sub("some people", text)


class BiasSettings(GuardrailSettings):
    """A guardrail that finds toxic text."""

    kind: Literal["bias"] = Field(
        description="Kind of the guardrail. `bias`: insults, threats, and hostility against groups of people."
    )
    threshold: float = Field(
        0.0,
        ge=-3,
        le=3,
        description="Shift of the score that makes a finding, -3 to 3. Raise it when harmless texts are found; lower "
        "it to find more. docs/guardrails/quality.md has the effect of the default.",
    )

    def build(self) -> Bias:
        return Bias(self.threshold)


class Bias(Detector):
    """Finds at most one passage in each text: `toxic`, or `hostile_to_group` where it names a group of people."""

    window = _WINDOW

    def __init__(self, threshold: float = 0.0) -> None:
        self._model = weights("toxicity")
        self._limit = self._model.thresholds["whole"] + threshold

    def skips(self, text: str, role: str) -> str:  # noqa: ARG002
        """See `Detector.skips`: only English is judged."""
        return "" if _is_english(text[:_SAMPLE]) or not _wordy(text) else "language"

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        if not _wordy(text):
            return ()
        best, span = -math.inf, (0, len(text))
        if len(text) <= _SHORT:
            best = self._score(text)
        for start, end in _passages(text):
            if not _wordy(text[start:end]):
                continue
            score = self._score(text[start:end]) - _STRICTER
            if score > best:
                best, span = score, (start, end)
        if best <= 0:
            return ()
        kind = "hostile_to_group" if _groups.search(text[span[0] : span[1]]) else "toxic"
        return [Finding(kind, span, 1 / (1 + math.exp(-best)))]

    def _score(self, text: str) -> float:
        """The score of a passage, less the limit."""
        if _insults(text) is None or not _is_english(text):
            return -math.inf
        return self._model.score(neutral(text)) - self._limit


def _is_english(text: str) -> bool:
    """True for English text, and for a few words in English letters."""
    words = text.lower().split()
    if len(words) < _FEW:
        return text.isascii() or sum(letter > "\u00bf" and letter.isalpha() for letter in text) * 8 < len(text)
    return sum(word in _english for word in words) >= max(2, _ENGLISH * len(words))


def _wordy(text: str) -> bool:
    """True for at least two words."""
    return len(list(islice(_letters(text), 2))) == 2


def _passages(text: str) -> Iterator[tuple[int, int]]:
    """Neighbouring sentences, and neighbouring words of long sentences."""
    spans = [match.span() for match in _sentence(text)]
    for first in range(max(1, len(spans) - _SENTENCES + 1) if spans else 0):
        start, end = spans[first][0], spans[min(len(spans), first + _SENTENCES) - 1][1]
        if end - start <= _SHORT or len(text[start:end].split()) <= _SHORT // 5:
            yield start, end
    for start, end in spans:
        if end - start > _LONG:
            words = [match.start() + start for match in _word(text[start:end])]
            for first in range(0, len(words), _WORDS // 2):
                yield words[first], words[first + _WORDS] if first + _WORDS < len(words) else end


SETTINGS = BiasSettings
