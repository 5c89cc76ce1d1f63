"""The fastest first: time to the first byte and speed of each target, for requests of that size.

Unmeasured targets count as fast until they are measured, by one request at a time. Findings fade over about ten
minutes. One request in `_EXPLORE` goes to another target than the best, so that a slow one can recover.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from extproc.routing.history import History
from extproc.routing.strategies import StickySettings
from extproc.routing.strategies._measured import Measured
from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange

_EXPLORE = 32


class Latency(Measured):
    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:  # noqa: ARG002
        self._history = history

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:
        ordered = list(super().order(choices, exchange))
        if random.randrange(_EXPLORE) == 0:  # noqa: S311 - no secret
            ordered.insert(0, ordered.pop(random.randrange(1, len(ordered))))  # noqa: S311
        return ordered

    def value(self, choice: Candidate, exchange: Exchange) -> float:
        return self._expected(choice, exchange) or 0.0

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        expected = self._expected(choice, exchange)
        if expected is None:
            return "not measured yet"
        return "being measured" if expected == math.inf else f"about {expected:.3f} s expected"

    def _expected(self, choice: Candidate, exchange: Exchange) -> float | None:
        deployment, streamed, consumer = (
            choice.targets[0].deployment,
            exchange.request.ask.stream,
            exchange.consumer.name,
        )
        return self._history.expected(deployment, len(exchange.request.body), streamed=streamed, consumer=consumer)


STRATEGY = Latency
