"""Two targets compared over the rows of their exchanges: failures, cut answers, time and cost, by class of request.

An exchange belongs to the arm of the target that was asked first: a canary whose failures another target repairs has
failed. The first ANSWERS_FIRST answers of arm A say what is slow and dear; the answers after them are counted. Each
bound holds however often one looks from the same beginning, and all bounds together are wrong with a probability of
ERROR at most: half of it is for all requests, half for the classes. See `words.evidence`.
"""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from extproc.money.ledger.cover import RowSource
from extproc.money.ledger.query import Filters
from extproc.money.ledger.rows import text
from extproc.money.ledger.sql import Cursor
from extproc.money.ledger.usage import rfc3339, to_micros
from extproc.upstream.prices import decimal
from extproc.words.evidence import ERROR, Arms, Counted, interval, missing, state

ANSWERS_FIRST = 100
"""Answers of arm A that set the bounds of a slow and of a dear answer."""
MOST_ROWS = 50_000
"""Most exchanges of a comparison, the latest."""
MOST_CLASSES = 24
MOST_EXAMPLES = 5
"""Most ids of bad answers that a measure shows, the latest."""
_DEAR = 1.1  # times the median cost of arm A
_SIZES = ((1_000, "input below 1,000 tokens"), (10_000, "input below 10,000 tokens"))
_LONG = "input of 10,000 tokens and more"

MARGINS: Mapping[str, float] = {"failed": 0.01, "cut off": 0.01, "slow": 0.05, "dear": 0.1}
"""Measures of an exchange, with the difference in its rate that still counts as safe."""


@dataclass(slots=True, frozen=True)
class CompareQuery:
    """A comparison of the targets `a` and `b`, entries of `models`. `label` adds a class for each of its values."""

    a: str
    b: str
    start: datetime
    end: datetime
    label: str | None = None
    filters: Filters = field(default_factory=dict)


@dataclass(slots=True)
class _Arm:
    asked: int = 0
    bad: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MARGINS, 0))
    of: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MARGINS, 0))
    took: list[int] = field(default_factory=list)
    cost: list[int] = field(default_factory=list)
    examples: dict[str, deque[str]] = field(
        default_factory=lambda: {name: deque(maxlen=MOST_EXAMPLES) for name in MARGINS}
    )

    def count(self, measure: str, id: str, *, bad: bool) -> None:
        self.bad[measure] += bad
        self.of[measure] += 1
        if bad:
            self.examples[measure].append(id)


@dataclass(slots=True)
class _Class:
    """The exchanges of one class of request. `took` and `cost` of arm A are bounds once they have ANSWERS_FIRST
    values.
    """

    name: str
    a: _Arm = field(default_factory=_Arm)
    b: _Arm = field(default_factory=_Arm)
    first_took: list[int] = field(default_factory=list)
    first_cost: list[int] = field(default_factory=list)
    slow: float | None = None
    dear: float | None = None

    def add(self, first: bool, id: str, *, failed: bool, cut: bool, took: int | None, cost: int | None) -> None:
        """Count an exchange of arm A (`first`) or B. Without `took` and `cost` the arm did not answer."""
        arm = self.a if first else self.b
        arm.asked += 1
        arm.count("failed", id, bad=failed)
        arm.count("cut off", id, bad=cut)
        if took is not None:
            arm.took.append(took)
            if self.slow is not None:
                arm.count("slow", id, bad=took > self.slow)
            elif first:
                self.first_took.append(took)
                if len(self.first_took) == ANSWERS_FIRST:
                    self.slow = _at(sorted(self.first_took), 0.95)
        if cost is not None:
            arm.cost.append(cost)
            if self.dear is not None:
                arm.count("dear", id, bad=cost > self.dear)
            elif first:
                self.first_cost.append(cost)
                if len(self.first_cost) == ANSWERS_FIRST:
                    self.dear = _DEAR * _at(sorted(self.first_cost), 0.5)

    def measures(self) -> Iterator[tuple[str, Counted, float]]:
        for name, margin in MARGINS.items():
            yield name, Arms(self.a.bad[name], self.a.of[name], self.b.bad[name], self.b.of[name]), margin


def compare(cursor: Cursor, query: CompareQuery) -> Mapping[str, Any]:
    """The comparison, as JSON."""
    whole, classes = _Class("all requests"), dict[str, _Class]()
    for first, id, names, facts in _read(cursor, query):
        whole.add(first, id, **facts)
        for name in names:
            if name in classes or len(classes) < MOST_CLASSES:
                classes.setdefault(name, _Class(name)).add(first, id, **facts)
    shown = [_shown(whole, ERROR / 2 / len(MARGINS))]
    each = ERROR / 2 / (len(MARGINS) * MOST_CLASSES)  # fixed: classes appear over time
    shown += [_shown(classes[name], each) for name in sorted(classes)]
    verdict, more = _verdict(shown)
    return {
        "object": "comparison",
        "a": query.a,
        "b": query.b,
        "start": rfc3339(query.start),
        "end": rfc3339(query.end),
        "error": ERROR,
        "state": verdict,
        "more": more,
        "sentence": _sentence(query, shown, verdict, more),
        "classes": shown,
    }


def _read(cursor: Cursor, query: CompareQuery) -> Iterator[tuple[bool, str, Sequence[str], dict[str, Any]]]:
    """The exchanges in order of time: whether arm A was asked first, its id, its classes, its facts."""
    source = RowSource(cursor.dialect, "time >= ? AND time < ?", [to_micros(query.start), to_micros(query.end)])
    where, values = source.matching(query.filters)
    column, needed = ("''", []) if query.label is None else source.field(f"label.{query.label}")
    pair = text(query.a), text(query.b)
    rows = cursor.rows(
        "SELECT id, target, operation, input_tokens, outcome, error, complete, cost, duration_ms, tries, "
        f"{column} AS label FROM exchanges WHERE {where} AND outcome <> 'refused' AND cache NOT IN ('hit', 'similar') "
        f"AND (target IN (?, ?) OR tries IS NOT NULL) ORDER BY time DESC LIMIT {MOST_ROWS}",
        [*needed, *values, *pair],
    )
    for id, target, operation, tokens, outcome, error, complete, cost, took, tries, label in reversed(rows):
        failures = msgspec.json.decode(tries) if isinstance(tries, str) else tries
        asked = failures[0]["target"] if failures else target
        if asked not in pair or error in ("client_left", "abandoned"):
            continue
        size = next((name for most, name in _SIZES if tokens < most), _LONG)
        names = [f"operation {operation}", size, *([f"{query.label} {label}"] if label else [])]
        served = outcome == "ok" and not failures
        yield (
            asked == pair[0],
            id,
            names,
            {
                "failed": bool(failures) or outcome == "error",
                "cut": served and not complete,
                "took": took if served and complete else None,
                "cost": cost if served and complete else None,
            },
        )


def _shown(found: _Class, error: float) -> dict[str, Any]:
    measures = []
    for name, counts, margin in found.measures():
        low, high = interval(counts, error)
        assert isinstance(counts, Arms)
        measures.append(
            {
                "name": name,
                "bad_a": counts.a,
                "of_a": counts.answers_a,
                "bad_b": counts.b,
                "of_b": counts.answers_b,
                "low": round(low, 6),
                "high": round(high, 6),
                "margin": margin,
                "state": (now := state(counts, margin, error)),
                "more": missing(counts, margin, error) if now == "open" else 0,
                "examples": [*found.b.examples[name]],
            }
        )
    return {"name": found.name, "a": _distributions(found.a), "b": _distributions(found.b), "measures": measures}


def _distributions(arm: _Arm) -> dict[str, Any]:
    took, cost = sorted(arm.took), sorted(arm.cost)
    return {
        "exchanges": arm.asked,
        "p50_ms": _at(took, 0.5) if took else None,
        "p95_ms": _at(took, 0.95) if took else None,
        "p50_usd": decimal(_at(cost, 0.5)) if cost else None,
        "p95_usd": decimal(_at(cost, 0.95)) if cost else None,
        "mean_usd": decimal(sum(cost) // len(cost)) if cost else None,
    }


def _at(values: Sequence[int], share: float) -> int:
    """The least value at or below which a share of the values lies. They are sorted."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _verdict(shown: Sequence[Mapping[str, Any]]) -> tuple[str, int | None]:
    """The state of the comparison, and the further answers of B until one is known; None: not to be foretold."""
    if any(measure["state"] == "worse" for each in shown for measure in each["measures"]):
        return "not_safe", 0
    left = [measure["more"] for measure in shown[0]["measures"] if measure["state"] == "open"]
    if not left:
        return "safe", 0
    return "not_enough_data", None if None in left else max(left)


def _sentence(query: CompareQuery, shown: Sequence[Mapping[str, Any]], verdict: str, more: int | None) -> str:
    a, b = query.a, query.b
    if verdict == "safe":
        return f"Safe: {b} is not worse than {a} by more than the margins, with {1 - ERROR:.0%} confidence."
    if verdict == "not_enough_data":
        wanted = f"about {more:,} more answers of {b}" if more else f"more answers of {a} and {b}"
        return f"Not enough data: {wanted} are needed if the rates stay as they are."
    worse: list[tuple[str, Mapping[str, Any]]] = [
        (each["name"], measure) for each in shown for measure in each["measures"] if measure["state"] == "worse"
    ]
    name, measure = worse[0]
    return (
        f"Not safe: of {b}'s answers {measure['bad_b'] / measure['of_b']:.1%} are {measure['name']}, of {a}'s "
        f"{measure['bad_a'] / measure['of_a']:.1%} ({name}); the difference is {measure['low']:.1%} to "
        f"{measure['high']:.1%}, with {1 - ERROR:.0%} confidence."
    )
