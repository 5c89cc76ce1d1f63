"""The part of an exchange that the cache of answers writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from extproc.words.exchange import FeatureKey

Outcome = Literal["hit", "partial", "similar", "shadow", "similar_shadow", "miss", "refresh"]
"""Outcomes of a look into the cache. `partial`: a part of a batch is kept. `similar`: the answer to a question in
other words. `shadow`: an answer is there, and in shadow mode it is not used.
"""
HITS, SHADOWS = ("hit", "similar"), ("shadow", "similar_shadow")
"""Outcomes of requests that a kept answer served, or would have served."""


@dataclass(slots=True)
class Caching:
    """One exchange and the cache. `key` is a digest; no part of a request can be read from it."""

    key: bytes
    owner: str  # the consumer
    ttl: float  # seconds
    enforced: bool  # False: shadow mode
    most: int  # bytes of an answer that is kept
    outcome: Outcome = "miss"
    saved: int | None = 0  # nano-USD that the kept answer had cost; None: its price is unknown
    plain: bool = False  # True: an answer in any API, streamed or plain, is the same answer
    fill: bool = False  # True: the answer is to be kept
    flight: Any = None  # others wait for this answer
    pieces: list[bytes] | None = field(default_factory=list)  # the answer so far; None: it is too long
    size: int = 0  # bytes in `pieces`
    batch: Any = None  # `cache.batches.Batch` of a request that is kept by input
    asked: Any = None  # `cache.similar.finder.Question` where questions in other words are compared
    seeking: Any = None  # a task that looks for one while a provider answers, in shadow mode
    score: float | None = None  # the nearest question's in other words
    others: bool = False  # True: answers to questions in other words may be given
    misread: bool = False  # True: the client's header has a word that the cache does not know

    @property
    def is_hit(self) -> bool:
        return self.outcome in HITS


CACHING: FeatureKey[Caching] = FeatureKey("caching")
"""Written by LookUp, where the cache of answers takes part."""
