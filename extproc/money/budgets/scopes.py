"""Keeps the number of a budget's counts within `max_scopes`: clients choose labels freely, and a store has limited
room.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from extproc.money.budgets.budget import Budget

_MONTH = 31 * 86400.0


class Scopes:
    """The counts of one budget that this process has seen.

    A request beyond `max_scopes` shares a count with others of the same consumer, team or key (`budget.shared`), so
    that no client fills the counts of others. If shared counts are too many, too, all such requests share one
    (`budget.overflow`).
    """

    def __init__(self, budget: Budget, now: Callable[[], float] = time.time) -> None:
        self._budget = budget
        self._now = now
        self._bounded = any(name != "team" for name in budget.per)
        self._own: dict[str, float] = {}  # count -> time of its last use, the least recently used first
        self._shared: dict[str, float] = {}
        window = budget.window
        self._idle = budget.settings.idle_ttl if window == 0 else float(window) if window > 0 else -window * _MONTH

    def admit(self, scope: str) -> str:
        """`scope`, or the shared count of requests beyond `max_scopes`."""
        if not self._bounded or self._admits(self._own, scope):
            return scope
        shared = self._budget.shared(scope)
        return shared if shared != scope and self._admits(self._shared, shared) else self._budget.overflow

    def _admits(self, seen: dict[str, float], scope: str) -> bool:
        now = self._now()
        if seen.pop(scope, None) is None and len(seen) >= self._budget.settings.max_scopes:
            oldest = next(iter(seen))
            if now - seen[oldest] <= self._idle:
                return False
            del seen[oldest]
        seen[scope] = now
        return True
