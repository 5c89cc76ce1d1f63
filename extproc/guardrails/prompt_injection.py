"""Instructions to a model that do not come from the application: jailbreaks, hijacked tasks, requests for the system
prompt, and instructions hidden in documents and tool results.

A linear model (`_model.py`) scores windows of several lengths, so that a sentence in a long document counts by itself.
Rules add to the score of the windows that they match in. Definitions of tools are orders to a model by nature: they
are judged by rules alone, because honest ones speak to a model too ("use this tool to overwrite a file"). Text that is encoded, spelled with digits, spaced, reversed,
rotated (Caesar, ROT13, Atbash), in Morse code or spelled in the phonetic alphabet is undone once and scored too.

Controls: OWASP LLM01:2026 (prompt injection); MITRE ATLAS T0051, T0054, T0068; FINOS AIGF ri-10 / mi-3, mi-17.
"""

# ruff: noqa: E501  a pattern is one line
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_lowercase
from typing import Annotated, Final, Literal

import msgspec
from pydantic import Field

from extproc.guardrails import TOOL_CALL, TOOL_NAME, Detector, Finding, GuardrailSettings
from extproc.guardrails._base import DEFINITION, TOOL_ROLES
from extproc.guardrails._model import places, tokens, weights
from extproc.guardrails._patterns import compiled
from extproc.guardrails._shapes import Shapes, read
from extproc.guardrails._unwrap import inner

_WINDOW = 4096  # characters that are judged together; a window of 96 tokens has about 600
_SIZES = (12, 24, 48, 96)
_UNUSUAL = 0.2  # share of common words below which a text may be rotated or reversed; English prose has 0.4
_LOOK = 600  # characters in which letters are counted
_READABLE = 0.1  # share of common words that the restored text must have


class Rule(msgspec.Struct):
    """A rule, which adds its score to a window in which one of its patterns matches."""

    score: float
    patterns: Sequence[str]


class _Phrases(Shapes):
    """Phrases of attacks: `poison` occurs in definitions of tools, `odd` in disguised text."""

    rules: Sequence[Rule]
    poison: Sequence[str]
    odd: Sequence[str]
    common: str
    known: str
    morse: str
    frequent: Sequence[int]


_PHRASES: Final = read("injection", _Phrases)
_ODD = tuple(_PHRASES.odd)
_POISON = tuple(map(_PHRASES.expanded, _PHRASES.poison))
_talked_about = re.compile(
    r"(?i)(?:phrase|meaning of|what does|what is|means?|example of|such as|called|term|words)\W{0,3}\s?\W?$"
).search

_compact = re.compile(
    r"(?:ignore|disregard|forget|override|bypass)(?:all|any|the|your|my|of)*(?:previous|prior|above|earlier|system|preceding)?(?:instruction|rule|prompt|guideline)"
    r"|(?:reveal|print|show|repeat|output|leak)(?:me|all|the|your)*(?:system|hidden|secret|initial)?(?:prompt|instruction|password)|doanythingnow|youarenow(?:dan|in)"
).search
_MORSE = dict(zip(_PHRASES.morse.split(), ascii_lowercase, strict=True))
_gap = re.compile(r"[ ._*|-]+")
_morse_gap = re.compile(r" ?[/|] ?| {2,}")
_phonetic_gap = re.compile(r"\s{2,}|[/|.,;]\s*")
_wide_gap = re.compile(r" {2,}|[_*|.-] [_*|.-]|\n")
_letter = re.compile(r"[^\W\d_]").search
_letters = re.compile(r"[^\W\d_]+").findall
# A word of letters and signs that stand for letters, and no part of an e-mail address. It begins where no such word
# ends, so time stays linear.
_leet_word = re.compile(
    r"(?<![a-zA-Z013457689@$!|+])(?![a-zA-Z0-9._+-]{1,64}+@[a-zA-Z0-9-]{1,63}+\.[a-zA-Z])"
    r"(?:[a-zA-Z]++[013457689@$!|+]|[013457689@$!|+]++[a-zA-Z])[a-zA-Z013457689@$!|+]*(?<!!)"
)
_LEET_WORDS = 2  # fewest words of a text that may hide one
_LEET = str.maketrans("013457@$!|689+", "oieastasilgbgt")
_LEET_L = str.maketrans("013457@$!|689+", "oleastasligbgt")  # 1 and ! stand for i or l
_COMMON = frozenset(_PHRASES.common.split())
_LOWER = ascii_lowercase
_CIPHERS = [
    str.maketrans(_LOWER + _LOWER.upper(), one + one.upper())
    for one in (*(_LOWER[by:] + _LOWER[:by] for by in range(1, 26)), _LOWER[::-1])
]
_KNOWN_WORDS = frozenset(_PHRASES.known.split())
_SHORT = 10  # most words of a text whose language shows only in its letters
_KNOWN = 0.08  # least share of `known` words in a language that the model knows; two words at least
_LEAST_SPOKEN = 0.1  # least share of tokens that are words
_FOREIGN = 0.5  # share of words in other letters above which the language is unknown
_SAMPLE = 512  # characters at the beginning of a text that are checked for its language
_SHIFTS = {"low": 1.0, "medium": 0.0, "high": -0.7}
_TOOL_SHIFTS = {"low": 0.0, "medium": -1.0, "high": -1.3}
"""Shifts of the limits by sensitivity. bench/guardrails/quality.py measures the findings of each."""
_ROLES = {
    "user": ("user", ""),
    "assistant": ("assistant", "model", TOOL_NAME, TOOL_CALL),
    "system": ("system", "developer"),
    "tool_results": TOOL_ROLES,
    "tool_descriptions": (DEFINITION,),
    "documents": ("request",),
}
"""Roles of texts, by their names in the settings."""

Role = Literal["user", "assistant", "system", "tool_results", "tool_descriptions", "documents"]
Sensitivity = Literal["low", "medium", "high"]


class PromptInjectionSettings(GuardrailSettings):
    """A guardrail that finds prompt injections and jailbreaks."""

    kind: Literal["prompt_injection"] = Field(
        description="Kind of the guardrail. `prompt_injection`: instructions that a user or a document smuggles in."
    )
    roles: Annotated[Sequence[Role], Field(min_length=1, max_length=6)] = Field(
        ("user", "tool_results", "documents", "tool_descriptions"),
        description="Texts of a request that are searched, where `on` has `input`. `user`: messages of users. "
        "`tool_results`: results of tools. `documents`: other text of the request, such as documents to search. "
        "`tool_descriptions`: definitions of tools. `system`: system and developer messages, which the application "
        "wrote. `assistant`: earlier answers. Default: all but the last two.",
    )
    sensitivity: Sensitivity = Field(
        "medium",
        description="Sensitivity in text other than tool results: `low`, `medium` or `high`. Of 1,000 jailbreaks that "
        "people shared they find about 780, 840 and 880; of 1,000 everyday questions none, 1 and 2; of 1,000 prompts of "
        "agents, sent as a user's message, 7, 15 and 18. docs/guardrails/quality.md has more.",
    )
    tool_results_sensitivity: Sensitivity = Field(
        "medium",
        description="Sensitivity in results of tools: mails, pages, tables, logs. Orders in them are rarely meant by "
        "their reader, so each level finds more there than in other text. Of 1,000 orders hidden in documents `low`, "
        "`medium` and `high` find about 390, 500 and 590; of 1,000 harmless descriptions 3, 6 and 17.",
    )

    def build(self) -> PromptInjection:
        answers = ("assistant",) if {"output", "tool_calls"} & {*self.on} else ()
        return PromptInjection(
            (*self.roles, *answers), sensitivity=self.sensitivity, tool_results=self.tool_results_sensitivity
        )


class PromptInjection(Detector):
    """Finds at most one prompt injection in each text: its worst window."""

    window = _WINDOW

    def __init__(
        self,
        roles: Sequence[str] = ("user", "assistant", "tool_results", "documents", "tool_descriptions"),
        *,
        sensitivity: str = "medium",
        tool_results: str = "medium",
    ) -> None:
        self._model = weights("injection")
        self.roles = frozenset(role for name in roles for role in _ROLES[name])
        self._limits = self._model.thresholds
        self._shift, self._tool_shift = _SHIFTS[sensitivity], _TOOL_SHIFTS[tool_results]
        self._rules = compiled(tuple([_PHRASES.expanded("|".join(rule.patterns)) for rule in _PHRASES.rules]))

    def skips(self, text: str, role: str) -> str:
        """See `Detector.skips`: text in a language that the model does not know is searched by rules alone."""
        sample = text[:_SAMPLE]
        if role == DEFINITION or sum(map(str.isalpha, sample)) < len(sample) // 2 or is_known(tokens(sample)):
            return ""
        return "language"

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        if role == DEFINITION:
            return self._in_definition(text)
        shift = self._tool_shift if role in TOOL_ROLES else self._shift
        over, span = self._judge(text, shift)
        if over <= 0:
            odd = list(compiled(_ODD).search(text))
            spelled = [place for index, place in odd if index == 0]
            for variant, place in (*_spoken(text, odd), *_variants(text, spelled, [index for index, _ in odd])):
                if (hidden := self._judge(variant, shift)[0]) > over:
                    over, span = hidden, place
            if over <= 0 and (match := _spelled(text, spelled)):
                over, span = 1.0, match
        if over <= 0:
            return ()
        return [Finding("injection", span, 1 / (1 + math.exp(-over)))]

    def _in_definition(self, text: str) -> Sequence[Finding]:
        """Orders in the definition of a tool, by rules alone: the model takes honest definitions for orders, too."""
        for variant, outer in ((text, None), *inner(text)):
            if found := [
                *(span for _, span in compiled(_POISON).search(variant)),
                *((at, at + 1) for at, _ in self._bonuses(variant)),
            ]:
                return [Finding("injection", outer or found[0], 1.0)]
        return ()

    def _judge(self, text: str, shift: float) -> tuple[float, tuple[int, int]]:
        """The worst window's score less its limit, and its span. Windows in languages unknown to the model count only
        if a rule matches.
        """
        words = tokens(text)
        if (count := len(words)) < 2:
            return -math.inf, (0, 0)
        bonuses = self._bonuses(text)
        if not bonuses and sum(map(str.isalpha, words)) < _LEAST_SPOKEN * min(count, _SIZES[0]):
            return -math.inf, (0, 0)  # no window has enough words, see `is_known`
        model, sums = self._model, self._model.sums(words)
        begins = places(text) if bonuses else ()
        over: list[tuple[float, int, int, bool]] = []
        if count <= _SIZES[-1]:
            bonus = sum(bonus for _, bonus in bonuses)
            score = model.bias + sums[-1] / math.sqrt(count) + bonus - self._limits["whole"] - shift
            over.append((score, 0, count, bonus > 0))
        for size in _SIZES:
            if count <= size:
                break
            limit = self._limits[str(size)] + shift
            scores, starts = model.windows(sums, size)
            if not bonuses:
                over += [
                    (score - limit, at, at + size, False)
                    for score, at in zip(scores, starts, strict=True)
                    if score > limit
                ]
                continue
            for score, start in zip(scores, starts, strict=True):
                bonus = sum(bonus for at, bonus in bonuses if begins[start] <= at < begins[start + size])
                if score + bonus > limit:
                    over.append((score + bonus - limit, start, start + size, bonus > 0))
        for score, first, last, ruled in sorted(over, reverse=True):
            if score <= 0:
                break
            if ruled or is_known(words[first:last]):
                begins = begins or places(text)
                return score, (begins[first], begins[last])
        return -math.inf, (0, 0)

    def _bonuses(self, text: str) -> Sequence[tuple[int, float]]:
        """The matches of rules with the scores that they add. A rule counts once, and not in text that only mentions
        the words.
        """
        found: dict[int, tuple[int, float]] = {}
        for index, (start, _) in self._rules.search(text):
            if index not in found and not _talked_about(text[max(0, start - 24) : start + 1]):
                found[index] = start, _PHRASES.rules[index].score
        return list(found.values())


def is_known(words: Sequence[str]) -> bool:
    """True for words of a language that the model knows, English or German, and for few words in Latin letters. False
    where nearly all tokens are signs and numbers.
    """
    spoken = [word.lower() for word in words if word.isalpha()]
    if len(spoken) < _LEAST_SPOKEN * len(words):
        return False
    foreign = sum(not word.isascii() and max(word) > "\u024f" for word in spoken)
    if foreign > _FOREIGN * len(spoken):
        return False
    known = sum(word in _KNOWN_WORDS for word in spoken)
    return len(spoken) < _SHORT or known >= max(2, _KNOWN * len(spoken))


def _variants(
    text: str, spelled: Sequence[tuple[int, int]], odd: Sequence[int]
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Texts that may be hidden in `text`, each with its span."""
    yield from inner(text)
    if spelled:
        words = " ".join(_joined(text, start, end) for start, end in spelled)
        yield words, (spelled[0][0], spelled[-1][1])
    whole = 0, len(text)
    if odd.count(1) >= _LEET_WORDS:
        plain, changed = _unleet(text, _LEET)
        if changed >= _LEET_WORDS:
            yield plain, whole
            if (other := _unleet(text, _LEET_L)[0]) != plain:
                yield other, whole
    share = _share(text.lower().split())  # faster than by letters, and never higher
    if share < _UNUSUAL and _letter(text):
        backwards = text[::-1]
        for turned in (*_shifted(text), backwards):
            if _share(_letters(turned.lower())) >= max(_READABLE, 2 * share):
                yield turned, whole
                if turned is backwards:
                    yield " ".join(reversed(backwards.split())), whole  # each word on its own


def _shifted(text: str) -> Iterator[str]:
    """`text` with shifted or mirrored letters: the two variants whose letter frequencies are closest to English."""
    begun = text[:_LOOK].lower()
    counts = [begun.count(letter) for letter in _LOWER]
    scores = [
        sum([count * _PHRASES.frequent[table[97 + letter] - 97] for letter, count in enumerate(counts)])
        for table in _CIPHERS
    ]
    for index in sorted(range(len(scores)), key=scores.__getitem__)[-2:]:
        yield text.translate(_CIPHERS[index])


def _spoken(text: str, odd: Sequence[tuple[int, tuple[int, int]]]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Texts in Morse code and in the phonetic alphabet, each with its span."""
    for index, (start, end) in odd:
        run = text[start:end]
        if index == 2:
            words = _morse_gap.split(run)
            yield " ".join("".join(_MORSE.get(one, "") for one in word.split()) for word in words), (start, end)
        elif index == 3:
            words = _phonetic_gap.split(run)
            yield " ".join("".join(one[0] for one in _letters(word.lower())) for word in words), (start, end)


def _unleet(text: str, table: Mapping[int, int]) -> tuple[str, int]:
    """`text` with letters for the digits in its words, and the number of these words; numbers stay."""
    return _leet_word.subn(lambda match: match[0].translate(table), text)


def _share(words: Sequence[str]) -> float:
    """The share of common words; 1 for few words."""
    return sum(word in _COMMON for word in words) / len(words) if len(words) >= 4 else 1.0


def _joined(text: str, start: int, end: int) -> str:
    """Words that are written letter by letter, with wider gaps between them."""
    return " ".join(_gap.sub("", word) for word in _wide_gap.split(text[start:end]))


def _spelled(text: str, spans: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The span of an attack that is written letter by letter."""
    for start, end in spans:
        if _compact(_gap.sub("", text[start:end]).lower().translate(_LEET)):
            return start, end
    return None


SETTINGS = PromptInjectionSettings
