"""The sums of reports, as SQL over rows of `exchanges`, and the cubes that keep them added up by hour and by day.

A cube is a set of rollups: rows of sums for each combination of its fields in one unit of time. `rollups.py` makes
them, `usage.py` adds them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extproc.money.ledger.query import FIELDS

HOUR = 3_600_000_000  # microseconds
DAY = 24 * HOUR
LOW = (1 << 32) - 1

_FINE = tuple(1 << power for power in range(7))
_COARSE = tuple(125 << power for power in range(10))
BOUNDS = (*_FINE, *_COARSE)
"""Upper bounds of the histograms' parts in milliseconds, 1 to 64 and 125 to 64,000. One more part has no upper
bound.
"""


def _each(condition: str, value: str = "1") -> str:
    return f"sum(CASE WHEN {condition} THEN {value} ELSE 0 END)"


def _histogram(name: str, column: str) -> Mapping[str, str]:
    """SQL for a histogram of answers by their time. Refusals and failures are left out: their times say nothing about
    answers.
    """
    parts = zip((0, *BOUNDS), (*BOUNDS, 1 << 40), strict=True)
    return {
        f"{name}_{number}": _each(f"outcome = 'ok' AND {column} >= {low} AND {column} < {high}")
        for number, (low, high) in enumerate(parts)
    }


USAGE: Mapping[str, str] = {
    "requests": "count(*)",
    "refused": _each("outcome = 'refused'"),
    "errors": _each("outcome = 'error'"),
    "priced": "count(cost)",
    **{
        name: f"sum({name})"
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
    },
    "hits": _each("cache IN ('hit', 'similar')"),
    "saved": _each("cache IN ('hit', 'similar', 'partial')", "saved"),
    "shadow_hits": _each("cache IN ('shadow', 'similar_shadow')"),
    "would_save": _each("cache IN ('shadow', 'similar_shadow')", "saved"),
    "prompt_saved": "sum(prompt_saved)",
    "prompt_extra": "sum(prompt_extra)",
    # Money is summed in two halves, because SQLite's sums have 64 bits.
    "cost_low": f"coalesce(sum(cost & {LOW}), 0)",
    "cost_high": "coalesce(sum(cost >> 32), 0)",
}
LATENCY: Mapping[str, str] = {**_histogram("took", "duration_ms"), **_histogram("first", "first_token_ms")}
MEASURES: Mapping[str, str] = {**USAGE, **LATENCY}


@dataclass(slots=True, frozen=True)
class Cube:
    """Rollups of the rows of a unit of time (microseconds). `labelled`: also by the values of one label."""

    name: str
    unit: int
    fields: Sequence[str]
    labelled: bool = False
    most: int = 10_000  # most rollups of one unit; for a unit with more, reports read rows

    def named(self, label_key: str) -> str:
        """The cube's name in the database, for a label."""
        return f"{self.name}{label_key}" if self.labelled else self.name


HOURS = Cube("hour", HOUR, tuple(name for name in FIELDS if name not in ("consumer", "key")))
"""Hours without consumer and key: an hour has few rows of each, so sums by them would save nothing."""
DAYS = Cube("day", DAY, FIELDS, most=100_000)
VALUES = Cube("value:", DAY, (), labelled=True, most=20_000)
LABELS = Cube("label:", DAY, ("team", "model", "outcome"), labelled=True)

NAMES = "names"
"""Name of the unit that marks a day whose labels all have units in VALUES and LABELS."""
