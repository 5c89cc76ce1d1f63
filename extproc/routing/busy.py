"""Requests under way at each deployment, from the tries that have ended."""

from __future__ import annotations

import math

_WINDOW = 60.0  # seconds in which a try loses most (1 - 1/e) of its weight
_MOST = 2000  # most deployments


class Busy:
    """Time that tries took, by deployment. By Little's law it is the mean number of requests under way, without a count
    that a lost report would leave wrong. Times are in seconds since the epoch.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}  # seconds of tries, faded, and the time of the latest

    def add(self, deployment: str, seconds: float, now: float) -> None:
        """Note a try that ended now."""
        self._sums[deployment] = self._faded(self._sums.pop(deployment, (0.0, now)), now) + seconds, now
        if len(self._sums) > _MOST:
            del self._sums[next(iter(self._sums))]

    def mean(self, deployment: str, now: float) -> float:
        """The mean number of requests under way."""
        found = self._sums.get(deployment)
        return 0.0 if found is None else self._faded(found, now) / _WINDOW

    def latest(self, most: int, now: float) -> dict[str, float]:
        """`mean` of the latest deployments, for other processes."""
        means = {deployment: self.mean(deployment, now) for deployment in list(self._sums)[-most:]}
        return {deployment: mean for deployment, mean in means.items() if mean > 0.001}

    @staticmethod
    def _faded(found: tuple[float, float], now: float) -> float:
        seconds, at = found
        return seconds * math.exp(-max(0.0, now - at) / _WINDOW)
