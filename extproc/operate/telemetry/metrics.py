"""Telemetry: counts an ended exchange, and writes its log line. `groups` declares the metrics.

Label values come from the settings or from a bounded set. Further values become `other`, so no client can make the
number of series grow.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from extproc.cache.caching import CACHING, SHADOWS, Caching
from extproc.money.budgets import input_estimate
from extproc.money.budgets.costs import is_of_other
from extproc.operate.telemetry.conventions import VERSIONS, Conventions
from extproc.operate.telemetry.declared import SharedCounter
from extproc.operate.telemetry.groups import (
    TIMED,
    Consumers,
    CostMetrics,
    GatewayMetrics,
    LimitMetrics,
    ProviderMetrics,
    Requests,
    ToolMetrics,
)
from extproc.operate.telemetry.groups import LedgerMetrics as LedgerRows
from extproc.operate.telemetry.logs import describe, json_line
from extproc.operate.telemetry.outbox import Outbox, Sender
from extproc.operate.telemetry.prefixes import Prefixes
from extproc.operate.telemetry.recent import Recent
from extproc.operate.telemetry.traces import error_type
from extproc.settings.config import Settings
from extproc.tools.mcp.call import CALL, EXECUTE, TOOLS_CALL
from extproc.tools.mcp.settings import HOP
from extproc.upstream.prices import NANO
from extproc.upstream.providers import kinds
from extproc.words.exchange import Exchange, Target, Verdict

if TYPE_CHECKING:
    from extproc.money.ledger import Row
    from extproc.money.ledger.writer import Writer

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call] # saves an unused series for each counter and histogram

_MAX_LABEL_VALUES = 200
"""Most values of a label that is not from the settings; further values become `other`."""
_MAX_COMBINATIONS = 1000
"""Most combinations of such values that are counted separately: a few labels of 200 values would make millions of
series.
"""
_MAX_ERRORS = 64
"""Most kinds of errors that are counted separately."""
_MAX_TOOLS = 2000
"""Most names of tools that are counted separately."""
_TELL_EVERY = 60.0  # seconds between two log lines about one provider's refusals of the gateway's key
_MAX_STRANGERS = 100  # most recent exchanges without a consumer: wrong keys must not displace real ones
_MAX_EXCHANGES = 1000
"""Most recent exchanges in memory, for the admin API."""


class Bounded:
    """Bounds the values of a label: known values and the first new ones pass, all others become `other`."""

    def __init__(self, known: Collection[str] = (), learn: int = 0) -> None:
        self._known = set(known)
        self._learn = learn

    def __call__(self, value: str) -> str:
        if value in self._known or not value:
            return value
        if self._learn > 0:
            self._learn -= 1
            self._known.add(value)
            return value
        return "other"


class Telemetry(
    Requests, Consumers, ToolMetrics, GatewayMetrics, ProviderMetrics, CostMetrics, LimitMetrics, LedgerRows
):
    """The metrics of one process. `configure` is called again when the settings change; counts continue."""

    def __init__(self, settings: Settings, write: Callable[[str], object] | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        super().__init__(registry, settings.attribution.metrics)
        self._conventions: Conventions = VERSIONS[settings.telemetry.semconv](registry)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._attributed = tuple(settings.attribution.metrics)
        self._label_values = {name: Bounded(learn=_MAX_LABEL_VALUES) for name in self._attributed}
        self._response_model = Bounded(learn=_MAX_LABEL_VALUES)
        self._error = Bounded(learn=_MAX_ERRORS)
        self._tool = Bounded(learn=_MAX_TOOLS)
        self._wild_model = Bounded(learn=_MAX_LABEL_VALUES)
        self._combinations: set[tuple[str, str]] = set()
        self._spenders: set[tuple[str, ...]] = set()
        self._most_spenders = settings.attribution.max_series
        self._told: dict[str, float] = {}  # provider -> when its refused credential was logged
        self.write: Callable[[str], object] = write or sys.stdout.write
        """Writes a line of the log."""
        self.recent = Recent(_MAX_EXCHANGES, _MAX_STRANGERS)

        self._prefixes = Prefixes()
        self._used: set[str] = set()  # budgets with a gauge of their used share
        self._begun = 0
        self.under_way: dict[str, Exchange] = {}
        """Exchanges not yet ended, by id."""
        self._exchanges.set_function(lambda: len(self.under_way))
        self.streams = 0
        """Open gRPC streams of Envoy."""
        self._streams.set_function(lambda: self.streams)
        self.outboxes: dict[str, Outbox[Any]] = {}
        """Outboxes for collectors, by the name of their setting."""
        self._certificate_shown: tuple[str, tuple[float, float] | None] = "", None
        self.configure(settings)

    def certificate(self, file: str, dates: tuple[float, float] | None) -> None:
        """Set the dates of the listener's certificate, once known. Further calls cost nothing."""
        if (file, dates) == self._certificate_shown:
            return
        self._certificate_shown = file, dates
        for index, gauge in enumerate((self._certificate_begins, self._certificate_ends)):
            gauge.clear()
            if dates is not None:
                gauge.labels(file).set(dates[index])

    def stage(self, name: str) -> Callable[[float], None]:
        """The observer (seconds) of a stage."""
        return self._stage.series((name,)).observe

    def outbox(self, name: str, sender: Callable[[], Sender[Any]], count: SharedCounter) -> Outbox[Any]:
        """The process's outbox of that name, created with `sender` if missing. `count` gets the outcomes."""
        if (found := self.outboxes.get(name)) is None:
            found = Outbox(name, sender(), lambda outcome, number: count.labels(outcome).inc(number))
            self.outboxes[name] = found
        return found

    def configure(self, settings: Settings) -> None:
        """Apply the names of new settings. The labels of metrics do not change after the start."""
        self._models = {*settings.models, *settings.virtual_models}
        self._providers = {name: kinds()[provider.kind].gen_ai_name for name, provider in settings.providers.items()}
        self._log = settings.telemetry.access_log == "stdout"
        for provider in self._providers:  # begin these series at 0, so that an alert sees the first event
            self._credentials.labels(provider)
        for budget in settings.budgets:
            self.budget.labels(budget.name, "store_failure")
        for gone in self._used - {budget.name for budget in settings.budgets}:
            self._used.discard(gone)
            self._budget_used.remove(gone)

    def provider_name(self, provider: str) -> str:
        """OpenTelemetry's name of a configured provider."""
        return self._providers.get(provider, "other")

    @property
    def in_flight(self) -> int:
        """The number of exchanges not yet ended."""
        return len(self.under_way)

    def begin(self) -> bool:
        """Count an exchange that begins. Returns whether its stages are timed: the first exchange, and then one in
        `TIMED`.
        """
        self._begun += 1
        return self._begun % TIMED == 1

    def guardrail(self, verdict: Verdict) -> None:
        """Count a verdict of a guardrail."""
        if verdict.action == "failed":
            self._guardrail_failures(verdict.guardrail, verdict.reason)
        else:
            self._guardrail(verdict.guardrail, verdict.action)

    def tool_approval(self, server: str, outcome: str) -> None:
        """Count a call that needs the approval of a person."""
        self._tool_approvals(server, outcome)

    def tool_changed(self, server: str, _tool: str) -> None:
        """Count a definition of a tool that differs from its pin."""
        self._tool_changes(server)

    def guardrail_call(self, guardrail: str, kind: str, outcome: str, seconds: float) -> None:
        """Count a call of a guardrail to its service."""
        self._guardrail_calls.series((guardrail, kind, outcome)).observe(seconds)

    def budget_used(self, name: str, share: Callable[[], float]) -> None:
        """Add a budget's gauge. The given function returns the share of its fullest count at each scrape."""
        self._used.add(name)
        self._budget_used.labels(name).set_function(share)

    def watch(self, ledger: Writer) -> None:
        """Count the rows of the ledger."""
        outcomes = ("written", "dropped", "refused")
        self._ledger_rows.read = lambda: {(outcome,): getattr(ledger, outcome) for outcome in outcomes}
        self._ledger_failures.read = lambda: {(): ledger.failures}
        self._ledger_queued.read = lambda: {(): ledger.queued}

    def attempt(self, provider: str, target: str, outcome: str, seconds: float) -> None:
        """Count a try that Envoy reported. `target` is the name of a target, `outcome` is from a fixed set
        (tries.OUTCOMES).
        """
        if provider.startswith(HOP) and provider not in self._providers:
            self._asked.series((provider.removeprefix(HOP), "" if outcome == "ok" else outcome, "tcp")).observe(seconds)
            return
        if provider not in self._providers:
            provider = "other"
        self._tries.add((provider, self._model(target), outcome))
        self._try_seconds.series((provider,)).observe(seconds)
        if outcome not in ("ok", "client_left", "cut"):
            self._lost_seconds.labels(provider, outcome).inc(seconds)
        if outcome in ("401", "403", "credential"):
            self._credentials(provider)
            if time.monotonic() - self._told.get(provider, -_TELL_EVERY) >= _TELL_EVERY:
                self._told[provider] = time.monotonic()
                log.error("provider %s refuses the gateway's credential; its requests fail over, or fail", provider)

    def record(self, exchange: Exchange) -> None:
        """Count an exchange that ended, and write its line."""
        status = str(exchange.answer.status) if 100 <= exchange.answer.status <= 599 else "none"
        self._requests.add((exchange.request.operation, status))
        if hasattr(exchange.money, "labels"):
            self._count_consumer(exchange, f"{status[0]}xx" if status != "none" else status)
        if CALL in exchange.features:
            self._count_call(exchange)
        elif exchange.route.forwarded:
            self._count(exchange)
        if (caching := exchange.features.get(CACHING)) is not None:
            self._count_cache(exchange, caching)
        entry = describe(exchange)
        if exchange.route.forwarded and not exchange.route.of_tools and (warning := self._prefixes.warning(exchange)):
            entry["warning"] = warning
        self.recent.add(entry, known=hasattr(exchange, "consumer"))
        if self._log:
            self._line(entry)

    def settled_late(self, row: Row, spender: str) -> None:
        """Count the usage of an exchange that became known after its end."""
        self._usage_source.add((row.usage_source,))
        who = self._spender(spender, row.team, row.labels)
        self._consumer_tokens.add((*who, "input"), row.input_tokens)
        self._consumer_tokens.add((*who, "output"), row.output_tokens)
        where = row.provider if row.provider in self._providers else "other", self._model(row.target)
        if row.cost is None:
            self._no_price.add(where)
        elif row.cost:
            self._consumer_cost.add(who, row.cost / NANO)
            self._cost.add(where, row.cost / NANO)

    def _line(self, entry: Mapping[str, Any]) -> None:
        try:
            self.write(json_line(entry) + "\n")
        except OSError:  # a full disk or a missing reader must not fail a request
            self.line_lost()

    def _count(self, exchange: Exchange) -> None:
        usage, target, report = exchange.money.usage, exchange.answer.target, exchange.answer.report
        error = self._error(error_type(exchange))
        provider = self.provider_name(target.provider) if target else ""
        labels = (exchange.request.operation, provider, *self._models_of(exchange), error)
        self._duration.series(labels).observe(exchange.seconds)
        self._conventions.count(exchange, labels)
        self._usage_source.add((usage.source,))
        if usage.source == "provider" and usage.input_tokens and target is not None:
            self._count_guesses(exchange, target.provider)
        self._count_cost(exchange)
        if exchange.request.ask.stream and exchange.answer.first_token is not None:
            self._first_token.series(labels).observe(exchange.answer.first_token)
            if exchange.ending.complete and usage.output_tokens > 1:
                seconds = exchange.seconds - exchange.answer.first_token
                self._per_token.series(labels).observe(seconds / (usage.output_tokens - 1))
        if report is not None and report.usage_refused and target is not None:
            self._bad_usage(target.provider)
        if exchange.answer.attempts > 1 and target is not None:
            self._failovers(target.provider)
        if target is not None and target.facts.retires is not None:
            self._count_ending(exchange, target)

    def _count_ending(self, exchange: Exchange, target: Target) -> None:
        """Count an exchange with a model whose end is near, for the alerts that name its consumers."""
        days = target.facts.notice(datetime.now(UTC).date())
        if days is not None:
            self._ending(exchange.consumer.series, self._model(target.name), target.facts.successor, str(days))

    def _count_call(self, exchange: Exchange) -> None:
        """Count a message of MCP. Names of tools come from catalogues."""
        call, operation = exchange.features[CALL], exchange.request.operation
        tool = (EXECUTE, self._tool(call.listed_tool) or "other") if operation == TOOLS_CALL else ("", "")
        error, code = self._error(exchange.error), str(call.rpc_error or "")
        labels = (operation, *tool, error, code, call.version, "tcp", call.profile, call.server)
        self._served.series(labels).observe(exchange.seconds)

    def _count_cache(self, exchange: Exchange, caching: Caching) -> None:
        self._cache.add((caching.outcome,))
        if caching.saved:
            mode = "shadow" if caching.outcome in SHADOWS else "enforce"
            self._saved.add((mode, *self._spender_of(exchange)), caching.saved / NANO)

    def _count_consumer(self, exchange: Exchange, status: str) -> None:
        spender = self._spender_of(exchange)
        self._consumer_requests.add((*spender, status))
        if exchange.route.forwarded and exchange.money.usage.source != "none":
            self._consumer_tokens.add((*spender, "input"), exchange.money.usage.input_tokens)
            self._consumer_tokens.add((*spender, "output"), exchange.money.usage.output_tokens)
            if exchange.money.usage.cached_tokens or exchange.money.usage.cache_write_tokens:
                self._count_prompt_cache(exchange, spender)
        if exchange.money.cost:
            self._consumer_cost.add(spender, exchange.money.cost / NANO)

    def _count_prompt_cache(self, exchange: Exchange, spender: tuple[str, ...]) -> None:
        usage = exchange.money.usage
        self._prompt_tokens.add((*spender, "read"), usage.cached_tokens)
        self._prompt_tokens.add((*spender, "write"), usage.cache_write_tokens)
        self._prompt_cost.add((*spender, "read"), exchange.money.prompt_saved / NANO)
        self._prompt_cost.add((*spender, "write"), exchange.money.prompt_extra / NANO)

    def _count_guesses(self, exchange: Exchange, provider: str) -> None:
        if provider not in self._providers:
            provider = "other"
        actual = exchange.money.usage.input_tokens
        self._guessed.series((provider, "estimate")).observe(input_estimate(exchange) / actual)
        self._guessed.series((provider, "held")).observe(exchange.money.reservation.input_tokens / actual)

    def _count_cost(self, exchange: Exchange) -> None:
        if exchange.money.cost == 0:
            return
        target = exchange.answer.target or exchange.route.targets[0]
        where = target.provider if target.provider in self._providers else "other", self._model(target.name)
        if exchange.money.cost is None:
            self._no_price.add(where)
        else:
            self._cost.add(where, exchange.money.cost / NANO)
            if exchange.answer.target is not None and is_of_other(exchange):
                self._served_other.add(where)

    def _models_of(self, exchange: Exchange) -> tuple[str, str]:
        """The model that the client requested and the model that the provider names, bounded, because both choose
        freely.
        """
        values = (
            self._model(exchange.request.ask.model),
            self._response_model(exchange.answer.report.model if exchange.answer.report else ""),
        )
        if values not in self._combinations:
            if len(self._combinations) >= _MAX_COMBINATIONS:
                return values[0] if values[0] in self._models else "other", "other" if values[1] else ""
            self._combinations.add(values)
        return values

    def _spender_of(self, exchange: Exchange) -> tuple[str, ...]:
        return self._spender(exchange.consumer.series, exchange.consumer.team, exchange.money.labels)

    def _spender(self, series: str, team: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Consumer, team, and the labels of `attribution.metrics`."""
        values = (
            series,
            team,
            *[self._label_values[name](labels.get(name, "")) for name in self._attributed],
        )
        if values not in self._spenders:
            if len(self._spenders) >= self._most_spenders:
                return tuple(["other" if value else "" for value in values])
            self._spenders.add(values)
        return values

    def _model(self, name: str) -> str:
        return name if name in self._models else self._wild_model(name)


class Record:
    """Counts the exchange and writes its line."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def __call__(self, exchange: Exchange) -> None:
        self._telemetry.record(exchange)
