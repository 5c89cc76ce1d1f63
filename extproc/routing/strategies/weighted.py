"""Weights: canaries and splits. Requests that stick together choose alike, in every replica and without a store.

Weighted rendezvous hashing gives every replica the same choice.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Sequence

from extproc.access.auth.facts import fact
from extproc.routing.history import History
from extproc.routing.prefix import prefix
from extproc.routing.strategies import StickySettings
from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange

_GOLDEN = (math.sqrt(5) - 1) / 2


class Weighted:
    """The first target is chosen by weight, and so is each next target after a failure; targets of weight 0
    come last.
    """

    def __init__(
        self,
        name: str,
        sticky: StickySettings | None,
        history: History,  # noqa: ARG002
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._sticky = sticky
        self._clock = clock
        self._point = random.random()  # noqa: S311 - no secret

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:
        seed = self._seed(exchange)
        if seed is None:
            return self._spread(choices)
        return sorted(choices, key=lambda choice: _lot(seed, choice), reverse=True)

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        stuck = f", sticky by {self._sticky.by}" if self._sticky and self._seed(exchange) is not None else ""
        return f"weight {choice.weight}{stuck}"

    def _spread(self, choices: Sequence[Candidate]) -> Sequence[Candidate]:
        """The next point of a sequence that fills the range evenly: after n requests the error of each share is about
        1/n; with random points it would be 1/sqrt(n). Source: the additive recurrence of the golden ratio.
        """
        self._point = (self._point + _GOLDEN) % 1.0
        left, ordered = list(choices), []
        point = self._point
        while len(left) > 1:
            total = sum(choice.weight for choice in left)
            if not total:
                break
            at = point * total
            index = 0
            while at >= left[index].weight:
                at -= left[index].weight
                index += 1
            chosen = left.pop(index)
            ordered.append(chosen)
            point = at / chosen.weight  # the remainder is distributed as evenly as the number was
        return ordered + left

    def _seed(self, exchange: Exchange) -> str | None:
        """The common value of requests that stick together; None for a request that does not stick."""
        sticky = self._sticky
        if sticky is None:
            return None
        if sticky.by == "prefix":
            value = prefix(exchange).hex()
        else:
            value = exchange.money.key if sticky.by == "key" else fact(sticky.by, exchange)
        if not value:
            return None
        if sticky.ttl is None:
            return f"{self._name}\0{value}"
        # The periods of sessions begin at different times, so that not all sessions choose anew at once.
        period = int(self._clock() / sticky.ttl + _uniform(value))
        return f"{self._name}\0{value}\0{period}"


def _lot(seed: str, choice: Candidate) -> float:
    """Weighted rendezvous hashing: the highest lot wins with a chance in proportion to the weight, and a change of one
    weight moves only those sessions that it must. The lot depends on the place in the settings, because the first
    target of an inner virtual model may change with every request.
    """
    if not choice.weight:
        return -math.inf
    return choice.weight / -math.log(_uniform(f"{seed}\0{choice.index}"))


def _uniform(text: str) -> float:
    """A number above 0 and below 1 that only depends on `text`."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return ((int.from_bytes(digest) >> 12) + 0.5) / 2**52  # 52 bits, because 53 would round up to 1


STRATEGY = Weighted
