"""Follows the fill levels of budgets: the gauge, `x-ai-budget`, and alerts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extproc.money.budgets.budget import Budget, Claim
from extproc.stores import Denied, Hold, Level, window_at

_FOLLOWED = 16  # most counts of a budget that are remembered: the fullest
_LOOK = 1.0  # seconds between two looks at counts of one budget that had no room
_MOST_TOLD = 100_000
"""Most counts whose alerts this process remembers; the store remembers all (see `alerts`)."""


@dataclass(slots=True, frozen=True)
class Alert:
    """A count reached one of its budget's `alert_at`. Amounts are of the budget's unit, nano-USD for money."""

    budget: Budget
    scope: str
    threshold: float
    used: float  # share of the limit
    window: int  # number of the window
    ends: float | None  # seconds since the epoch


class _Counts:
    """The amounts charged in the fullest counts of a budget, in one window. The window's end is in epoch seconds
    (infinite: never).
    """

    __slots__ = ("charged", "ends")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.charged: dict[str, tuple[int, Claim]] = {}  # scope -> amount charged, latest claim


class LevelWatch:
    """The fill levels of one configuration. `used` gets each budget in use, with a function for any thread: the share
    of its limit charged in its fullest count. `room` gives the amount granted to a claim's count beyond that limit.
    """

    def __init__(
        self,
        used: Callable[[str, Callable[[], float]], None],
        tell: Callable[[Alert], None],
        room: Callable[[Claim], int],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._used = used
        self._tell = tell
        self._room = room
        self._now = now
        self._counts: dict[str, _Counts] = {}  # budget -> its fullest counts
        self._looked: dict[str, float] = {}  # budget -> time of the latest look at a count without room
        self._told: dict[str, tuple[int, float]] = {}  # count -> number of its window, highest share reported

    def granted(self, claims: Sequence[Claim], levels: Sequence[Level]) -> str:
        """Note the levels of a reservation. Returns the fullest budget beyond one of its `alert_at`, for the client; or
        nothing.
        """
        alert, most, now = "", 0.0, self._now()
        for claim, level in zip(claims, levels, strict=True):
            if claim.approved is not None:
                continue
            budget = claim.budget
            share = level.settled / budget.limit if budget.limit else 1.0
            self._follow(claim, level, now)
            if budget.alert_at and share >= budget.alert_at[-1]:
                self._reached(budget, claim.scope, share)
                if share > most:
                    alert, most = f"{budget.name}; used={share:.2f}", share
        return alert

    def denied(self, claim: Claim, hold: Hold, denied: Denied) -> None:
        """Note a count that had no room for the claim."""
        budget = claim.budget
        if budget.alert_at and budget.limit:
            self._reached(budget, claim.scope, (hold.limit - denied.remaining) / budget.limit)

    def looks(self, claim: Claim) -> bool:
        """True if the level of a count without room has to be read: only charges matter, and a denial does not show
        them. The counts of one budget are read once a second.
        """
        name, now = claim.budget.name, self._now()
        if claim.budget.is_slot or now - self._looked.get(name, -math.inf) < _LOOK:
            return False
        self._looked[name] = now
        return True

    def full(self, claim: Claim, level: Level) -> None:
        """Note the level of a count that had no room."""
        self._follow(claim, level, self._now())

    def _follow(self, claim: Claim, level: Level, now: float) -> None:
        name = claim.budget.name
        counts = self._counts.get(name)
        if counts is None or now >= counts.ends:
            if counts is None:
                self._used(name, lambda: self._share(name))
            counts = _Counts(math.inf if level.resets_in is None else now + level.resets_in)
            self._counts[name] = counts
        charged = counts.charged
        charged[claim.scope] = level.settled, claim
        if len(charged) > _FOLLOWED:
            del charged[min(charged, key=lambda scope: charged[scope][0])]

    def _share(self, name: str) -> float:
        counts = self._counts.get(name)
        if counts is None or self._now() >= counts.ends:
            return 0.0
        limits = [(settled, claim.budget.limit + self._room(claim)) for settled, claim in list(counts.charged.values())]
        return max(settled / limit if limit else 1.0 for settled, limit in limits)

    def _reached(self, budget: Budget, scope: str, share: float) -> None:
        """Report the highest share reached, once for each count and window."""
        threshold = next((at for at in budget.alert_at if share >= at), None)
        if threshold is None or budget.settings.alert_webhook is None:
            return
        window, ends = window_at(self._now(), budget.window)
        if self._told.get(scope, (window, 0.0)) >= (window, threshold):
            return
        self._told[scope] = window, threshold
        if len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._tell(Alert(budget, scope, threshold, share, window, ends))
