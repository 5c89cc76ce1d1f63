"""Usual lengths of answers: a running 95th percentile of output tokens for each deployment, of one process."""

from __future__ import annotations

from collections import deque

_LEAST_SAMPLES = 20  # fewer give no 95th percentile
_KEPT = 200
_EVERY = 10  # samples between two updates of the percentile
_MOST_PLACES = 2000
_THOUGHTS = 32  # samples of thinking that are kept


class Expected:
    """`learn` from every answer, ask for `output` before the next."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[int]] = {}
        self._known: dict[str, int] = {}
        self._since: dict[str, int] = {}
        self._thoughts: dict[tuple[str, int], deque[int]] = {}

    def output(self, deployment: str) -> int | None:
        """Tokens that 95 of 100 answers there do not exceed; None until there were enough answers."""
        return self._known.get(deployment)

    def learn(self, deployment: str, output_tokens: int) -> None:
        samples = self._samples.get(deployment)
        if samples is None:
            if len(self._samples) >= _MOST_PLACES:
                self._forget(next(iter(self._samples)))
            samples = self._samples[deployment] = deque(maxlen=_KEPT)
        samples.append(output_tokens)
        self._since[deployment] = since = self._since.get(deployment, 0) + 1
        if since >= _EVERY and len(samples) >= _LEAST_SAMPLES:
            self._since[deployment] = 0
            self._known[deployment] = sorted(samples)[len(samples) * 95 // 100]

    def thought(self, deployment: str, asked: int) -> int | None:
        """Tokens that the model usually thinks without showing them, where `asked` are asked for; None until it did.
        Three of four answers do not pass it.
        """
        samples = self._thoughts.get((deployment, asked))
        return sorted(samples)[len(samples) * 3 // 4] if samples else None

    def learn_thought(self, deployment: str, asked: int, tokens: int) -> None:
        key = deployment, asked
        samples = self._thoughts.get(key)
        if samples is None:
            if len(self._thoughts) >= _MOST_PLACES:
                del self._thoughts[next(iter(self._thoughts))]
            samples = self._thoughts[key] = deque(maxlen=_THOUGHTS)
        samples.append(tokens)

    def _forget(self, deployment: str) -> None:
        for known in (self._samples, self._known, self._since):
            known.pop(deployment, None)
