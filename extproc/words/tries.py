"""Tries: the outcome of one request to one provider, as Envoy reports it."""

from __future__ import annotations

from dataclasses import dataclass

OUTCOMES = (
    *("ok", "client_left", "cut", "connect", "reset", "timeout", "overflow", "unhealthy", "credential", "other"),
    *("401", "403", "408", "429", "4xx", "5xx"),
)
"""Ways a try can end: answered, left by the client, cut in mid-answer, failed inside the hop, refused with a status."""


@dataclass(slots=True, frozen=True)
class Try:
    """One try at a provider, as Envoy saw it. Times are in seconds; `first_byte` is None when none came."""

    exchange_id: str
    provider: str
    target: str  # the target's name, see `Target.name`
    attempt: int
    status: int
    outcome: str
    seconds: float
    first_byte: float | None
    retry_after: str
    request_bytes: int = 0
    answer_bytes: int = 0
    streamed: bool = False


@dataclass(slots=True, frozen=True)
class DownstreamEnd:
    """A client's request that ended without an answer of the processor's or of a provider's."""

    reason: str
