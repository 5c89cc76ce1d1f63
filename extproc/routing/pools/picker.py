"""The choice of an endpoint; see the docstring of `pools`."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from extproc.routing.pools import scorers
from extproc.routing.pools.endpoint import Endpoint, Full
from extproc.routing.pools.prefixes import PrefixIndex

_MASK = (1 << 30) - 1  # CPython multiplies whole numbers of up to 30 bits in half the time of larger ones
_MIX = 0x278DDE6D  # odd constant of the golden ratio: spreads the bits of a product
_NO_HOLDERS: Mapping[str, tuple[int, float]] = {}


@dataclass(slots=True)
class Facts:
    """Facts of one request that the scorers read. `now` is on the clock of the endpoints' reports."""

    now: float
    blocks: Sequence[int] = ()  # see `prefixes.chain`
    digest: int = 0  # the conversation's stable beginning, hashed alike in all processes; 0: none
    adapter: str = ""  # LoRA adapter that the request names
    session: str = ""  # address of the endpoint that served the session before
    held: Mapping[str, tuple[int, float]] = field(default_factory=dict)  # written by `choose`, see `PrefixIndex.find`


class Scorer(Protocol):
    """A module of `scorers`."""

    def score(self, endpoint: Endpoint, facts: Facts, /) -> float:
        """0 to 1; 1 is best."""
        ...

    def why(self, endpoint: Endpoint, facts: Facts, /) -> str:
        """The fact behind the score, for people: `3 waiting`."""
        ...


@cache
def known_scorers() -> Mapping[str, Scorer]:
    """All scorers, by the names of their modules."""
    names = [module.name for module in pkgutil.iter_modules(scorers.__path__)]
    return {name: importlib.import_module(f"{scorers.__name__}.{name}") for name in names}


def _drawn(below: int) -> int:
    """A random number from 0 to below `below`, in half of the time of `random.randrange`."""
    return int(random.random() * below)  # noqa: S311 - no secret


@dataclass(slots=True)
class Choice:
    """An endpoint and its score from 0 to 1. Not frozen, because that would triple the time to make one."""

    endpoint: Endpoint
    score: float
    full: bool


class Picker:
    """Chooses among endpoints by weighted scores. `weights` are by the scorers' names; `index` is shared with those who
    note served prompts in it. `draw` gives a random number from 0 to below its argument.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        full: Full | None = None,
        index: PrefixIndex | None = None,
        draw: Callable[[int], int] = _drawn,
    ) -> None:
        known = known_scorers()
        self._scorers = [(name, known[name], weight) for name, weight in weights.items() if weight]
        self._scores = [(scorer.score, weight) for _, scorer, weight in self._scorers]
        self._total = sum(weight for _, _, weight in self._scorers) or 1.0
        self.full = full or Full()
        self.index = PrefixIndex() if index is None else index  # an empty one is false
        self._draw = draw

    def choose(self, endpoints: Sequence[Endpoint], facts: Facts, count: int = 3) -> Sequence[Choice]:
        """Up to `count` endpoints in the order to try, each once. Empty when none may get requests; endpoints that rest
        after failures are used only when all rest.
        """
        now = facts.now
        ready = [each for each in endpoints if not each.leaving and each.rests_until <= now]
        ready = ready or [each for each in endpoints if not each.leaving]
        if not ready:
            return ()
        facts.held = self.index.find(facts.blocks, now) if facts.blocks else _NO_HOLDERS
        found = self._candidates(ready, facts, count)
        found.sort(key=lambda choice: (choice.full, -choice.score))
        return found[:count]

    def explain(self, endpoint: Endpoint, facts: Facts) -> str:
        """The fact behind each score of an endpoint: `queue 1.00 (0 waiting), prefix 0.80 (12 of 15 blocks)`."""
        parts = [
            f"{name} {scorer.score(endpoint, facts):.2f} ({scorer.why(endpoint, facts)})"
            for name, scorer, _ in self._scorers
        ]
        return ", ".join(parts)

    def _candidates(self, ready: Sequence[Endpoint], facts: Facts, count: int) -> list[Choice]:
        """Scored candidates: holders of the prefix, the digest's endpoint, two random ones, and further random ones up
        to `count`.
        """
        if len(ready) <= count + 1:
            at = self._draw(len(ready))  # of equal endpoints another one is first each time
            return [self._scored(each, facts) for each in (*ready[at:], *ready[:at])]
        named = {facts.session, *facts.held}
        found = [each for each in ready if each.address in named] if facts.session or facts.held else []
        if facts.digest:
            digest = facts.digest & _MASK
            lots = [((each.seed ^ digest) * _MIX) & _MASK for each in ready]
            found.append(ready[lots.index(max(lots))])
        room = len(found) + 2
        draws = 0
        while len(found) < max(room, count) and draws < 4 * count:
            found.append(ready[self._draw(len(ready))])
            draws += 1
        scored = [self._scored(each, facts) for each in dict.fromkeys(found)]
        if all(choice.full for choice in scored):  # another endpoint may have room
            with_room = [each for each in ready if not each.full(self.full)]
            scored += [self._scored(each, facts) for each in self._some(with_room)]
        return scored

    def _some(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Two endpoints drawn at random, or all of two."""
        if len(endpoints) <= 2:
            return endpoints
        first = self._draw(len(endpoints))
        return endpoints[first], endpoints[(first + 1 + self._draw(len(endpoints) - 1)) % len(endpoints)]

    def _scored(self, endpoint: Endpoint, facts: Facts) -> Choice:
        score = sum([weight * score(endpoint, facts) for score, weight in self._scores]) / self._total
        return Choice(endpoint, score, endpoint.full(self.full))
