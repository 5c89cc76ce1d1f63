"""The order of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extproc.exchange import Exchange
from extproc.strategies import Choice, StickySettings

if TYPE_CHECKING:
    from extproc.history import History


class Fallback:
    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:
        pass

    def order(self, choices: Sequence[Choice], exchange: Exchange) -> Sequence[Choice]:  # noqa: ARG002
        return choices

    def why(self, choice: Choice, exchange: Exchange) -> str:  # noqa: ARG002
        return f"place {choice.index + 1} in the settings"


STRATEGY = Fallback
