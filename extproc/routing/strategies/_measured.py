"""Strategies that give each candidate a number."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange


class Measured:
    """Orders candidates by a number, the smallest first. Candidates whose numbers are within `tie` of the smallest, as
    a share of it, are alike: a further strategy orders them.
    """

    tie = 0.1

    def value(self, choice: Candidate, exchange: Exchange) -> float:
        """The candidate's number for this request: not negative, infinite if it is unknown."""
        raise NotImplementedError

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:
        return sorted(choices, key=lambda choice: self.value(choice, exchange))

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        """See `Strategy.why`."""
        raise NotImplementedError

    def alike(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Sequence[Candidate]]:
        """The candidates in groups of equal rank, the smallest numbers first, each in the order of `choices`."""
        groups: list[list[int]] = []
        most = -1.0
        for value, place in sorted((self.value(choice, exchange), at) for at, choice in enumerate(choices)):
            if value > most:
                most = value * (1 + self.tie)
                groups.append([])
            groups[-1].append(place)
        return [[choices[place] for place in sorted(group)] for group in groups]
