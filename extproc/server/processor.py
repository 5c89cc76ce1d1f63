"""The processor as a whole: one configuration at work, its servers, and the tasks beside the requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from extproc import admin, pipeline
from extproc.accounting.alerts import Alerts
from extproc.accounting.books import Books
from extproc.accounting.reports import Everything, Reporter
from extproc.admission import InFlight
from extproc.budgets import Exact, Expected, Grants, Tools, compile_budget
from extproc.cache.answers import Answers, open_answers
from extproc.cache.stores import CacheError
from extproc.credentials.rotation import EVERY, Keeper, watch
from extproc.endpoints.spending import Own
from extproc.ledger import LedgerError, open_ledger
from extproc.pipeline import Pipeline
from extproc.providers import CoolDown
from extproc.routing.history import History
from extproc.server.server import Server
from extproc.settings import config
from extproc.settings.config import ConfigError, Settings
from extproc.stores import Counters, CountsLostError, Expired, StoreError, open_counters
from extproc.telemetry.lines import WHOLE, Lines
from extproc.telemetry.metrics import Telemetry
from extproc.unread.waiting import Waiting
from extproc.words import workers

log = logging.getLogger(__name__)

_BEAT = 1.0
"""Seconds between looks at the settings file, at ended leases and at the notes of other processes, and between two
measurements of the loop's lag. All of it happens at one wake-up, so that an idle process hardly costs anything.
"""
_LAST_LINES = 1.0  # seconds for the last lines of the log
_PRUNE_EVERY = 3600.0
_SHARED_FOR = 60.0  # seconds after which a process that ended is forgotten
_DRAIN_NOTICE = 3.0  # seconds for Envoy's health check to see that this process is leaving
_DRAIN_GRACE = 600.0  # seconds for streams to end

# Settings that bind when the processor starts. A change of these needs a restart, and a new Envoy configuration with
# it.
_FIXED = (
    *("listener", "status", "admin", "processor", "providers", "stores"),
    *("attribution", "auth", "usage", "cache", "telemetry"),
)


class Processor:
    """Serves `settings`, and every later version of them in `file`.

    With several workers this is one of them. Worker 0 serves the status and admin ports for all, keeps `secrets`, and
    deletes old rows of the ledger.
    """

    def __init__(
        self, file: Path, settings: Settings, *, socket: str | None = None, secrets: Path | None = None, worker: int = 0
    ) -> None:
        self._file = file
        self._secrets = secrets
        self._worker = worker
        self._socket = socket or settings.processor.path
        self._settings = settings
        self._units = _units(settings)  # units of every budget this process has had
        at_once = {"at_once": WHOLE} if self._several else {}
        self._lines = Lines(sys.stdout.fileno(), settings.telemetry.log_buffer, self._line_lost, **at_once)
        self._telemetry = Telemetry(settings, self._lines)
        self._phase = random.random()  # noqa: S311 - of its beat
        self._turned = time.monotonic()  # the latest turn of the event loop
        self._counters: Counters = open_counters(settings.stores.counters, settings.stores.waits)
        self._ledger = open_ledger(settings.stores.ledger)
        self._answers = _open_answers(settings)
        self._leases: set[str] = set()
        self._history = History()
        self._in_flight = InFlight()
        self._telemetry.body_bytes = lambda: self._in_flight.size
        self._grants = Grants(self._counters)
        self._alerts = Alerts(self._counters, self._telemetry.alert)
        exact = Exact({name: entry.kind for name, entry in settings.providers.items() if entry.base_url is None})
        self._tools = Tools(self._telemetry.budget_used, self._alerts.tell, self._grants, Expected(), exact)
        self._books = Books(self._counters, self._ledger, self._report, again=settings.limits.lease)
        self._reporter = Reporter(self._counters, self._ledger, self._grants, time.time)
        self._waiting = Waiting(lambda outcome: self._telemetry.unread(outcome).inc(), self._telemetry.internal_error)
        self._take(settings)
        self._content = config.content(file)
        self._server: Server | None = None
        self._http = admin.HTTPThread()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen everywhere. Raises OSError, naming the address, when one is not available."""
        settings, telemetry = self._settings, self._telemetry
        self._ledger.start()
        telemetry.watch(self._ledger)
        self._open_doors()
        where = settings.processor
        mark = workers.mark(self._worker) if self._several else ""
        self._server = Server(lambda: self._pipeline, telemetry, self._waiting, mark)
        path = where.sockets(self._socket)[self._worker]
        await self._server.start(socket=path, address=where.address, transport=where.transport)
        self._http.start()
        for work in (
            self._watch_lag(),
            self._watch_file(),
            self._renew_leases(),
            self._keep_books(),
            self._share(),
            *([self._waiting.run()] if settings.usage.mode == "log" else []),
            self._alerts.run(),
        ):
            self._spawn(work)
        if self._worker:
            if self._secrets is not None:
                self._spawn(watch(lambda: self._settings.providers, self._rebuild))
        elif self._secrets is not None:
            keeper = Keeper(self._secrets, self._count_refresh)
            pause = lambda: EVERY - _BEAT + self._until_beat()  # noqa: E731 - at a wake-up of the other work
            self._spawn(keeper.run(lambda: self._settings.providers, self._rebuild, pause))
        elif waiting := [name for name, provider in settings.providers.items() if provider.credentials is not None]:
            log.warning("no process fetches the tokens of %s: serve was not given --secrets", ", ".join(waiting))

    @property
    def _several(self) -> bool:
        return self._settings.processor.workers > 1

    def _open_doors(self) -> None:
        """Raises OSError, naming the address, when one is not available."""
        if self._worker:
            self._http.add_private(self._inner, workers.inner_socket(self._socket, self._worker))
            return
        settings = self._settings
        token = settings.admin.token.read() if settings.admin.token else None
        if settings.admin.token is not None and token is None:
            raise OSError(f"admin.token: {settings.admin.token} is not set")
        everything = self._everything()
        doors = (
            ("status", self._status, settings.status),
            ("admin", lambda: admin.admin_app(everything, token), settings.admin),
        )
        for name, make, door in doors:
            try:
                self._http.add(make, door.address, door.port)
            except OSError as error:
                raise OSError(f"{name}: cannot listen on {door.address}:{door.port}: {error.strerror}") from error

    def _status(self) -> Any:
        siblings = self._siblings() if self._several else None
        return admin.status_app(self._telemetry, self._stalled, self._unready, self._remark, siblings)

    def _siblings(self) -> admin.Siblings:
        return admin.Siblings(self._socket, self._settings.processor.workers)

    def _inner(self) -> Any:
        return admin.inner_app(
            self._telemetry.registry.collect,
            lambda: admin.Health(self._stalled(), self._unready(), self._remark()),
            lambda: admin.Findings(list(self._telemetry.recent), self._history.deployments()),
        )

    async def stop(self, *, notice: float = _DRAIN_NOTICE, grace: float = _DRAIN_GRACE) -> None:
        """Drain: `notice` seconds for Envoy to look elsewhere, up to `grace` seconds for streams to end."""
        if self._server is not None:
            await self._server.drain(notice, grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._http.stop)  # clients of that server may be waiting for this loop
        with contextlib.suppress(StoreError):  # owed settles still get their rows
            await self._books.catch_up()
        await asyncio.to_thread(self._ledger.stop)
        with contextlib.suppress(StoreError):  # a lease that ends reports the same again
            await self._books.catch_up()
        self._ledger.close()
        await self._counters.close()
        if self._answers is not None:
            await self._answers.close()
        await asyncio.to_thread(self._lines.flush, _LAST_LINES)

    def _everything(self) -> Everything:
        return Everything(
            self._reporter,
            lambda: self._settings.budgets,
            self._telemetry.recent,
            self._history.deployments,
            asyncio.get_running_loop(),
            siblings=self._siblings if self._several else None,
            answers=self._answers,
        )

    def _line_lost(self) -> None:
        self._telemetry.line_lost()

    def _stalled(self) -> str:
        """The reason why this process should be restarted. Called from the thread that serves probes."""
        stood = time.monotonic() - self._turned
        return (
            f"the event loop has stood still for {stood:.0f} s" if stood > self._settings.status.stalled_after else ""
        )

    def _unready(self) -> str:
        """The reason why Envoy should send nothing here."""
        return "" if self._server is not None and self._server.serving else "draining"

    def _remark(self) -> str:
        """A remark for people who look at /readyz: settings that are not those of the file. Traffic is served all the
        same.
        """
        return f"settings are stale: {self._stale}" if self._stale else ""

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=getattr(work, "__qualname__", "work"))
        self._tasks.add(task)
        task.add_done_callback(self._log_end)

    def _log_end(self, task: asyncio.Task[None]) -> None:
        """Log a background task that ended by itself: leases would never end, and no log line would say so."""
        if not task.cancelled():
            self._telemetry.internal_error(task.get_name())
            log.error("%s ended: a bug; restart", task.get_name(), exc_info=task.exception())

    def _until_beat(self) -> float:
        """Seconds until the next beat; processes beat at different moments."""
        left = _BEAT - (time.monotonic() + self._phase) % _BEAT
        return left if left > _BEAT / 10 else left + _BEAT  # a timer may be a little early

    async def _watch_lag(self) -> None:
        while True:
            wait = self._until_beat()
            due = time.monotonic() + wait
            await asyncio.sleep(wait)
            self._turned = time.monotonic()
            self._telemetry.loop_lag.set(max(0.0, self._turned - due))

    async def _watch_file(self) -> None:
        """Compare the file's content once a second, which shows an edit, a rename and the symlink swap of a ConfigMap
        alike. A new day may begin with other prices. No content of a file ends this loop.
        """
        while True:
            await asyncio.sleep(self._until_beat())
            try:
                if self._pipeline.catalog.prices.today != datetime.now(UTC).date():
                    self._rebuild()
                content = await asyncio.to_thread(config.content, self._file)
                if content != self._content:
                    self._content = content
                    await self.reload()
            except Exception as error:
                self._telemetry.internal_error("reload")
                log.exception("looking for new settings failed; it is tried again")
                self._keep_settings(f"{type(error).__name__}: see the log")

    async def reload(self) -> None:
        """Take the settings file's new content, or keep the last good settings and log the error."""
        try:
            settings = await asyncio.to_thread(config.load, self._file)
        except ConfigError as error:
            self._keep_settings(str(error))
            return
        except Exception as error:  # a MemoryError, or a bug in a check: not a reason to stop reloading
            log.exception("the new settings cannot be read")
            self._keep_settings(f"they cannot be read: {type(error).__name__}")
            return
        changed = [name for name in _FIXED if _bound_at_start(settings, name) != _bound_at_start(self._settings, name)]
        if changed:
            self._keep_settings(f"changes of {', '.join(changed)} bind at a restart")
        elif other := self._changed_units(settings):
            self._keep_settings(f"the counts of {', '.join(other)} are in another unit: give the budget a new name")
        else:
            self._take(settings)
            self._units |= _units(settings)
            self._telemetry.reloads.labels("taken").inc()
            log.info("new settings taken")

    def _keep_settings(self, reason: str) -> None:
        """Keep the last good settings, and report that the file differs."""
        self._stale = reason
        self._telemetry.settings_stale.set(1)
        self._telemetry.reloads.labels("refused").inc()
        log.error("the new settings are refused; the last good ones stay: %s", reason)

    def _changed_units(self, settings: Settings) -> Sequence[str]:
        """Budgets that would read counts of one unit as those of another: tokens as nano-USD."""
        return [name for name, unit in _units(settings).items() if self._units.get(name, unit) != unit]

    def _build(self, settings: Settings) -> Pipeline:
        return pipeline.build(
            settings,
            self._counters,
            self._leases,
            self._telemetry,
            history=self._history,
            tools=self._tools,
            books=self._books,
            own=Own(self._reporter, settings.budgets, settings.limits.reports),
            waiting=self._waiting,
            in_flight=self._in_flight,
            answers=self._answers,
        )

    def _take(self, settings: Settings) -> None:
        """Use `settings` from the next request on. Raises, and changes nothing, if no pipeline can be built from
        them.
        """
        made = self._build(settings)
        budgets = {entry.name: compile_budget(entry) for entry in settings.budgets}
        self._telemetry.configure(settings)
        self._settings, self._pipeline, self._budgets = settings, made, budgets
        self._teams = {entry.name: entry.team or "" for entry in settings.consumers}
        self._stale = ""
        self._telemetry.settings_stale.set(0)

    def _rebuild(self) -> None:
        """Build the pipeline anew, with its inputs outside the settings: the keys that are present."""
        self._take(self._settings)

    def _count_refresh(self, provider: str, outcome: str) -> None:
        self._telemetry.credential_refreshes.labels(provider, outcome).inc()

    async def _share(self) -> None:
        """Exchange findings of tries with other workers and replicas, and read the grants of operators."""
        me = uuid.uuid4().hex
        while True:
            await asyncio.sleep(self._until_beat())
            with contextlib.suppress(StoreError):  # findings of this process stay here
                self._history.merge(await self._counters.share("providers", me, self._history.note(), _SHARED_FOR))
                await self._grants.refresh()

    async def _renew_leases(self) -> None:
        while True:
            lease = self._settings.limits.lease
            await asyncio.sleep(lease / 3)
            with contextlib.suppress(StoreError):  # two more renewals fit into the lease
                await self._counters.renew(list(self._leases), lease)

    async def _keep_books(self) -> None:
        """End the leases of dead exchanges, and keep counters and ledger in agreement."""
        pruned = 0.0
        while True:
            await asyncio.sleep(self._until_beat())
            try:
                await self._books.turn(self._budgets, self._teams)
            except CountsLostError:
                self._telemetry.store_losses.inc()
                log.error("the counters store lost its counts: budgets begin anew")  # noqa: TRY400
            except StoreError:
                pass
            keep = self._settings.stores.ledger_keep
            if keep is not None and not self._worker and time.monotonic() - pruned > _PRUNE_EVERY:
                pruned = time.monotonic()
                with contextlib.suppress(LedgerError):  # there is no hurry
                    await asyncio.to_thread(self._ledger.prune, time.time() - keep)

    def _report(self, expired: Expired) -> None:
        self._telemetry.lease_expired(expired.forwarded)
        log.warning("the reservation of exchange %s ran out: charged %s", expired.id, expired.amounts)


def _open_answers(settings: Settings) -> Answers | None:
    """The kept answers. Raises OSError."""
    try:
        return open_answers(settings.stores.cache, settings.cache)
    except CacheError as error:
        raise OSError(f"stores.cache: {error}") from None


def _units(settings: Settings) -> dict[str, str]:
    return {entry.name: entry.unit for entry in settings.budgets}


def _bound_at_start(settings: Settings, name: str) -> object:
    """The part of a section that Envoy or the start depends on: a provider's kill switch binds at once."""
    if name == "auth":
        return settings.auth.jwt
    if name == "cache":
        kept = settings.cache
        return bool(kept.rules), kept.key, kept.memory, kept.disk
    if name == "telemetry":
        return settings.telemetry.traces
    if name == "usage":
        return settings.usage.mode, settings.usage.log_interval
    if name != "providers":
        return getattr(settings, name)
    free = CoolDown()
    return {
        name: provider.model_copy(update={"disabled": False, "cool_down": free})
        for name, provider in settings.providers.items()
    }


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
