"""The best first, by `quality` of the targets: numbers that an operator or an evaluation gives, by class of
requests.
"""

from __future__ import annotations

from extproc.routing.history import History
from extproc.routing.matching import mismatch
from extproc.routing.strategies import StickySettings
from extproc.routing.strategies._measured import Measured
from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange


class Quality(Measured):
    tie = 0.0  # only equal numbers are alike

    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:
        pass

    def value(self, choice: Candidate, exchange: Exchange) -> float:
        return 1.0 - _quality(choice, exchange)

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        return f"quality {_quality(choice, exchange):g}"


def _quality(choice: Candidate, exchange: Exchange) -> float:
    """The number of the first class that the request is of; 0 without one."""
    return next((value for match, value in choice.quality if mismatch(match, exchange) is None), 0.0)


STRATEGY = Quality
