"""The part of an exchange that the cache of answers writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from extproc.words.exchange import FeatureKey

Outcome = Literal["hit", "partial", "similar", "shadow", "similar_shadow", "miss", "refresh"]
"""Outcomes of a look into the cache. `partial`: a part of a batch is kept. `similar`: the answer to a question in other
words. `shadow`: an answer is kept, but not used in shadow mode.
"""
HITS, SHADOWS = ("hit", "similar"), ("shadow", "similar_shadow")
"""Outcomes of requests that a kept answer served, or would have served."""


@dataclass(slots=True)
class Caching:
    """The cache's part of one exchange. `key` is a digest; no part of a request can be read from it."""

    key: bytes
    owner: str  # consumer that owns the answer
    ttl: float  # seconds for which the answer is kept
    enforced: bool  # False: shadow mode
    most: int  # most bytes of an answer to keep
    outcome: Outcome = "miss"
    saved: int | None = 0  # nano-USD that the kept answer had cost; None: its price is unknown
    plain: bool = False  # True: the answer serves requests in any API, streamed or not
    fill: bool = False  # True: the answer is to be kept
    flight: Any = None  # `cache.flights.Flight`, if equal requests wait for this answer
    pieces: list[bytes] | None = field(default_factory=list)  # the answer so far; None: it is too long
    size: int = 0  # bytes in `pieces`
    batch: Any = None  # `cache.batches.Batch`, for a request that is kept by input
    asked: Any = None  # `cache.similar.finder.SimilarQuestion`, if questions in other words are compared
    seeking: Any = None  # in shadow mode, a task that seeks a similar question
    score: float | None = None  # score of the nearest question in other words
    others: bool = False  # True: answers to questions in other words may be given
    misread: bool = False  # True: the client's header has a word that the cache does not know

    @property
    def is_hit(self) -> bool:
        return self.outcome in HITS


CACHING: FeatureKey[Caching] = FeatureKey("caching")
"""Key of the cache's part, which LookUp writes."""
