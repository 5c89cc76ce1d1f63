"""The order of the settings."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.routing.history import History
from extproc.routing.strategies import StickySettings
from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange


class Fallback:
    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:
        pass

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:  # noqa: ARG002
        return choices

    def why(self, choice: Candidate, exchange: Exchange) -> str:  # noqa: ARG002
        return f"place {choice.index + 1} in the settings"


STRATEGY = Fallback
