"""Shares of failing tries: of a deployment for all consumers, and of one consumer alone.

A request itself can be the reason of a failure, as in `streaks`. So a consumer's failures count for that consumer. They
count for all consumers only together with failures of other consumers since the latest success, and each consumer for
at most half of them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from extproc.routing.streaks import MAX_CONSUMERS

_MOST = 2000  # most kinds of requests, and most consumers' shares


class Failing:
    """The failures of one process. A `kind` of requests is any value that names deployment and form.

    `step` is the weight of one try, `forget` the seconds in which a share loses most of its weight.
    """

    def __init__(self, step: float, forget: float) -> None:
        self._step = step
        self._forget = forget
        self._since: dict[Hashable, dict[str, int]] = {}  # failures since the latest success, by kind and consumer
        self._shares: dict[tuple[Hashable, str], tuple[float, float]] = {}  # a consumer's share, and the time

    def failed(self, kind: Hashable, consumer: str, now: float) -> bool:
        """Note a failure. True when it counts for all consumers."""
        share = self.share(kind, consumer, now)
        self._set_share(kind, consumer, share + self._step * (1 - share), now)
        since = self._since.pop(kind, None) or {}
        self._since[kind] = since
        if len(self._since) > _MOST:
            del self._since[next(iter(self._since))]
        own = since.pop(consumer, 0) + 1
        others = sum(since.values())
        since[consumer] = own
        if len(since) > MAX_CONSUMERS:
            del since[next(iter(since))]
        return own <= others

    def succeeded(self, kind: Hashable, consumer: str, now: float) -> None:
        """Note a success."""
        self._since.pop(kind, None)
        if share := self.share(kind, consumer, now):
            self._set_share(kind, consumer, share - self._step * share, now)

    def share(self, kind: Hashable, consumer: str, now: float) -> float:
        """The share of the consumer's own tries that fail, 0 to 1. The share fades with age."""
        found = self._shares.get((kind, consumer))
        return 0.0 if found is None else found[0] * math.exp(-max(0.0, now - found[1]) / self._forget)

    def _set_share(self, kind: Hashable, consumer: str, share: float, now: float) -> None:
        self._shares.pop((kind, consumer), None)
        self._shares[kind, consumer] = share, now
        if len(self._shares) > _MOST:
            del self._shares[next(iter(self._shares))]
