"""Tries: the outcome of one request to one provider, as Envoy reports it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OUTCOMES = (
    *("ok", "client_left", "cut", "connect", "reset", "timeout", "overflow", "unhealthy", "credential", "other"),
    *("401", "403", "408", "429", "3xx", "4xx", "5xx"),
)
"""Ways a try can end: answered, left by the client, cut in mid-answer, failed inside the hop, refused with a status."""


@dataclass(slots=True, frozen=True)
class Seen:
    """What Envoy saw of an answer that it followed for the gateway, see `unread`. Each window stands at its place, in
    bytes from the beginning of the body.
    """

    head: bytes = b""
    usage: bytes = b""  # around the latest usage object
    usage_at: int = 0
    tail: bytes = b""
    tail_at: int = 0
    size: int = 0  # bytes that were counted: before the latest line of data, or all
    lines: int = 0  # of data, in these
    times: Sequence[tuple[int, float]] = ()  # of the first pieces: where each began, seconds after the headers
    ended: bool = False  # the answer reached its end


@dataclass(slots=True, frozen=True)
class UnderWay:
    """A try that goes on, as Envoy says from time to time."""

    exchange_id: str
    attempt: int


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
    seen: Seen | None = None  # None: Envoy did not follow the answer


@dataclass(slots=True, frozen=True)
class FailedTry:
    """A try that another one followed, or that left the client without a whole answer: a part of its exchange's record.

    `status` is that of the answer, or Envoy's own in place of one; `ms` its time in milliseconds.
    """

    target: str
    provider: str
    status: int
    ms: int
    outcome: str  # one of OUTCOMES


@dataclass(slots=True, frozen=True)
class DownstreamEnd:
    """A client's request that ended without an answer of the processor's or of a provider's."""

    reason: str
