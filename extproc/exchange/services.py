"""Services: the objects that live as long as the process, and outlive every configuration."""

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
from extproc.money.budgets import Leases, Tools
from extproc.operate.reports.reports import Reporter
from extproc.operate.telemetry.audit import AuditEvents
from extproc.operate.telemetry.metrics import Telemetry
from extproc.routing.history import History
from extproc.stores import Counters
from extproc.tools.brake import Runs
from extproc.tools.taint import Taint

if TYPE_CHECKING:
    from extproc.tools.mcp.servers import Servers


@dataclass(slots=True)
class Services:
    """Everything that stages share beyond one configuration. A service that is None does not take part: nothing is
    cached, recorded later, reported or called.
    """

    counters: Counters
    telemetry: Telemetry
    now: Callable[[], float] = time.time  # seconds since the epoch
    tools: Tools = field(default_factory=Tools)  # helpers of budgets: alerts, grants, usual outputs, exact counts
    in_flight: InFlight = field(default_factory=InFlight)  # requests, and bytes of their bodies
    results: Results = field(default_factory=Results)  # results of tools in quarantine
    audits: Audits = field(default_factory=Audits)  # questions to services that only records wait for
    audit_events: AuditEvents = field(default_factory=AuditEvents)  # events for the audit trail
    failed: FailedTries | None = None  # exchanges whose failed tries are not known yet
    answers: Answers | None = None  # kept answers and conversations
    reporter: Reporter | None = None  # answers consumers about their own spending
    servers: Servers | None = None  # the servers of the MCP gateway
    socket: str | None = None  # the processor's own, where it is not that of the settings
    issued: Sequence[IssuedKey] = ()  # gateway keys that operators made
    places: Mapping[str, str] = field(
        default_factory=dict
    )  # Envoy's names of tries that are not `contract.try_cluster`
    leases: Leases = field(init=False)  # keep reservations alive
    history: History = field(init=False)  # findings of tries
    books: Books = field(init=False)  # hold charges until their rows are written
    taint: Taint = field(init=False)  # runs in which an untrusted tool answered by MCP
    runs: Runs = field(default_factory=Runs)  # the latest results of runs, for the brake

    def __post_init__(self) -> None:
        self.leases, self.history = Leases(self.counters), History(self.now)
        self.books, self.taint = Books(self.counters, None, now=self.now), Taint(self.counters, now=self.now)
