"""The processor: the configuration in use, its servers, and background tasks.

A process imports a module only when needed: grpc with its transport, Starlette and uvicorn with the first connection.
It loads prices for the configured providers alone. Periodic work runs at one wake-up a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extproc.access.questions import Questions
from extproc.cache.answers import Answers, open_answers
from extproc.cache.stores import CacheError
from extproc.envoy.server import canaries, capacity, collector, texts
from extproc.envoy.server.certificate import ListenerCertificate
from extproc.envoy.server.checking import Checker
from extproc.envoy.server.periodic import BEAT, Periodic, pause, until_beat
from extproc.envoy.server.pools import PoolKeeper
from extproc.envoy.server.reload import Reloads
from extproc.envoy.server.server import Server
from extproc.exchange import pipeline
from extproc.exchange.services import Services
from extproc.guardrails import Audits
from extproc.money.accounting.alerts import Alerts
from extproc.money.accounting.books import Books
from extproc.money.accounting.forgotten import Forgotten
from extproc.money.accounting.poller import Poller, Situation
from extproc.money.accounting.tries import FailedTries
from extproc.money.accounting.units import Units
from extproc.money.budgets import Exact, Expected, Grants, ReserveTools, compile_budget, counter
from extproc.money.ledger import LedgerError, open_ledger
from extproc.operate.admin.doors import HTTPThread
from extproc.operate.admin.failures import Failures
from extproc.operate.admin.spare import probing
from extproc.operate.reports import ReportError
from extproc.operate.reports.desk import Desk
from extproc.operate.reports.reports import AdminReports, OwnMemory, Reporter
from extproc.operate.reports.under_way import list_under_way
from extproc.operate.telemetry import audit
from extproc.operate.telemetry.copies import Copies
from extproc.operate.telemetry.lines import WHOLE, Lines
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings.audit import AuditSettings
from extproc.settings.config import Settings
from extproc.stores import Counters, CountsLostError, Expired, StoreError, open_counters
from extproc.upstream.credentials.asking import Asking
from extproc.upstream.credentials.rotation import EVERY, Keeper, watch
from extproc.wire.transport import workers

if TYPE_CHECKING:
    from extproc.operate.admin.siblings import Siblings
    from extproc.tools.mcp.catalogue import Catalogue

log = logging.getLogger(__name__)

_SELDOM = 3.0  # seconds between reads of other processes' notes that rarely change
_LAST_LINES = 1.0  # seconds to write the last log lines
_PRUNE_EVERY = 3600.0
_COPY_EVERY = _KEYS_EVERY = 2.0  # seconds: audit entries to copy; keys that an operator made or revoked
_ADD_UP_FIRST, _ADD_UP_EVERY = 30.0, 300.0  # seconds
_SHARED_FOR = 60.0  # seconds until an ended process is forgotten
_DRAIN_NOTICE = 3.0  # seconds until Envoy's health check sees that this process stops
_DRAIN_GRACE = 600.0  # seconds for streams to end


class Processor:
    """Serves `settings`, and every later version of them in `file`.

    It may be one of several workers. Worker 0 serves the status and admin ports for all workers, keeps `secrets` up to
    date, deletes old rows of the ledger, and adds up its hours and days. `first` is the text of the settings with which
    the workers first started: a restarted worker keeps that version of settings that bind at a start.
    """

    def __init__(
        self,
        file: Path,
        settings: Settings,
        *,
        socket: str | None = None,
        secrets: Path | None = None,
        worker: int = 0,
        first: str | None = None,
    ) -> None:
        self._file = file
        self._secrets = secrets
        self._worker = worker
        self._me = uuid.uuid4().hex  # id among the processes that share the counters store
        self._socket = socket or settings.processor.path
        self._settings = settings
        self._units = _units(settings)  # unit of every budget this process ever had
        at_once = {"at_once": WHOLE} if self._several else {}
        self._telemetry = telemetry = Telemetry(settings)
        self._lines = Lines(sys.stdout.fileno(), settings.telemetry.log_buffer, telemetry.line_lost, **at_once)
        telemetry.write = self._lines
        self._turned = time.monotonic()  # time of the event loop's latest turn
        self._counters: Counters = open_counters(settings.stores.counters, settings.stores.waits)
        self._ledger = open_ledger(settings.stores.ledger)
        self._server: Server | None = None
        self._grants = Grants(self._counters)
        self._agreed = Units(self._counters)
        self._alerts = Alerts(self._counters, telemetry.alert)
        self._questions = Questions(self._counters, self._alerts.tell)
        self._exact = Exact({})
        self._copies = Copies(self._ledger.trail)
        self._failed = FailedTries(telemetry.internal_error)
        self._reporter = Reporter(self._counters, self._ledger, self._grants, time.time)
        self._services = services = Services(
            self._counters,
            telemetry,
            tools=ReserveTools(
                telemetry.budget_used, self._alerts.tell, self._grants, Expected(), self._exact, self._questions
            ),
            audits=Audits(telemetry.internal_error),
            failed=self._failed,
            answers=_open_answers(settings),
            reporter=self._reporter,
            socket=self._socket,
        )
        services.books = Books(self._counters, self._ledger.writer, self._log_expired, again=settings.limits.lease)
        self._poller = Poller(self._counters, services.books, self._situation, self._spawn, telemetry.settled_late)
        telemetry.tool_definitions.read = self._count_tools
        telemetry.body_bytes.set_function(lambda: services.in_flight.size)
        self._forgotten = Forgotten(self._counters, _dropping(telemetry, services.answers))
        self._keys_mark: object = None
        self._desk: Desk | None = None  # only the worker that serves reports has a desk
        self._stale = ""  # the reason why the settings in use are not the file's
        self._certificate = ListenerCertificate()
        self._reloads = Reloads(self, file, settings, secrets=secrets, socket=socket, worker=worker, first=first)
        self._pools = PoolKeeper(self._reloads.discovery, services, publishes=worker == 0)
        self.apply_settings(settings, self._reloads.places)
        self._http = HTTPThread()
        self._collector = collector.Collector(lambda: telemetry.in_flight)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen at all addresses. Raises OSError with the address that is not available, or with budgets that other
        processes count in another unit.
        """
        settings, telemetry = self._settings, self._telemetry
        with contextlib.suppress(StoreError):
            await self._agreed.leave()
        if reason := self.refusal_of(settings):
            raise OSError(f"budgets: {reason}")
        await self._reloads.start()
        self._ledger.writer.start()
        telemetry.watch(self._ledger.writer)
        telemetry.tasks.set_function(partial(_count_tasks, asyncio.get_running_loop()))
        if await self._read_keys():
            self._rebuild()
        self._open_doors()
        if self._desk is not None and settings.admin.oidc is not None:
            await asyncio.to_thread(self._desk.read_sessions)
        where = settings.processor
        mark = workers.mark(self._worker) if self._several else ""
        discovery = self._reloads.discovery
        self._server = Server(lambda: self._pipeline, telemetry, mark, discovery)
        path = where.sockets(self._socket)[self._worker]
        await self._server.start(socket=path, address=where.address, tls=where.tls, transport=where.transport)
        self._http.start()
        for one in self._periodic(self._server):
            self._spawn(one.run(), one.name)
        for work in (self._watch_lag(), self._alerts.run(), self._pools.run()):
            self._spawn(work)
        if self._services.servers is not None:
            self._spawn(self._services.servers.run())
        if self._worker:
            if self._secrets is not None:
                self._spawn(watch(lambda: self._settings.hops, self._rebuild))
        elif self._secrets is not None:
            keeper = Keeper(self._secrets, self._telemetry.credential_refreshes, stem=self._reloads.stem)
            self._spawn(keeper.run(lambda: self._settings.hops, self._rebuild, partial(pause, EVERY)))
        elif waiting := [name for name, provider in settings.hops.items() if provider.credentials is not None]:
            log.warning("no process fetches the tokens of %s: serve was not given --secrets", ", ".join(waiting))

    def _periodic(self, server: Server) -> Sequence[Periodic]:
        """Periodic work of this process."""
        own = self._services, lambda: self._settings, self._ledger
        trials, recorded, hardware = canaries.CanaryKeeper(*own), texts.TextKeeper(*own), capacity.CapacityKeeper(*own)
        everywhere = (
            Periodic("files", BEAT, self._look_at_files),
            Periodic("socket", BEAT, server.look),
            Periodic("garbage", collector.EVERY, self._collector.look),
            Periodic("books", BEAT, self._keep_books),
            Periodic("late settlement", BEAT, self._poller.turn),
            Periodic("audit", BEAT, self._write_trail),
            Periodic("texts", recorded.every, recorded.turn),
            Periodic("findings", BEAT, self._share_findings),
            Periodic("trials", trials.every, trials.refresh),
            Periodic("agreements", _SELDOM, self._share_agreements, first=BEAT),
            Periodic("keys", _KEYS_EVERY, self._look_at_keys),
            Periodic("leases", lambda: self._settings.limits.lease / 3, self._renew_leases),  # bears two failures
        )
        of_one = (
            Periodic("prune", _PRUNE_EVERY, self._prune, first=BEAT),
            Periodic("capacity", hardware.every, hardware.turn),
            Periodic("copies", _COPY_EVERY, self._copy_trail),
            Periodic("canaries", canaries.EVERY, trials.turn, first=BEAT),
            Periodic("sums", _ADD_UP_EVERY, self._add_up, first=_ADD_UP_FIRST),
        )
        return everywhere if self._worker else (*everywhere, *of_one)

    @property
    def _several(self) -> bool:
        return self._settings.processor.workers > 1

    def _open_doors(self) -> None:
        """Listen for the status and admin ports. Raises OSError with the address that is not available."""
        if self._worker:
            self._http.add_private(self._inner, workers.inner_socket(self._socket, self._worker))
            return
        settings = self._settings
        # Read for each request, because its file may change.
        token = settings.admin.token.read if settings.admin.token else None
        if token is not None and token() is None:
            raise OSError(f"admin.token: {settings.admin.token} is not set")
        self._desk = desk = Desk(
            self._ledger,
            lambda: self._settings,
            lambda: self._pipeline.catalog,
            checker=Checker(self._file),
        )
        reports = self._admin_reports()
        given = [*filter(None, [settings.admin.token, settings.auth.key_secret])]
        failures = Failures(settings.admin.failed_authentications, self._telemetry.admin_refused)

        def app() -> Any:
            from extproc.operate.admin.api import admin_app  # noqa: PLC0415 - imported at the first connection

            return admin_app(reports, token, desk, settings.admin.oidc, given, failures=failures)

        doors = (
            ("status", self._status, settings.status, probing(self._stalled, self._unready)),
            ("admin", app, settings.admin, None),
        )
        for name, make, door, probe in doors:
            try:
                self._http.add(make, door.address, door.port, probe)
            except OSError as error:
                raise OSError(f"{name}: cannot listen on {door.address}:{door.port}: {error.strerror}") from error

    def _status(self) -> Any:
        from extproc.operate.admin.http import status_app  # noqa: PLC0415 - with the first connection

        siblings = self._siblings() if self._several else None
        return status_app(self._telemetry, self._stalled, self._unready, self._remark, siblings)

    def _siblings(self) -> Siblings:
        from extproc.operate.admin.siblings import Siblings  # noqa: PLC0415 - only for several workers

        return Siblings(self._socket, self._settings.processor.workers)

    def _inner(self) -> Any:
        from extproc.operate.admin.siblings import Health, inner_app  # noqa: PLC0415 - with the first connection

        return inner_app(
            self._telemetry.registry.collect,
            lambda: Health(self._stalled(), self._unready(), self._remark()),
            self._own_memory().whole,
        )

    def _own_memory(self) -> OwnMemory:
        telemetry = self._telemetry
        return OwnMemory(
            lambda: list(telemetry.recent),
            self._services.history.deployments,
            self._samples,
            lambda: list_under_way(list(telemetry.under_way.values())),
        )

    def _samples(self) -> list[Mapping[str, Any]]:
        """Samples of similar questions of the cache. Called from the HTTP server's thread."""
        similar = None if self._services.answers is None else self._services.answers.similar
        return [] if similar is None else [*similar.samples]

    async def stop(self, *, notice: float = _DRAIN_NOTICE, grace: float = _DRAIN_GRACE) -> None:
        """Drain: Envoy gets `notice` seconds to see it, streams get up to `grace` seconds to end."""
        ends = time.monotonic() + notice + grace
        # Token counts that hang then become estimates, so that their exchanges are settled and recorded before the end.
        late = asyncio.get_running_loop().call_later(notice + grace, counter.helper.end)
        if self._server is not None:
            await self._server.drain(notice, grace)
        late.cancel()
        if self._several and not self._worker:  # worker 0 answers probes for all workers, so it ends last
            await self._siblings().ended(ends - time.monotonic())
        self._failed.flush()
        self._services.shadows.stop()
        await self._services.audits.drain()
        for outbox in self._telemetry.outboxes.values():
            await outbox.stop(_LAST_LINES)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reloads.close()
        counter.helper.end()
        await asyncio.to_thread(self._http.stop)  # in a thread: that server's clients may be waiting for this loop
        with contextlib.suppress(StoreError):  # unsettled charges still get their rows
            await self._services.leases.turn()
            await self._services.books.catch_up()
        with contextlib.suppress(LedgerError):
            await self._write_trail()
        await asyncio.to_thread(self._ledger.writer.stop)
        with contextlib.suppress(StoreError):  # an expired lease reports the same charge again
            await self._services.books.catch_up()
        self._ledger.close()
        with contextlib.suppress(StoreError):
            await self._agreed.leave()
        await self._counters.close()
        if self._services.answers is not None:
            await self._services.answers.close()
        await asyncio.to_thread(self._lines.flush, _LAST_LINES)

    def _admin_reports(self) -> AdminReports:
        return AdminReports(
            self._reporter,
            lambda: self._settings.budgets,
            self._own_memory(),
            asyncio.get_running_loop(),
            siblings=(lambda: self._siblings().memories()) if self._several else tuple,
            answers=self._services.answers,
            tools=self._tools_of,
            stale=self._staleness,
            certificate=self._ending,
            forgotten=self._forgotten,
        )

    def _stalled(self) -> str:
        """The reason why this process should be restarted; empty without one. Called from the probe server's thread."""
        stood = time.monotonic() - self._turned
        return (
            f"the event loop has stood still for {stood:.0f} s" if stood > self._settings.status.stalled_after else ""
        )

    def _unready(self) -> str:
        """The reason why Envoy should send no requests here; empty without one."""
        return (self._server.unready or workers.away(self._socket)) if self._server is not None else "draining"

    def _remark(self) -> str:
        """A remark in /readyz for people, while traffic is served: stale settings, or a certificate that ends."""
        stale = self._staleness()
        return "\n".join(filter(None, (stale and f"settings are stale: {stale}", self._ending())))

    def _staleness(self) -> str:
        """The reason why the settings or the certificate in use differ from the files; empty if they are equal."""
        return "; ".join(filter(None, (self._stale, self._certificate.unfit)))

    def _ending(self) -> str:
        return self._certificate.remark(time.time())

    def _spawn(self, work: Coroutine[None, None, None], name: str = "", *, ends: bool = False) -> None:
        """Start background work. `ends`: the work ends by itself."""
        task = asyncio.create_task(work, name=name or getattr(work, "__qualname__", "work"))
        self._tasks.add(task)
        task.add_done_callback(partial(self._log_end, ends=ends))

    def _log_end(self, task: asyncio.Task[None], *, ends: bool) -> None:
        """Log a background task that ended unexpectedly: otherwise, for example, leases would silently never end."""
        if ends:
            self._tasks.discard(task)
        if not task.cancelled() and (not ends or task.exception() is not None):
            self._telemetry.internal_error(task.get_name())
            log.error("%s ended: a bug; restart", task.get_name(), exc_info=task.exception())

    async def _watch_lag(self) -> None:
        while True:
            wait = until_beat()
            due = time.monotonic() + wait
            await asyncio.sleep(wait)
            self._turned = time.monotonic()
            self._telemetry.loop_lag.set(max(0.0, self._turned - due))

    async def _look_at_files(self) -> None:
        """Check the files of settings and secrets for edits, renames and the symlink swap of a ConfigMap. Rebuilds at
        the start of a day, because prices may change. No content of a file ends these checks.
        """
        try:
            if self._pipeline.catalog.prices.today != datetime.now(UTC).date():
                self._rebuild()
            await self._reloads.look()
            await self._look_at_certificate()
        except Exception as error:
            self._telemetry.internal_error("reload")
            log.exception("looking for new settings failed; it is tried again")
            self.report("refused", f"{type(error).__name__}: see the log")

    async def _look_at_certificate(self) -> None:
        """Check the listener's certificate files, because Envoy does not report on them. Only worker 0 does."""
        tls = self._settings.listener.tls
        if self._worker or (tls is None and not self._certificate.file):
            return
        await asyncio.to_thread(self._certificate.look, tls)
        self._certificate.remark(time.time())  # `remark` logs the sentence
        self._telemetry.settings_stale.set(1 if self._staleness() else 0)
        self._telemetry.certificate(self._certificate.file, self._certificate.dates)

    def report(self, outcome: str, stale: str) -> None:
        """See `reload.Process`."""
        self._stale = stale
        self._telemetry.settings_stale.set(1 if self._staleness() else 0)
        if outcome:
            self._telemetry.reloads(outcome)
            if not self._worker:
                self._services.audit_events.add(audit.settings(outcome, stale, time.time()))

    def refusal_of(self, settings: Settings) -> str:
        """See `reload.Process`."""
        other = self._changed_units(settings)
        return f"the counts of {', '.join(other)} are in another unit: give the budget a new name" if other else ""

    def _changed_units(self, settings: Settings) -> Sequence[str]:
        """Names of budgets that changed their unit (tokens or nano-USD): old counts would be read in the new unit."""
        units = _units(settings)
        own = [name for name, unit in units.items() if self._units.get(name, unit) != unit]
        return sorted({*own, *self._agreed.differ(units)})

    def apply_settings(self, settings: Settings, places: Mapping[str, str]) -> None:
        """See `reload.Process`."""
        self._open_servers(settings)
        self._pools.apply_settings(settings)
        self._services.places = places
        made = pipeline.build(settings, self._services)
        budgets = {entry.name: compile_budget(entry) for entry in settings.budgets}
        self._telemetry.configure(settings)
        self._exact.kinds = {name: entry.kind for name, entry in settings.providers.items() if entry.base_url is None}
        self._settings, self._pipeline, self._budgets = settings, made, budgets
        self._teams = {entry.name: entry.team or "" for entry in settings.consumers}
        self._units |= _units(settings)

    def _open_servers(self, settings: Settings) -> None:
        """Update the MCP servers to the settings."""
        if settings.mcp is None:
            return
        secret = settings.mcp.key.read_or_last() if settings.mcp.key is not None else settings.auth.read_key_secret()
        if self._services.servers is not None:
            self._services.servers.apply_settings(settings.mcp, secret)
            return
        from extproc.tools.mcp.servers import Servers  # noqa: PLC0415 - most gateways have no MCP servers

        socket = workers.private_socket(self._socket)
        self._services.servers = servers = Servers(settings.mcp, socket, secret)
        servers.changed = self._read_definitions
        if self._server is not None:
            self._spawn(servers.run())

    def _read_definitions(self, found: Catalogue) -> None:
        """Check new definitions of an MCP server before clients ask for them."""
        profiles = self._pipeline.profiles
        if profiles is not None:
            entries = [entry for kind in found.entries.values() for entry in kind.values()]
            self._spawn(profiles.policy.learn(entries), ends=True)

    def _tools_of(self, definitions: bool) -> Sequence[Mapping[str, Any]]:
        """The MCP servers and their tools, for operators."""
        if self._services.servers is None or self._pipeline.profiles is None:
            raise ReportError(404, "the settings have no MCP servers")
        from extproc.tools.mcp.report import describe as describe_servers  # noqa: PLC0415

        return describe_servers(self._services.servers, self._pipeline.profiles, definitions=definitions)

    def _count_tools(self) -> Mapping[tuple[str, ...], float]:
        from extproc.tools.mcp.report import count  # noqa: PLC0415

        profiles = self._pipeline.profiles
        return {} if self._services.servers is None or profiles is None else count(self._services.servers, profiles)

    def _rebuild(self) -> None:
        """Rebuild the pipeline for changed inputs outside of the settings: prices of a new day, provider secrets,
        issued keys.
        """
        self.apply_settings(self._settings, self._reloads.places)

    async def _share_findings(self) -> None:
        """Exchange findings of tries with other workers and replicas, and read the grants of operators."""
        note = self._services.history.note()
        self._services.history.merge(await self._counters.share("providers", self._me, note, _SHARED_FOR))
        await self._grants.refresh()
        if self._services.servers is not None:
            await self._services.taint.refresh()
            await self._services.servers.board.turn(self._counters)

    async def _share_agreements(self) -> None:
        await self._forgotten.refresh()
        await self._agreed.tell(self._units)

    async def _renew_leases(self) -> None:
        await self._services.leases.renew(self._settings.limits.lease)

    async def _keep_books(self) -> None:
        """End leases of dead exchanges, and reconcile counters with the ledger."""
        try:
            await self._services.books.turn(self._budgets, self._teams)
        except CountsLostError:
            self._telemetry.store_losses()
            log.error("the counters store lost its counts: budgets begin anew")  # noqa: TRY400

    def _situation(self) -> Situation:
        """Settings and services in use, for late settlement."""
        asking = Asking(self._settings.providers, self._secrets, self._reloads.stem)
        return Situation(self._pipeline.catalog, self._budgets, asking, self._settings.limits.pending_results)

    async def _prune(self) -> None:
        """Delete old rows of the ledger and old entries of the audit trail."""
        now, keep = time.time(), self._settings.stores.ledger_keep
        if keep is not None:
            await asyncio.to_thread(self._ledger.prune, now - keep)
        await asyncio.to_thread(self._ledger.trail.prune, now - self._settings.admin.audit_keep)

    async def _write_trail(self) -> None:
        """Append new events to the audit trail."""
        if not (events := self._services.audit_events.take()):
            return
        try:
            await asyncio.to_thread(self._ledger.trail.append, events)
        except BaseException:  # the ledger is away, or this process ends: the events are written again later
            self._services.audit_events.put_back(events)
            raise

    async def _copy_trail(self) -> None:
        """Update the copies of the audit trail."""
        if self._settings.audit != AuditSettings():
            await asyncio.to_thread(self._copies.turn, self._settings.audit)

    async def _add_up(self) -> None:
        """Sum the ledger's past hours and days for reports. Until then reports read the rows."""
        await asyncio.to_thread(self._ledger.roll_up, time.time())

    async def _look_at_keys(self) -> None:
        """Read the gateway keys that operators made. The known keys stay while the ledger does not answer."""
        if await self._read_keys():
            self._rebuild()
        if self._desk is not None and self._settings.admin.oidc is not None:
            await asyncio.to_thread(self._desk.read_sessions)

    async def _read_keys(self) -> bool:
        """Read issued keys after a change. True when they changed."""
        if self._settings.auth.key_secret is None:
            return False
        operators = self._ledger.operators
        with contextlib.suppress(LedgerError):
            mark = await asyncio.to_thread(operators.mark)
            if mark != self._keys_mark:
                self._services.issued = await asyncio.to_thread(operators.keys)
                self._keys_mark = mark
                return True
        return False

    def _log_expired(self, expired: Expired) -> None:
        self._telemetry.lease_expired(str(expired.forwarded).lower())
        log.warning("the reservation of exchange %s ran out: charged %s", expired.id, expired.amounts)


def _dropping(telemetry: Telemetry, answers: Answers | None) -> Callable[[Callable[[Mapping[str, Any]], bool]], None]:
    """A function that drops exchanges of forgotten consumers. It drops all sampled questions of the cache, because they
    have no consumer's name.
    """

    def drop(matches: Callable[[Mapping[str, Any]], bool]) -> None:
        telemetry.recent.drop(matches)
        if answers is not None and answers.similar is not None:
            answers.similar.forget(None)

    return drop


def _open_answers(settings: Settings) -> Answers | None:
    """Open the cache of answers. Raises OSError."""
    try:
        return open_answers(settings.stores.cache, settings.cache, settings.around_guardrails)
    except CacheError as error:
        raise OSError(f"stores.cache: {error}") from None


def _count_tasks(loop: asyncio.AbstractEventLoop) -> int:
    """Count of the event loop's tasks. Called from the metrics server's thread."""
    return len(asyncio.all_tasks(loop))


def _units(settings: Settings) -> dict[str, str]:
    return {entry.name: entry.unit for entry in settings.budgets}


async def run(
    processor: Processor, stopped: asyncio.Event, ready: Callable[[], None], *, notice: float, grace: float
) -> None:
    """Serve until `stopped` is set, then drain."""
    await processor.start()
    ready()
    try:
        await stopped.wait()
    finally:
        await processor.stop(notice=notice, grace=grace)
