"""Several strategies in a row, and objectives before them."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.routing.objectives import Objectives
from extproc.routing.strategies._measured import Measured
from extproc.words.chain import Candidate, Strategy
from extproc.words.exchange import Exchange


class Several:
    """Candidates that meet the objectives first. In both parts the first of `measured` orders, each next one orders
    candidates that are alike for the ones before it, and `last` orders those that are alike for all.
    """

    def __init__(self, measured: Sequence[Measured], last: Strategy, objectives: Objectives | None) -> None:
        self._measured = measured
        self._last = last
        self._objectives = objectives

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:
        if self._objectives is None:
            return self._ordered(choices, self._measured, exchange)
        missed = [bool(self._objectives.missed(choice.targets[0], exchange)) for choice in choices]
        meets = [choice for choice, misses in zip(choices, missed, strict=True) if not misses]
        rest = [choice for choice, misses in zip(choices, missed, strict=True) if misses]
        return [choice for part in (meets, rest) for choice in self._ordered(part, self._measured, exchange)]

    def _ordered(
        self, choices: Sequence[Candidate], measured: Sequence[Measured], exchange: Exchange
    ) -> Sequence[Candidate]:
        if len(choices) < 2:
            return choices
        if not measured:
            return self._last.order(choices, exchange)
        groups = measured[0].alike(choices, exchange)
        return [choice for group in groups for choice in self._ordered(group, measured[1:], exchange)]

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        missed = self._objectives.missed(choice.targets[0], exchange) if self._objectives is not None else ()
        return ", ".join([*missed, *(each.why(choice, exchange) for each in (*self._measured, self._last))])
