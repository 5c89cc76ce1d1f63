"""Tries: the outcome of one request to one provider, as Envoy reports it."""

from __future__ import annotations

from dataclasses import dataclass

OUTCOMES = (
    *("ok", "client_left", "cut", "connect", "reset", "timeout", "overflow", "unhealthy", "credential", "other"),
    *("401", "403", "408", "429", "3xx", "4xx", "5xx"),
)
"""Ways a try can end: answered, left by the client, cut in mid-answer, failed inside the hop, refused with a status."""


def outcome_of(status: int) -> str:
    """The outcome of a try that the provider answered with this status."""
    if status < 300:
        return "ok"
    exact, kind = str(status), f"{status // 100}xx"
    return exact if exact in OUTCOMES else kind if kind in OUTCOMES else "other"


_OF_REQUEST = (501, 505)  # statuses that say what a request may not ask for, not that the model is down


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
    consumer: str = ""  # name of the exchange's consumer

    @property
    def at_fault(self) -> bool:
        """True where the model failed to serve. Some requests make a model fail, so this alone does not blame it."""
        return self.outcome in ("reset", "timeout", "cut") or (self.outcome == "5xx" and self.status not in _OF_REQUEST)

    @property
    def served(self) -> bool:
        return self.outcome == "ok" or (self.outcome == "client_left" and 200 <= self.status < 300)


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
    """A client's request that ended without an answer of the processor's or of a provider's. `status` is what the
    client got, 0 where it got nothing.
    """

    reason: str
    exchange_id: str = ""
    status: int = 0
