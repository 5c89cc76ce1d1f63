"""Pairs of questions: those that mean the same, and those that differ in one thing that changes the answer.

Pairs written by hand are in `similar.jsonl`: a `question`, questions that are the `same`, and `other` ones by the thing
in which they differ. The others are made here, kind by kind.
"""

# ruff: noqa: RUF001
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("similar.jsonl")


class Pair(NamedTuple):
    kind: str
    one: str
    other: str
    same: bool


_CALCULATIONS = [(10, 3), (12, 4), (7, 2), (100, 8), (9, 9), (64, 16), (1, 3), (250, 5)]
_OPERATORS = ("+", "-", "*", "/", "^", "%", "×", "÷")
_FORMULAS = [
    *[("x² + 1", "x2 + 1"), ("√16", "16"), ("10⁵", "105"), ("1½ cups", "11/2 cups"), ("a ≤ b", "a ≥ b")],
    *[("a < b", "a > b"), ("a == b", "a != b"), ("a && b", "a || b"), ("a & b", "a | b"), ("f(x)", "f'(x)")],
    *[("[1, 2]", "(1, 2)"), ("a[0]", "a[1]"), ("a+", "a*"), ("\\d", "\\D"), ("^a", "a$"), ("5!", "5?"), ("~x", "x")],
    *[("log 10", "ln 10"), ("sin x", "sin⁻¹ x"), ("H₂O", "H₂O₂"), ("CO", "Co"), ("∀x", "∃x"), ("A ∩ B", "A ∪ B")],
    *[("A ⊂ B", "A ⊃ B"), ("p → q", "q → p"), ("0.1", "0,1"), ("1e3", "1e-3"), ("1/2 + 1", "1/(2 + 1)"), ("-x", "x")],
    *[("x += 1", "x -= 1"), ("i++", "i--"), ("*p", "&p"), ("a ?? b", "a ? b"), ("1 << 4", "1 >> 4"), ("!a", "a")],
    *[("$5", "€5"), ("5%", "5‰"), ("C", "C#"), ("C++", "C"), (".net", "net"), ("#1", "1"), ("@home", "home")],
    *[("therapist", "the rapist"), ("a  b", "a b"), ("résumé", "resume"), ("papá", "papa"), ("año", "ano")],
    *[("ＡＢ", "AB"), ("а", "a"), ("①", "1"), ("ﬁne", "fine"), ("x\u200by", "xy"), ("µ", "μ"), ("ß", "ss")],
]
_ABOUT = ("What is {}?", "Explain {} to a child.", "Is {} right?", "Write about {}.")
_NUMBERS = [
    *[("3.141", "3141"), ("3.141", "3,141"), ("1.5", "15"), ("1.000", "1000"), ("20", "-20"), ("20", "−20")],
    *[("0", "-0.5"), ("7", "70"), ("0.05", "0.5"), ("1,000", "1.000"), ("five", "fifty"), ("13", "30"), ("2e3", "23")],
    *[("third", "thirty"), ("first", "second"), ("IV", "VI"), ("12", "twelfth"), ("one in ten", "ten in one")],
]
_MEASURED = (
    "It is {} degrees outside. What do I wear?",
    "Convert {} to binary.",
    "Is {} a large number?",
    "Round {} up.",
    "My balance is {}. Am I in debt?",
)
_UNITS = (
    "kg",
    "lb",
    "mg",
    "g",
    "km",
    "miles",
    "m",
    "cm",
    "mm",
    "°C",
    "°F",
    "K",
    "GB",
    "Gb",
    "MB",
    "ms",
    "s",
    "h",
    "min",
)
_SYMBOLS = [
    *[("👍", "👎"), ("❤️", "💔"), ("✅", "❌"), ("😀", "😢"), ("🇺🇸", "🇬🇧"), ("🇦🇹", "🇦🇺"), ("⬆️", "⬇️"), ("🔒", "🔓")],
    *[
        ("☀️", "🌧️"),
        ("👶", "👴"),
        ("🐶", "🐱"),
        ("➕", "➖"),
        ("♀", "♂"),
        ("♠", "♥"),
        ("🟢", "🔴"),
        (":)", ":("),
        ("👍🏻", "👍🏿"),
    ],
]
_SHOWN = ("What does {} mean?", "My boss answered {}. Is that good?", "{}", "Reply to: {}", "Say {} in words.")
_CASES = [
    *[("US", "us"), ("IT", "it"), ("WHO", "who"), ("AIDS", "aids"), ("Polish", "polish"), ("March", "march")],
    *[("May", "may"), ("Turkey", "turkey"), ("RAM", "ram"), ("Mars", "mars"), ("Reading", "reading"), ("Job", "job")],
    *[("CAN", "can"), ("NICE", "nice"), ("Java", "java"), ("Rust", "rust"), ("Go", "go"), ("Apple", "apple")],
    *[
        ("SAT", "sat"),
        ("Nice", "nice"),
        ("China", "china"),
        ("Python", "python"),
        ("m", "M"),
        ("Pa", "pa"),
        ("OR", "or"),
    ],
]
_NAMED = ("Does {} help me?", "Tell me about {}.", "What did {} do?", "Is {} good?")
_CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Paris", "London, UK", "London, Ontario", "Vienna", "Sydney")
_PEOPLE = ("Ada Lovelace", "Alan Turing", "Marie Curie", "Pierre Curie", "John Adams", "John Quincy Adams")
_PLACES = ("How is the weather in {}?", "How many people live in {}?", "Find a hotel in {}.")
_WHO = ("When was {} born?", "What is {} known for?")
_LANGUAGES = ("French", "German", "Spanish", "Polish", "Japanese", "Hindi", "Latin", "Danish", "Dutch", "Swedish")
_DATES = (
    "2024-03-04",
    "2024-04-03",
    "2023-03-04",
    "March 4",
    "May 4",
    "03/04/24",
    "04/03/24",
    "4 am",
    "4 pm",
    "Q1",
    "Q2",
)
_PLANNED = ("Am I free on {}?", "What happened on {}?", "Book it for {}.")
_SAID = [
    ("Is it safe to {}?", "Is it not safe to {}?"),
    ("Should I {}?", "Should I never {}?"),
    ("How do I {}?", "How do I avoid having to {}?"),
    ("Who can {}?", "Who cannot {}?"),
    ("Can I {} before lunch?", "Can I {} after lunch?"),
    ("What happens if I {}?", "What happens unless I {}?"),
    ("When did people {}?", "Where did people {}?"),
    ("Why {}?", "Why not {}?"),
    ("List all who {}.", "List all but those who {}."),
    ("Let us {}, please.", "Let us {} please who pay."),
]
_ACTS = ("swim", "drive", "mix bleach and vinegar", "take ibuprofen", "delete the index", "sign the contract")
_ACTS += ("reboot", "eat raw eggs", "merge the branch", "pay by card", "work on Sunday", "travel alone")
_TONGUES = [
    *[("How are you?", "Wie geht es dir?"), ("What is love?", "¿Qué es el amor?"), ("Good morning", "Bonjour")],
    *[
        ("ist offen?", "ist nicht offen?"),
        ("我要吗？", "我不要吗？"),
        ("行きますか", "行きませんか"),
        ("Он здесь?", "Он не здесь?"),
    ],
    *[
        ("¿Sí?", "¿Si?"),
        ("Er will sie", "Sie will ihn"),
        ("pas mal?", "mal?"),
        ("schon", "schön"),
        ("drucken", "drücken"),
    ],
]
_COUNTRIES = (
    "Australia",
    "Brazil",
    "Canada",
    "Chile",
    "China",
    "Cuba",
    "Egypt",
    "Finland",
    "France",
    "Ghana",
    "Greece",
)
_COUNTRIES += ("India", "Iran", "Iraq", "Italy", "Japan", "Kenya", "Mexico", "Nepal", "Norway", "Oman", "Peru", "Spain")
_COUNTRIES += ("Austria", "Denmark", "Germany", "Ireland", "Poland", "Portugal", "Sweden", "Turkey", "Ukraine")
_SAME = (
    ("What is the capital of {}?", "Which city is the capital of {}?"),
    ("How many people live in {}?", "What is the population of {}?"),
)


def written() -> Iterator[Pair]:
    for line in FILE.read_text(encoding="utf-8").splitlines():
        group = json.loads(line)
        yield from [Pair("by hand", group["question"], text, True) for text in group["same"]]
        yield from [Pair("by hand", group["question"], text, False) for text in group["other"].values()]


def made() -> Iterator[Pair]:
    for one, other in _CALCULATIONS:
        for left, right in combinations(_OPERATORS, 2):
            yield Pair("formula", f"What is {one} {left} {other}?", f"What is {one} {right} {other}?", False)
        for each in _OPERATORS[1:2] + _OPERATORS[3:5]:
            if one != other:
                yield Pair("order", f"What is {one} {each} {other}?", f"What is {other} {each} {one}?", False)
    yield from _in("formula", _ABOUT, _FORMULAS)
    yield from _in("number", _MEASURED, _NUMBERS)
    yield from _in("unit", ("How much is 5 {} in pounds?", "Is 72 {} a lot?"), [*combinations(_UNITS, 2)])
    yield from _in("symbol", _SHOWN, _SYMBOLS)
    yield from _in("case", _NAMED, _CASES)
    yield from _in("name", _PLACES, [*combinations(_CITIES, 2)])
    yield from _in("name", _WHO, [*combinations(_PEOPLE, 2)])
    yield from _in("date", _PLANNED, [*combinations(_DATES, 2)])
    yield from _in("language", ("Translate 'old' to {}.", "Answer in {}: who are you?"), [*combinations(_LANGUAGES, 2)])
    yield from _in("language", ("{}",), _TONGUES)
    for left, right in _SAID:
        yield from [Pair("negation", left.format(act), right.format(act), False) for act in _ACTS]
    for one, other in permutations(_CITIES[:8], 2):
        yield Pair(
            "order", f"Is there a train from {one} to {other}?", f"Is there a train from {other} to {one}?", False
        )
    for one, other in combinations(_LANGUAGES, 2):
        yield Pair("order", f"Put this {one} into {other}: 'no'", f"Put this {other} into {one}: 'no'", False)
    for country in _COUNTRIES:
        yield from [Pair("same", left.format(country), right.format(country), True) for left, right in _SAME]
    for one, other in combinations(_COUNTRIES, 2):
        yield Pair("name", _SAME[0][0].format(one), _SAME[0][1].format(other), False)


def _in(kind: str, frames: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Iterator[Pair]:
    for frame in frames:
        yield from [Pair(kind, frame.format(one), frame.format(other), False) for one, other in pairs]


def pairs() -> Sequence[Pair]:
    """All of them, each once."""
    return [*dict.fromkeys([*written(), *made()])]


def listed(found: Sequence[Pair]) -> dict[str, list[str]]:
    """The pairs that mean the same, as `cache.semantic.questions` lists them."""
    lists: dict[str, list[str]] = {}
    for pair in found:
        if pair.same:
            lists.setdefault(pair.one, []).append(pair.other)
    return lists
