"""Services: objects that live as long as the process, across configurations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extproc.access.auth import IssuedKey
from extproc.cache.answers import Answers
from extproc.exchange.admission import InFlight
from extproc.guardrails import Audits, Results
from extproc.money.accounting.books import Books
from extproc.money.accounting.tries import FailedTries
from extproc.money.budgets import Leases, ReserveTools
from extproc.money.texts import Recorder
from extproc.operate.reports.reports import Reporter
from extproc.operate.telemetry.audit import AuditEvents
from extproc.operate.telemetry.metrics import Telemetry
from extproc.routing.canary import Canaries
from extproc.routing.history import History
from extproc.routing.pools.pool import Pool
from extproc.routing.shadow import Shadows
from extproc.stores import Counters
from extproc.tools.brake import Runs
from extproc.tools.taint import Taint

if TYPE_CHECKING:
    from extproc.tools.mcp.servers import Servers


@dataclass(slots=True)
class Services:
    """Objects that stages share across configurations. None disables a service: its cache, later records, reports or
    calls.
    """

    counters: Counters
    telemetry: Telemetry
    now: Callable[[], float] = time.time  # seconds since the epoch
    tools: ReserveTools = field(default_factory=ReserveTools)  # alerts, grants, usual outputs, exact counts
    in_flight: InFlight = field(default_factory=InFlight)  # requests in flight, and bytes of their bodies
    results: Results = field(default_factory=Results)  # tool results in quarantine
    audits: Audits = field(default_factory=Audits)  # audit-only questions to guardrail services
    audit_events: AuditEvents = field(default_factory=AuditEvents)  # events for the audit trail
    failed: FailedTries | None = None  # exchanges whose failed tries are not reported yet
    shadows: Shadows = field(init=False)  # shadow requests in flight
    recorder: Recorder = field(default_factory=Recorder)  # texts that are not written yet
    answers: Answers | None = None  # cached answers, and conversations
    reporter: Reporter | None = None  # reports of consumers' spending
    servers: Servers | None = None  # MCP servers of the MCP gateway
    socket: str | None = None  # the processor's socket, if it is not the one in the settings
    issued: Sequence[IssuedKey] = ()  # gateway keys made by operators
    places: Mapping[str, str] = field(
        default_factory=dict
    )  # Envoy's names of tries that are not `contract.try_cluster`
    pools: dict[str, Pool] = field(default_factory=dict)  # pools of endpoints, by provider
    leases: Leases = field(init=False)  # keep reservations alive
    history: History = field(init=False)  # findings of tries
    canaries: Canaries = field(init=False)  # trials of targets
    books: Books = field(init=False)  # charges held until their rows are written
    taint: Taint = field(init=False)  # runs in which an untrusted tool answered by MCP
    runs: Runs = field(default_factory=Runs)  # latest results of runs, for the brake

    def __post_init__(self) -> None:
        self.leases, self.history = Leases(self.counters), History(self.now)
        self.canaries, self.shadows = Canaries(self.counters, self.now), Shadows(self.telemetry.shadows)
        self.books, self.taint = Books(self.counters, None, now=self.now), Taint(self.counters, now=self.now)
