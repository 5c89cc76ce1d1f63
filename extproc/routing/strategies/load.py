"""The least busy first: requests under way at each target, in proportion to its weight.

The number of requests is the mean of about the last minute, over all processes that share a counters store.
"""

from __future__ import annotations

import math

from extproc.routing.history import History
from extproc.routing.strategies import StickySettings
from extproc.routing.strategies._measured import Measured
from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange


class Load(Measured):
    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:  # noqa: ARG002
        self._history = history

    def value(self, choice: Candidate, exchange: Exchange) -> float:  # noqa: ARG002
        return self._history.load(choice.targets[0].deployment) / choice.weight if choice.weight else math.inf

    def why(self, choice: Candidate, exchange: Exchange) -> str:  # noqa: ARG002
        return f"load {self._history.load(choice.targets[0].deployment):.1f}, weight {choice.weight}"


STRATEGY = Load
