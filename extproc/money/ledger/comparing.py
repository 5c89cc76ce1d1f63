"""Two targets compared over the rows of their exchanges: failures, cut answers, time, cost and traits of the answers,
by class of request.

An exchange belongs to the arm of the target that was asked first: a canary whose failures another target repairs has
failed. The first ANSWERS_FIRST answers of arm A say what is slow and dear; the answers after them are counted. Each
bound holds however often one looks from the same beginning, and all bounds together are wrong with a probability of
ERROR at most: half of it is for all requests, half for the classes. See `words.evidence`.

Where both arms answered the same requests, as in a shadow or a replay, answers are compared in pairs: the difference
between requests is then no noise.
"""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from extproc.money.ledger.cover import RowSource
from extproc.money.ledger.query import Filters
from extproc.money.ledger.rows import text
from extproc.money.ledger.sql import Cursor, places
from extproc.money.ledger.usage import rfc3339, to_micros
from extproc.upstream.prices import decimal
from extproc.words.evidence import ERROR, Arms, Counted, Pairs, interval, missing, state

ANSWERS_FIRST = 100
"""Answers of arm A that set the bounds of a slow and of a dear answer."""
MOST_ROWS = 50_000
"""Most exchanges of a comparison, the latest."""
MOST_CLASSES = 24
MOST_EXAMPLES = 5
"""Most ids of bad answers that a measure shows, the latest."""
_BATCH = 500  # exchanges read by their ids at a time
_DEAR = 1.1  # times the median cost of arm A
_SIZES = ((1_000, "input below 1,000 tokens"), (10_000, "input below 10,000 tokens"))
_LONG = "input of 10,000 tokens and more"

_RARE = 0.01  # share of arm B's answers below which an open measure holds up no verdict

MARGINS: Mapping[str, float] = {
    "failed": 0.01,
    "cut off": 0.01,
    "slow": 0.05,
    "dear": 0.1,
    "refused": 0.01,
    "malformed": 0.01,
    "without a call": 0.01,
}
"""Measures of an exchange, with the difference in its rate that still counts as safe. Those after `dear` are read in
traits (`texts.Traits`), and apply only to answers that have them.
"""
_ALWAYS = 4  # first measures, which apply to every answer


@dataclass(slots=True, frozen=True)
class CompareQuery:
    """A comparison of the targets `a` and `b`, entries of `models`. `label` adds a class for each of its values.

    `pairs`: exchanges with this label and value, such as `shadow` and a virtual model, are compared with those whose
    ids they have under `{label}-of`. `a` and `b` are then only for people.
    """

    a: str
    b: str
    start: datetime
    end: datetime
    label: str | None = None
    filters: Filters = field(default_factory=dict)
    pairs: tuple[str, str] | None = None


@dataclass(slots=True, frozen=True)
class _Facts:
    """One exchange: the classes of its request, what is known of it by measure, and its time and cost if it was
    answered in whole.
    """

    id: str
    classes: Sequence[str]
    bad: Mapping[str, bool]
    took: int | None
    cost: int | None
    calls: Sequence[str] | None = None  # see `Traits.calls`


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


@dataclass(slots=True)
class _Paired:
    """Pairs by measure: [only A bad, only B bad, alike]; and pairs in which both arms may call tools, by likeness."""

    counts: dict[str, list[int]] = field(default_factory=lambda: {name: [0, 0, 0] for name in MARGINS})
    with_tools: int = 0
    same_tools: int = 0
    same_calls: int = 0


@dataclass(slots=True)
class _Class:
    """The exchanges of one class of request. `took` and `cost` of arm A are bounds once they have ANSWERS_FIRST
    values.
    """

    name: str
    paired: _Paired | None = None
    a: _Arm = field(default_factory=_Arm)
    b: _Arm = field(default_factory=_Arm)
    first_took: list[int] = field(default_factory=list)
    first_cost: list[int] = field(default_factory=list)
    slow: float | None = None
    dear: float | None = None

    def add(self, first: bool, facts: _Facts) -> Mapping[str, bool]:
        """Count an exchange of arm A (`first`) or B. Returns what counted, by measure."""
        arm, bad = self.a if first else self.b, dict(facts.bad)
        arm.asked += 1
        if (took := facts.took) is not None:
            arm.took.append(took)
            if self.slow is not None:
                bad["slow"] = took > self.slow
            elif first:
                self.first_took.append(took)
                if len(self.first_took) == ANSWERS_FIRST:
                    self.slow = _at(sorted(self.first_took), 0.95)
        if (cost := facts.cost) is not None:
            arm.cost.append(cost)
            if self.dear is not None:
                bad["dear"] = cost > self.dear
            elif first:
                self.first_cost.append(cost)
                if len(self.first_cost) == ANSWERS_FIRST:
                    self.dear = _DEAR * _at(sorted(self.first_cost), 0.5)
        for measure, is_bad in bad.items():
            arm.bad[measure] += is_bad
            arm.of[measure] += 1
            if is_bad:
                arm.examples[measure].append(facts.id)
        return bad

    def add_pair(self, a: _Facts, b: _Facts) -> None:
        """Count two answers to the same request."""
        assert self.paired is not None, "of a comparison in pairs"
        bad_a, bad_b = self.add(True, a), self.add(False, b)
        for measure in bad_a.keys() & bad_b.keys():
            wins, losses = bad_a[measure], bad_b[measure]
            self.paired.counts[measure][2 if wins == losses else 0 if wins else 1] += 1
        if a.calls is not None and b.calls is not None:
            self.paired.with_tools += 1
            self.paired.same_tools += [*map(_tool, a.calls)] == [*map(_tool, b.calls)]
            self.paired.same_calls += a.calls == b.calls

    def measures(self) -> Iterator[tuple[str, Counted, float]]:
        """Each measure that applies, with its counts and its margin."""
        a, b = self.a, self.b
        for index, (name, margin) in enumerate(MARGINS.items()):
            counts: Counted = Arms(a.bad[name], a.of[name], b.bad[name], b.of[name])
            if self.paired is not None:
                counts = Pairs(*self.paired.counts[name])
            if index < _ALWAYS or (counts.answers and a.of[name]):
                yield name, counts, margin


def compare(cursor: Cursor, query: CompareQuery) -> Mapping[str, Any]:
    """The comparison, as JSON."""
    whole, classes = _new(query, "all requests"), dict[str, _Class]()

    def each(names: Sequence[str]) -> Iterator[_Class]:
        yield whole
        for name in names:
            if name in classes or len(classes) < MOST_CLASSES:
                yield classes.setdefault(name, _new(query, name))

    if query.pairs is None:
        for first, facts in _read(cursor, query):
            for found in each(facts.classes):
                found.add(first, facts)
    else:
        for a, b in _read_pairs(cursor, query, query.pairs):
            for found in each(a.classes):
                found.add_pair(a, b)
    shown = [_shown(whole, ERROR / 2 / len(MARGINS))]
    each_error = ERROR / 2 / (len(MARGINS) * MOST_CLASSES)  # fixed: classes appear over time
    shown += [_shown(classes[name], each_error) for name in sorted(classes)]
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


def _new(query: CompareQuery, name: str) -> _Class:
    return _Class(name, None if query.pairs is None else _Paired())


_COLUMNS = "operation, input_tokens, outcome, error, complete, cost, duration_ms, tries, traits, target"
_ANSWERED = "outcome <> 'refused' AND cache NOT IN ('hit', 'similar')"


def _read(cursor: Cursor, query: CompareQuery) -> Iterator[tuple[bool, _Facts]]:
    """The exchanges in order of time; True for one in which arm A was asked first."""
    source, where, values = _in_time(cursor, query)
    column, needed = ("''", []) if query.label is None else source.field(f"label.{query.label}")
    pair = text(query.a), text(query.b)
    rows = cursor.rows(
        f"SELECT id, {column} AS label, {_COLUMNS} FROM exchanges WHERE {where} AND {_ANSWERED} "
        f"AND (target IN (?, ?) OR tries IS NOT NULL) ORDER BY time DESC LIMIT {MOST_ROWS}",
        [*needed, *values, *pair],
    )
    for row in reversed(rows):
        if (found := _facts(query, row)) is None:
            continue
        asked, facts = found
        if asked in pair:
            yield asked == pair[0], facts


def _read_pairs(cursor: Cursor, query: CompareQuery, pairs: tuple[str, str]) -> Iterator[tuple[_Facts, _Facts]]:
    """Exchanges that answered the same request, in order of time: the first answer, and the one with the label."""
    source, where, values = _in_time(cursor, query)
    mark, mark_values = source.field(f"label.{pairs[0]}")
    first, first_values = source.field(f"label.{pairs[0]}-of")
    rows = cursor.rows(
        f"SELECT {first} AS first, id, '' AS label, {_COLUMNS} FROM exchanges WHERE {where} AND {_ANSWERED} "
        f"AND {mark} = ? ORDER BY time DESC LIMIT {MOST_ROWS}",
        [*first_values, *values, *mark_values, text(pairs[1])],
    )
    again = {str(first): row for first, *row in reversed(rows)}  # one that failed may have been sent again
    column, needed = ("''", []) if query.label is None else source.field(f"label.{query.label}")
    left = iter(again)
    while ids := [*islice(left, _BATCH)]:
        answers = cursor.rows(
            f"SELECT id, {column} AS label, {_COLUMNS} FROM exchanges WHERE id IN ({places(len(ids))}) AND {_ANSWERED}",
            [*needed, *ids],
        )
        known = {row[0]: row for row in answers}
        for id in ids:
            a, b = (None if row is None else _facts(query, row) for row in (known.get(id), again[id]))
            if a is not None and b is not None:
                yield a[1], b[1]


def _in_time(cursor: Cursor, query: CompareQuery) -> tuple[RowSource, str, list[Any]]:
    source = RowSource(cursor.dialect, "time >= ? AND time < ?", [to_micros(query.start), to_micros(query.end)])
    where, values = source.matching(query.filters)
    return source, where, [*values]


def _facts(query: CompareQuery, row: Sequence[Any]) -> tuple[str, _Facts] | None:
    """The target that was asked first, and the facts of an exchange; None if its client left. `row` has the id, the
    label's value and _COLUMNS.
    """
    id, label, operation, tokens, outcome, error, complete, cost, took, tries, traits, target = row
    if error in ("client_left", "abandoned"):
        return None
    failures, known = (msgspec.json.decode(each) if isinstance(each, str) else each for each in (tries, traits))
    served = outcome == "ok" and not failures
    whole = bool(served and complete)
    bad = {"failed": bool(failures) or outcome == "error", "cut off": served and not complete}
    size = next((name for most, name in _SIZES if tokens < most), _LONG)
    names = [f"operation {operation}", size, *([f"{query.label} {label}"] if label else [])]
    calls = None
    if known is not None and whole:
        calls, refused = known.get("calls"), known.get("refused", False)
        names.append("without tools" if calls is None else "with tools")
        bad["refused"] = refused
        if known.get("malformed") is not None:
            bad["malformed"] = known["malformed"]
        if calls is not None and not refused:
            bad["without a call"] = not calls
    facts = _Facts(id, names, bad, took if whole else None, cost if whole else None, calls)
    return failures[0]["target"] if failures else target, facts


def _tool(call: str) -> str:
    """The tool's name of a call in `Traits.calls`."""
    return call.rpartition(" ")[0]


def _shown(found: _Class, error: float) -> dict[str, Any]:
    measures = []
    for name, counts, margin in found.measures():
        low, high = interval(counts, error)
        measures.append(
            {
                "name": name,
                "bad_a": found.a.bad[name],
                "of_a": found.a.of[name],
                "bad_b": found.b.bad[name],
                "of_b": found.b.of[name],
                "low": round(low, 6),
                "high": round(high, 6),
                "margin": margin,
                "state": (now := state(counts, margin, error)),
                "more": missing(counts, margin, error) if now == "open" else 0,
                "examples": [*found.b.examples[name]],
            }
        )
        if isinstance(counts, Pairs):
            measures[-1]["pairs"] = {"only_a": counts.wins, "only_b": counts.losses, "alike": counts.ties}
    shown = {"name": found.name, "a": _distributions(found.a), "b": _distributions(found.b), "measures": measures}
    if found.paired is not None and found.paired.with_tools:
        names = ("with_tools", "same_tools", "same_calls")
        shown["calls"] = {name: getattr(found.paired, name) for name in names}
    return shown


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
    answers = shown[0]["b"]["exchanges"]
    left = [
        measure["more"]
        for measure in shown[0]["measures"]
        if measure["state"] == "open" and measure["of_b"] >= _RARE * answers
    ]
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
