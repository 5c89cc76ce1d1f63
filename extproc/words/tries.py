"""Tries: the outcome of one request to one provider, as Envoy reports it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OUTCOMES = (
    *("ok", "client_left", "cut", "connect", "reset", "timeout", "overflow", "unhealthy", "credential", "other"),
    *("401", "403", "408", "429", "3xx", "4xx", "5xx"),
)
"""Outcomes of a try: answered, ended by the client, cut in mid-answer, failed inside the hop, refused with a status."""


def outcome_of(status: int) -> str:
    """Outcome of a try whose provider answered with this status."""
    if status < 300:
        return "ok"
    exact, kind = str(status), f"{status // 100}xx"
    return exact if exact in OUTCOMES else kind if kind in OUTCOMES else "other"


_OF_REQUEST = (501, 505)  # statuses about the request's features, not about the model's health


@dataclass(slots=True, frozen=True)
class Try:
    """One try at a provider, as Envoy reports it. Times are in seconds; `first_byte` is None without an answer."""

    exchange_id: str
    provider: str
    target: str  # see `Target.name`
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
    endpoint: str = ""  # `ip:port` that Envoy chose at the provider
    start: int = 0  # nanoseconds since the epoch, of a try that failed

    @property
    def at_fault(self) -> bool:
        """True when the model did not serve. Some requests make a model fail, so one such try does not prove a fault of
        the model.
        """
        return self.outcome in ("reset", "timeout", "cut") or (self.outcome == "5xx" and self.status not in _OF_REQUEST)

    @property
    def served(self) -> bool:
        return self.outcome == "ok" or (self.outcome == "client_left" and 200 <= self.status < 300)


@dataclass(slots=True, frozen=True)
class FailedTry:
    """A try without a complete answer for the client, or followed by another try. It is part of its exchange's record.

    `status` is the answer's, or Envoy's own without an answer. `ms` is the try's time in milliseconds. `start`, in
    nanoseconds since the epoch, is for spans: the records do without it.
    """

    target: str
    provider: str
    status: int
    ms: int
    outcome: str  # one of OUTCOMES
    start: int = 0

    def record(self) -> dict[str, str | int]:
        """The try as part of a record."""
        return {name: value for name, value in asdict(self).items() if name != "start"}


@dataclass(slots=True, frozen=True)
class DownstreamEnd:
    """A client's request that ended without an answer of the processor or a provider. `status` is the client's; 0: it
    got none.
    """

    reason: str
    exchange_id: str = ""
    status: int = 0
