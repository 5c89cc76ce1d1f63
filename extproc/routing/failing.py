"""Shares of failing tries: what speaks against a deployment for everybody, and what for one consumer alone.

As in `streaks`, a request can be the reason of a failure. So a consumer's failures count for that consumer. They count
for everybody only beside failures of others since the latest success, each consumer for half of them at most.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from extproc.routing.streaks import MAX_CONSUMERS

_MOST = 2000  # kinds of requests, and consumers' shares


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
        """Take in a failure. True when it counts for everybody."""
        share = self.share(kind, consumer, now)
        self._put(kind, consumer, share + self._step * (1 - share), now)
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
        """Take in a success."""
        self._since.pop(kind, None)
        if share := self.share(kind, consumer, now):
            self._put(kind, consumer, share - self._step * share, now)

    def share(self, kind: Hashable, consumer: str, now: float) -> float:
        """The share of the consumer's own tries that fail, 0 to 1. It fades with age."""
        found = self._shares.get((kind, consumer))
        return 0.0 if found is None else found[0] * math.exp(-max(0.0, now - found[1]) / self._forget)

    def _put(self, kind: Hashable, consumer: str, share: float, now: float) -> None:
        self._shares.pop((kind, consumer), None)
        self._shares[kind, consumer] = share, now
        if len(self._shares) > _MOST:
            del self._shares[next(iter(self._shares))]
