"""Follows the fill levels of budgets: the gauge, `x-ai-budget`, and alerts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extproc.budgets.budget import Budget, Claim
from extproc.stores import Denied, Hold, Level, window_at

_NOTHING = -math.inf, -1.0
_MOST_TOLD = 100_000
"""Most counts whose alerts are remembered here; the store remembers all (see `alerts`)."""


@dataclass(slots=True, frozen=True)
class Alert:
    """A count reached one of its budget's `alert_at`. Amounts are of the budget's unit, nano-USD for money."""

    budget: Budget
    scope: str
    threshold: float
    used: float  # share of the limit
    window: int  # number of the window
    ends: float | None  # seconds since the epoch


class Watch:
    """The fill levels of one configuration. `used` gets a budget, the share spent in its fullest count, and the end of
    its window, in seconds since the epoch (infinite: never).
    """

    def __init__(
        self,
        used: Callable[[str, float, float], None],
        tell: Callable[[Alert], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._used = used
        self._tell = tell
        self._now = now
        self._fullest: dict[str, tuple[float, float]] = {}  # budget -> end of its window, that share
        self._told: dict[str, tuple[int, float]] = {}  # count -> number of its window, highest share reported

    def granted(self, claims: Sequence[Claim], levels: Sequence[Level]) -> str:
        """Take in the levels of a reservation. The fullest budget beyond one of its `alert_at`, for the client; or
        nothing.
        """
        alert, most, now = "", 0.0, self._now()
        for claim, level in zip(claims, levels, strict=True):
            budget = claim.budget
            share = level.settled / budget.limit if budget.limit else 1.0
            ends, fullest = self._fullest.get(budget.name, _NOTHING)
            if share > fullest or now >= ends:
                name = budget.name
                ends = math.inf if level.resets_in is None else now + level.resets_in
                self._fullest[name] = ends, share
                self._used(name, share, ends)
            if budget.alert_at and share >= budget.alert_at[-1]:
                self._reached(budget, claim.scope, share)
                if share > most:
                    alert, most = f"{budget.name}; used={share:.2f}", share
        return alert

    def denied(self, claim: Claim, hold: Hold, denied: Denied) -> None:
        """Take in that a count had no room for the claim."""
        budget = claim.budget
        if budget.alert_at and budget.limit:
            self._reached(budget, claim.scope, (hold.limit - denied.remaining) / budget.limit)

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
