"""Usual lengths of answers: a running 95th percentile of output tokens for each deployment, of one process."""

from __future__ import annotations

from collections import deque

_LEAST_SAMPLES = 20  # fewer samples give no 95th percentile
_KEPT = 200
_EVERY = 10  # samples between two updates of the percentile
_MOST_PLACES = 2000
_AMOUNTS = 32  # most samples kept of one amount


class Expected:
    """Usual amounts by deployment: `learn` adds an answer, `output` gives the usual length before the next request."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[int]] = {}
        self._known: dict[str, int] = {}
        self._since: dict[str, int] = {}
        self._amounts: dict[tuple[str, str, int], deque[int]] = {}

    def output(self, deployment: str) -> int | None:
        """Tokens that 95 of 100 answers of a deployment do not exceed; None until it has given enough answers."""
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

    def usual(self, amount: str, deployment: str, asked: int = 0) -> int | None:
        """A usual amount that a client who leaves does not see: three of four answers of the deployment stay below it.
        None until an answer showed it. Amounts are "thought": tokens of thinking without a trace, for requests that ask
        for `asked`; "shown" and "sealed": thousandths of a token of thinking for each token of that trace; "read":
        tokens of input outside the body.
        """
        samples = self._amounts.get((amount, deployment, asked))
        return sorted(samples)[len(samples) * 3 // 4] if samples else None

    def learn_usual(self, amount: str, deployment: str, asked: int, size: int) -> None:
        key = amount, deployment, asked
        samples = self._amounts.get(key)
        if samples is None:
            if len(self._amounts) >= _MOST_PLACES:
                del self._amounts[next(iter(self._amounts))]
            samples = self._amounts[key] = deque(maxlen=_AMOUNTS)
        samples.append(size)

    def _forget(self, deployment: str) -> None:
        for known in (self._samples, self._known, self._since):
            known.pop(deployment, None)
