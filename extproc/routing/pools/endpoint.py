"""State of one endpoint of a pool: what it reports in its metrics, and what the gateway sees of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

_STEP = 0.2  # weight of one sample
_FIRST_REST = 1.0  # seconds without requests after a failed connection; each further one doubles them
_LONGEST_REST = 30.0
_PATIENCE = 3  # failures in a row, other than connections, until the endpoint rests
_SILENT = 10.0  # seconds after which a report counts as unknown
_MOST_EXPECTED = 1e9
_FADE = 0.98  # each report shortens the first-byte time by this factor, so that a slow endpoint is tried again
_CONFIRM = 20_000.0  # tokens of prompts between two comparisons of expected with counted cache hits


@dataclass(slots=True)
class Report:
    """Load of a server as its metrics tell it; None where it has no such metric."""

    waiting: float | None = None  # requests that wait inside the server
    running: float | None = None  # requests in the server's batch
    kv_cache: float | None = None  # share of the KV cache in use, 0 to 1
    prefix_queries: float | None = None  # counter: tokens looked up in the prefix cache
    prefix_hits: float | None = None  # counter: tokens found there
    adapters: frozenset[str] | None = None  # LoRA adapters that are loaded
    absent: tuple[str, ...] = ()  # fields whose metrics the page lacks


@dataclass(slots=True)
class Full:
    """Load from which on an endpoint counts as full; see `SaturationSettings`."""

    waiting: float = 12
    kv_cache: float = 0.95
    requests: float = float("inf")


@dataclass(slots=True, eq=False)
class Endpoint:
    """One server of a pool. `address` is `ip:port`, as Envoy knows it; `name` is the pod's, for people."""

    address: str
    name: str = ""
    report: Report = field(default_factory=Report)
    reported: float = -1e9  # time of the latest report
    leaving: bool = False  # True: it is gone from its source, or terminates; it gets no new requests
    in_flight: int = 0  # requests of this process
    first_byte: float = 0.0  # seconds, an average of late; 0: unknown
    failures: int = 0  # failed tries in a row
    rests_until: float = -1e9
    trust: float = 1.0  # share of the expected cache hits that its own counters confirm, 0 to 1
    cold_since: float = -1e9  # time at which its cache began empty
    seed: int = field(init=False)  # 30 bits for the choice by digest, equal in all processes
    _reported_in_flight: int = 0  # requests of this process at the latest report
    _expected: float = 0.0  # tokens expected to be cached, since the last comparison
    _counted: tuple[float, float] | None = None  # its counters at the last comparison

    def __post_init__(self) -> None:
        self.seed = int.from_bytes(hashlib.blake2b(self.address.encode(), digest_size=8).digest()) >> 34

    @property
    def load(self) -> float:
        """Requests in the endpoint: its own count with those sent and without those ended since, or those of this
        process if that is more.
        """
        report, mine = self.report, float(self.in_flight)
        if report.running is None:
            return mine
        told = (report.waiting or 0.0) + report.running + mine - self._reported_in_flight
        return max(mine, told)

    @property
    def waiting(self) -> float:
        """Requests that wait inside the server: those of its report, with this process's change since."""
        if not (waiting := self.report.waiting):
            return 0.0
        waiting += self.in_flight - self._reported_in_flight
        return max(0.0, waiting)

    def ready(self, now: float) -> bool:
        """True when the endpoint may get requests."""
        return not self.leaving and self.rests_until <= now

    def full(self, limits: Full) -> bool:
        """True when a further request would wait inside the server."""
        report = self.report
        return (
            self.waiting >= limits.waiting
            or (report.kv_cache or 0.0) >= limits.kv_cache
            or self.in_flight >= limits.requests
        )

    def began(self, tokens: float = 0.0) -> None:
        """Note a request sent to the endpoint, of which it should have `tokens` of the prompt cached."""
        self.in_flight += 1
        self._expected = min(self._expected + tokens, _MOST_EXPECTED)

    def ended(self) -> None:
        """Note the end of a request, however it ended."""
        self.in_flight = max(0, self.in_flight - 1)

    def answered(self, first_byte: float | None = None) -> None:
        """Note a try that the endpoint answered, and the seconds to the first byte of its stream."""
        self.failures, self.rests_until = 0, -1e9
        if first_byte is not None:
            self.first_byte += (first_byte - self.first_byte) * (_STEP if self.first_byte else 1.0)

    def failed(self, now: float, *, connected: bool) -> None:
        """Note a failed try. An endpoint rests after a failed connection, or after several other failures in a row."""
        self.failures += 1
        beyond = self.failures if not connected else self.failures - _PATIENCE + 1
        if beyond > 0:
            self.rests_until = now + min(_LONGEST_REST, _FIRST_REST * 2 ** min(beyond - 1, 8))

    def reports(self, report: Report, now: float) -> None:
        """Take a new report. Counters that fell show a restart, so nothing is cached any more."""
        self.report, self.reported = report, now
        self._reported_in_flight = self.in_flight
        self.first_byte *= _FADE
        if report.prefix_queries is None or report.prefix_hits is None:
            return
        queries, hits = report.prefix_queries, report.prefix_hits
        if self._counted is None:
            self._counted, self._expected = (queries, hits), 0.0
            return
        looked, found = queries - self._counted[0], hits - self._counted[1]
        if looked < 0 or found < 0:
            self.cold_since, self.trust = now, 1.0
        elif looked < _CONFIRM:
            return
        elif self._expected > 0:
            self.trust += _STEP * (min(1.0, found / self._expected) - self.trust)
        self._counted, self._expected = (queries, hits), 0.0

    def silent(self, now: float) -> None:
        """Note a failed read of its metrics. After some seconds its report counts as unknown."""
        if now - self.reported > _SILENT:
            self.report = Report()
