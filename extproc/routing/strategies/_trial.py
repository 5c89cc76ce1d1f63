"""The order of a virtual model whose canary may have stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extproc.words.chain import Candidate, Strategy
from extproc.words.exchange import Exchange


class OnTrial:
    """Orders candidates by `inner`. Once `stopped` gives a reason, the target on trial comes last."""

    def __init__(self, inner: Strategy, target: str, stopped: Callable[[], str]) -> None:
        self._inner = inner
        self._target = target
        self._stopped = stopped

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:
        if not self._stopped():
            return self._inner.order(choices, exchange)
        going = [choice for choice in choices if choice.targets[0].name != self._target]
        ended = [choice for choice in choices if choice.targets[0].name == self._target]
        return [*(self._inner.order(going, exchange) if len(going) > 1 else going), *ended]

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        reason = self._stopped() if choice.targets[0].name == self._target else ""
        why = self._inner.why(choice, exchange)
        return f"its trial has stopped: {reason}, {why}" if reason else why
