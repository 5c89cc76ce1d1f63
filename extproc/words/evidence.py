"""Evidence that one arm does worse than another, for readers that look as often as they like.

`Arms` counts a bad outcome in answers of two arms that served different requests; `Pairs` in answers of both arms to
the same requests. `interval` bounds the difference, the rate of arm B less the rate of arm A. All bounds of one series
together, after each answer, miss the true difference with a probability of at most `error`: a look costs nothing.

Each bound inverts a test by an e-process: the likelihood under a mixture of all rates (Jeffreys' prior), divided by the
largest likelihood at a given difference. Under that difference the quotient stays below 1/error with probability
1 - error. Sources: Ville's inequality; Wasserman, Ramdas and Balakrishnan, Universal inference, PNAS 2020; Robbins,
Statistical methods related to the law of the iterated logarithm, 1970.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

ERROR = 0.05
"""Probability that a comparison is wrong in any of its bounds, at any time."""
_STEPS = 40
_MOST_TIMES = 1024.0  # most times the answers so far that `missing` thinks ahead
_TINY = 1e-12

State = Literal["worse", "safe", "open"]


class Counted(Protocol):
    """Counts of a bad outcome in two arms."""

    @property
    def answers(self) -> float: ...

    @property
    def difference(self) -> float:
        """Rate of B less rate of A, as counted."""
        ...

    def against(self, difference: float) -> float:
        """Logarithm of the evidence against a difference."""
        ...

    def times(self, factor: float) -> Counted:
        """The same rates in more answers."""
        ...


@dataclass(slots=True, frozen=True)
class Arms:
    """`a` and `b` are bad answers among `answers_a` and `answers_b`."""

    a: float
    answers_a: float
    b: float
    answers_b: float

    @property
    def answers(self) -> float:
        return self.answers_b

    @property
    def difference(self) -> float:
        return self.b / max(1, self.answers_b) - self.a / max(1, self.answers_a)

    def against(self, difference: float) -> float:
        good_a, good_b = self.answers_a - self.a, self.answers_b - self.b
        low, high = max(0.0, -difference), min(1.0, 1.0 - difference)

        def slope(rate: float) -> float:
            other = rate + difference
            return _over(self.a, rate) - _over(good_a, 1 - rate) + _over(self.b, other) - _over(good_b, 1 - other)

        rate = _top(slope, low, high)
        likely = _log(self.a, rate) + _log(good_a, 1 - rate)
        likely += _log(self.b, rate + difference) + _log(good_b, 1 - rate - difference)
        return _mixture(self.a, good_a) + _mixture(self.b, good_b) - likely

    def times(self, factor: float) -> Arms:
        return Arms(self.a * factor, self.answers_a * factor, self.b * factor, self.answers_b * factor)


@dataclass(slots=True, frozen=True)
class Pairs:
    """`losses`: only B is bad. `wins`: only A is bad. `ties`: both or neither."""

    wins: float
    losses: float
    ties: float

    @property
    def answers(self) -> float:
        return self.wins + self.losses + self.ties

    @property
    def difference(self) -> float:
        return (self.losses - self.wins) / max(1, self.answers)

    def against(self, difference: float) -> float:
        low, high = max(0.0, -difference), (1.0 - difference) / 2

        def slope(rate: float) -> float:
            ties = _over(self.ties, 1 - 2 * rate - difference)
            return _over(self.wins, rate) + _over(self.losses, rate + difference) - 2 * ties

        rate = _top(slope, low, high)
        likely = _log(self.wins, rate) + _log(self.losses, rate + difference)
        return _mixture(self.wins, self.losses, self.ties) - likely - _log(self.ties, 1 - 2 * rate - difference)

    def times(self, factor: float) -> Pairs:
        return Pairs(self.wins * factor, self.losses * factor, self.ties * factor)


def interval(counts: Counted, error: float) -> tuple[float, float]:
    """The lowest and the highest difference that the counts do not contradict."""
    enough, seen = math.log(1 / error), counts.difference

    def bound(end: float) -> float:
        inside, outside = seen, end
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            if counts.against(middle) < enough:
                inside = middle
            else:
                outside = middle
        return outside

    return bound(-1.0), bound(1.0)


def state(counts: Counted, margin: float, error: float) -> State:
    """`safe`: B is worse by `margin` at most. `worse`: B is worse, and perhaps by more than `margin`."""
    enough, seen = math.log(1 / error), counts.difference
    if seen < margin and counts.against(margin) >= enough:
        return "safe"
    return "worse" if seen > 0 and counts.against(0.0) >= enough else "open"


def missing(counts: Counted, margin: float, error: float) -> int | None:
    """Further answers of B until the state is no longer open, if the rates stay. None: more than can be foretold."""
    if counts.answers < 1:
        return None
    low, high = 1.0, 2.0
    while state(counts.times(high), margin, error) == "open":
        low, high = high, high * 2
        if high > _MOST_TIMES:
            return None
    for _ in range(8):
        middle = (low + high) / 2
        if state(counts.times(middle), margin, error) == "open":
            low = middle
        else:
            high = middle
    return math.ceil(counts.answers * (high - 1))


def _over(count: float, rate: float) -> float:
    return count / max(rate, _TINY) if count else 0.0


def _log(count: float, rate: float) -> float:
    return count * math.log(max(rate, _TINY)) if count else 0.0


def _mixture(*counts: float) -> float:
    """Logarithm of the likelihood under Jeffreys' prior, a Dirichlet distribution with all parameters 1/2."""
    whole, half = sum(counts) + len(counts) / 2, len(counts) / 2
    return sum(math.lgamma(count + 0.5) - math.lgamma(0.5) for count in counts) + math.lgamma(half) - math.lgamma(whole)


def _top(slope: Callable[[float], float], low: float, high: float) -> float:
    """The place of the maximum of a concave function, by its derivative."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if slope(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
