"""Metrics. All their public names are in this file; the log of an exchange is in `logs`.

Names and units follow the OpenTelemetry semantic conventions for generative AI, version 1.37, in Prometheus form
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/). Label values come from the settings or from a
bounded set. Values beyond it are `other`, so no client can make the number of series grow.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from extproc.money.budgets import input_estimate
from extproc.operate.telemetry.histogram import Counts, Histogram
from extproc.operate.telemetry.logs import describe, describe_verdicts, json_line
from extproc.operate.telemetry.prefixes import Prefixes
from extproc.operate.telemetry.recent import Recent
from extproc.operate.telemetry.traces import error_type
from extproc.settings.config import Settings
from extproc.tools.mcp.settings import HOP
from extproc.upstream.prices import NANO
from extproc.upstream.providers import kinds
from extproc.words.caching import SHADOWS
from extproc.words.exchange import Exchange
from extproc.words.verdicts import Verdict

if TYPE_CHECKING:
    from extproc.money.ledger.ledger import Ledger
    from extproc.operate.telemetry.tools import ToolMetrics

# The buckets that the conventions advise.
_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
_RATIO = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 25.0)

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for every counter and histogram, which nobody asks for

_MAX_LABEL_VALUES = 200
"""Values that a label which is not from the settings can take before the rest is `other`."""
_MAX_COMBINATIONS = 1000
"""Combinations of such values that are counted apart: together, a few labels of 200 values make millions of series."""
_TIMED = 16
"""Exchanges of which the stages of one are timed: 27 clocks and histograms cost 10 µs."""
_MAX_ERRORS = 64
"""Kinds of errors counted apart."""
_TELL_EVERY = 60.0  # seconds between two log lines about one provider's refusals of the gateway's key
_MAX_STRANGERS = 100  # of them without a consumer: wrong keys must not push the others out
_MAX_EXCHANGES = 1000
"""Recent exchanges kept in memory for the admin API."""


class Bounded:
    """Lets through the values it knows and the first few it learns; everything else becomes `other`."""

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


class Telemetry:
    """The metrics of one process. `configure` is called again when the settings change; the counts go on."""

    def __init__(self, settings: Settings, write: Callable[[str], object] | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._attributed = tuple(settings.attribution.metrics)
        self._label_values = {name: Bounded(learn=_MAX_LABEL_VALUES) for name in self._attributed}
        self._response_model = Bounded(learn=_MAX_LABEL_VALUES)
        self._error = Bounded(learn=_MAX_ERRORS)
        self._wild_model = Bounded(learn=_MAX_LABEL_VALUES)
        self._combinations: set[tuple[str, str]] = set()
        self._spenders: set[tuple[str, ...]] = set()
        self._most_spenders = settings.attribution.max_series
        self.tools: ToolMetrics | None = None  # of the MCP gateway, where there is one
        self._told: dict[str, float] = {}  # provider -> when its refused credential was logged
        self._write = write or sys.stdout.write
        self.recent = Recent(_MAX_EXCHANGES, _MAX_STRANGERS)

        names = [
            "gen_ai_operation_name",
            "gen_ai_provider_name",
            "gen_ai_request_model",
            "gen_ai_response_model",
            "error_type",
        ]
        self._tokens = Histogram(
            "gen_ai_client_token_usage", "Tokens used", [*names, "gen_ai_token_type"], _TOKENS, registry
        )
        self._operation = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "From the request's departure to a provider to the end of the answer, with all tries",
            names,
            _DURATION,
            registry,
        )
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From the request's headers to the end of the answer",
            names,
            _DURATION,
            registry,
        )
        self._first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request's headers to the first piece of a streamed answer",
            names,
            _FIRST_TOKEN,
            registry,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Between the pieces of a streamed answer, per token after the first",
            names,
            _PER_TOKEN,
            registry,
        )
        self._requests = Counts("extproc_requests", "Exchanges ended", ["operation", "status"], registry)
        self._refusals = Counter("extproc_refusals", "Requests the gateway refused", ["code"], registry=registry)
        self._tries = Counts(
            "extproc_tries", "Tries at a provider, by outcome", ["provider", "model", "outcome"], registry
        )
        self._try_seconds = Histogram("extproc_try_seconds", "Duration of a try", ["provider"], _DURATION, registry)
        self._admin_refused = Counter(
            "extproc_admin_refused",
            "Wrong tokens at the admin API, and requests refused for them",
            ["reason"],
            registry=registry,
        )
        self._peer_faults = Counter(
            "extproc_peer_faults",
            "Bytes at the processor's socket that Envoy would not send",
            ["kind"],
            registry=registry,
        )
        self._lost_seconds = Counter(
            "extproc_failed_tries_seconds", "Time lost to failed tries", ["provider", "outcome"], registry=registry
        )
        self._credentials = Counter(
            "extproc_provider_credentials_rejected",
            "Tries that a provider refused because of the gateway's own key: check the key",
            ["provider"],
            registry=registry,
        )
        self.credential_refreshes = Counter(
            "extproc_credential_refreshes",
            "Keys read again and tokens fetched, by outcome",
            ["provider", "outcome"],
            registry=registry,
        )
        self._skips = Counter(
            "extproc_targets_skipped", "Targets that a request skipped", ["reason"], registry=registry
        )
        self._failovers = Counter(
            "extproc_failovers", "Exchanges that needed more than one try", ["provider"], registry=registry
        )
        self._stage = Histogram(
            "extproc_stage_seconds", f"Time in a stage, of one exchange in {_TIMED}", ["stage"], _STAGE, registry
        )
        self._guardrail = Counter(
            "extproc_guardrail_findings", "Findings of guardrails", ["guardrail", "action"], registry=registry
        )
        self._guardrail_failures = Counter(
            "extproc_guardrail_failures",
            "Requests and answers that a guardrail could not check",
            ["guardrail", "reason"],
            registry=registry,
        )
        self._guardrail_calls = Histogram(
            "extproc_guardrail_call_seconds",
            "Calls of guardrails to services, by outcome",
            ["guardrail", "kind", "outcome"],
            _CALLS,
            registry,
        )
        self._budget = Counter(
            "extproc_budget_decisions", "Decisions of budgets", ["budget", "verdict"], registry=registry
        )
        self._budget_used = Gauge(
            "extproc_budget_used_ratio", "Share of the limit spent, in the fullest count", ["budget"], registry=registry
        )
        self._used: set[str] = set()  # budgets with such a share
        where = ["provider", "model"]
        self._cost = Counts("extproc_cost_usd", "Cost of exchanges, in USD", where, registry)
        spender = [
            "consumer",
            "team",
            *(f"label_{name.replace('-', '_').replace('.', '_')}" for name in self._attributed),
        ]
        self._consumer_requests = Counts("extproc_consumer_requests", "Exchanges ended", [*spender, "status"], registry)
        self._consumer_cost = Counts("extproc_consumer_cost_usd", "Cost of exchanges, in USD", spender, registry)
        self._consumer_tokens = Counts(
            "extproc_consumer_tokens", "Tokens used", [*spender, "gen_ai_token_type"], registry
        )
        self._no_price = Counts("extproc_cost_unknown", "Exchanges whose price is unknown", where, registry)
        self._prefixes = Prefixes()
        self._prompt_tokens = Counts(
            "extproc_prompt_cache_tokens",
            "Input tokens that providers read from their prompt caches, and wrote to them",
            [*spender, "kind"],
            registry,
        )
        self._prompt_cost = Counts(
            "extproc_prompt_cache_usd",
            "USD that reads from the prompt caches of providers saved, and that writes cost",
            [*spender, "kind"],
            registry,
        )
        self._cache = Counts("extproc_cache", "Looks into the cache of answers, by outcome", ["outcome"], registry)
        self._saved = Counts(
            "extproc_cache_saved_usd",
            "Cost that kept answers had, in USD; in shadow mode: that they would have saved",
            ["mode", *spender],
            registry,
        )
        self._usage_source = Counts("extproc_usage", "Exchanges by the source of their usage", ["source"], registry)
        self.unread = Counter(
            "extproc_unread", "Answers that passed unread, by what told their usage", ["outcome"], registry=registry
        ).labels
        self._bad_usage = Counter(
            "extproc_provider_usage_refused", "Usage that cannot be believed", ["provider"], registry=registry
        )
        self._expired = Counter(
            "extproc_leases_expired",
            "Reservations that ended by lease",
            ["forwarded"],
            registry=registry,
        )
        self.store_losses = Counter(
            "extproc_store_losses", "Times the counters store turned out to have lost its counts", registry=registry
        )
        self._unwritten = Counter(
            "extproc_log_lines_lost", "Log lines of exchanges that could not be written", registry=registry
        )
        self._alerts = Counter("extproc_budget_alerts", "Alerts of budgets, by outcome", ["outcome"], registry=registry)
        for forwarded in ("true", "false"):  # series from 0 on, so that an alert sees the first one
            self._expired.labels(forwarded)
        for outcome in ("told", "failed", "dropped"):
            self._alerts.labels(outcome)
        self._guessed = Histogram(
            "extproc_input_tokens_guessed_ratio",
            "Input tokens that were estimated (or held, as an upper bound) for each that the provider counted",
            ["provider", "guess"],
            _RATIO,
            registry,
        )
        self._downstream = Counter(
            "extproc_downstream_ends",
            "Requests at the public listener that ended without a whole answer of the processor's or a provider's",
            ["reason"],
            registry=registry,
        )
        self._errors = Counter(
            "extproc_internal_errors", "Bugs: the stream was ended and Envoy answered 500", ["where"], registry=registry
        )
        self._begun = 0
        self.in_flight = 0
        """Exchanges not yet ended."""
        in_flight = Gauge("extproc_exchanges_in_flight", "Exchanges not yet ended", registry=registry)
        in_flight.set_function(lambda: self.in_flight)
        self.body_bytes: Callable[[], int] = lambda: 0
        body_bytes = Gauge("extproc_body_bytes_in_flight", "Bytes of request bodies in flight", registry=registry)
        body_bytes.set_function(lambda: self.body_bytes())  # noqa: PLW0108 - it is set later
        self.streams = 0
        """gRPC streams of Envoy's."""
        streams = Gauge("extproc_grpc_streams", "gRPC streams of Envoy's", registry=registry)
        streams.set_function(lambda: self.streams)
        self.prompts: Any = None  # `accounting.prompts.PromptLog`, with `telemetry.prompts`
        self._prompt_events = Counter(
            "extproc_prompt_events", "Prompts for the collector of logs, by outcome", ["outcome"], registry=registry
        )
        self.tasks: Callable[[], int] = lambda: 0
        tasks = Gauge("extproc_tasks", "Tasks of the event loop", registry=registry)
        tasks.set_function(lambda: self.tasks())  # noqa: PLW0108 - it is set later
        self.loop_lag = Gauge("extproc_event_loop_lag_seconds", "How late the event loop was", registry=registry)
        self.reloads = Counter("extproc_reloads", "Changes of the settings file", ["outcome"], registry=registry)
        for outcome in ("taken", "refused"):
            self.reloads.labels(outcome)
        self.settings_stale = Gauge(
            "extproc_settings_stale", "1 while the settings file differs from the settings in use", registry=registry
        )
        self._certificate_shown: tuple[str, tuple[float, float] | None] = "", None
        self._certificate = [
            Gauge(f"extproc_listener_certificate_{name}_seconds", text, ["file"], registry=registry)
            for name, text in (
                ("not_before", "Begin of the listener's certificate, in seconds since the epoch"),
                ("not_after", "End of the listener's certificate, in seconds since the epoch"),
            )
        ]
        for reason in ("invalid_token", "too_many"):
            self._admin_refused.labels(reason)
        for fault in ("http2", "message"):
            self._peer_faults.labels(fault)
        for bug in ("GatewayStream", "AttemptStream", "reload"):
            self._errors.labels(bug)
        self.configure(settings)

    def certificate(self, file: str, dates: tuple[float, float] | None) -> None:
        """The dates of the listener's certificate, when they are known. Called again, it costs nothing."""
        if (file, dates) == self._certificate_shown:
            return
        self._certificate_shown = file, dates
        for index, gauge in enumerate(self._certificate):
            gauge.clear()
            if dates is not None:
                gauge.labels(file).set(dates[index])

    def stage(self, name: str) -> Callable[[float], None]:
        """The observer (seconds) of a stage."""
        return self._stage.series((name,)).observe

    def configure(self, settings: Settings) -> None:
        """Take the names of new settings; the labels of metrics stay as they were at the start."""
        self._models = {*settings.models, *settings.virtual_models}
        self._providers = {name: kinds()[provider.kind].gen_ai_name for name, provider in settings.providers.items()}
        self._log = settings.telemetry.access_log == "stdout"
        for provider in self._providers:  # series from 0 on, so that an alert sees the first event
            self._credentials.labels(provider)
        for budget in settings.budgets:
            self._budget.labels(budget.name, "store_failure")
        for gone in self._used - {budget.name for budget in settings.budgets}:
            self._used.discard(gone)
            self._budget_used.remove(gone)
        if settings.mcp is not None and self.tools is None:
            from extproc.operate.telemetry.tools import ToolMetrics  # noqa: PLC0415 - most gateways serve models alone

            self.tools = ToolMetrics(self.registry)

    def prompt_events(self, outcome: str, number: int) -> None:
        """Count prompts that were sent, failed or dropped."""
        self._prompt_events.labels(outcome).inc(number)

    def provider_name(self, provider: str) -> str:
        """OpenTelemetry's name of a configured provider."""
        return self._providers.get(provider, "other")

    def begin(self) -> bool:
        """An exchange began. Returns whether its stages are timed: the first, and then one in `_TIMED`."""
        self.in_flight += 1
        self._begun += 1
        return self._begun % _TIMED == 1

    def guardrail(self, verdict: Verdict) -> None:
        """Count a verdict of a guardrail."""
        if verdict.action == "failed":
            self._guardrail_failures.labels(verdict.guardrail, verdict.reason).inc()
        else:
            self._guardrail.labels(verdict.guardrail, verdict.action).inc()

    def tool_changed(self, server: str, _tool: str) -> None:
        """Count a definition of a tool that differs from its pin."""
        if self.tools is not None:
            self.tools.changed(server)

    def guardrail_call(self, guardrail: str, kind: str, outcome: str, seconds: float) -> None:
        """Count a call of a guardrail to its service."""
        self._guardrail_calls.series((guardrail, kind, outcome)).observe(seconds)

    def line_lost(self) -> None:
        """A line of the log was dropped. May be called from any thread."""
        self._unwritten.inc()

    def skip(self, reason: str) -> None:
        self._skips.labels(reason).inc()

    def budget(self, name: str, verdict: str) -> None:
        self._budget.labels(name, verdict).inc()

    def budget_used(self, name: str, share: Callable[[], float]) -> None:
        """Take in a budget, and what tells the share of its fullest count. It is asked at each scrape."""
        self._used.add(name)
        self._budget_used.labels(name).set_function(share)

    def alert(self, outcome: str) -> None:
        """Count an alert by its outcome: told, failed, dropped."""
        self._alerts.labels(outcome).inc()

    def watch(self, ledger: Ledger) -> None:
        """Register the metrics of the ledger."""
        queued = Gauge("extproc_ledger_queued", "Rows that wait to be written", registry=self.registry)
        queued.set_function(lambda: ledger.queued)
        self.registry.register(_LedgerRows(ledger))

    def refusal(self, code: str) -> None:
        self._refusals.labels(code).inc()

    def lease_expired(self, forwarded: bool) -> None:
        self._expired.labels(str(forwarded).lower()).inc()

    def admin_refused(self, reason: str) -> None:
        """Count a refusal of the admin API. Called from the thread that serves HTTP."""
        self._admin_refused.labels(reason).inc()

    def peer_fault(self, kind: str) -> None:
        self._peer_faults.labels(kind).inc()

    def internal_error(self, where: str) -> None:
        self._errors.labels(where).inc()

    def downstream_end(self, reason: str) -> None:
        self._downstream.labels(reason).inc()

    def attempt(self, provider: str, target: str, outcome: str, seconds: float) -> None:
        """Take in a try that Envoy reported. `target` is the name of a target, `outcome` from a fixed set
        (tries.OUTCOMES).
        """
        if self.tools is not None and provider.startswith(HOP):
            self.tools.attempt(provider.removeprefix(HOP), outcome, seconds)
            return
        if provider not in self._providers:
            provider = "other"
        self._tries.add((provider, self._model(target), outcome))
        self._try_seconds.series((provider,)).observe(seconds)
        if outcome not in ("ok", "client_left", "cut"):
            self._lost_seconds.labels(provider, outcome).inc(seconds)
        if outcome in ("401", "403", "credential"):
            self._credentials.labels(provider).inc()
            if time.monotonic() - self._told.get(provider, -_TELL_EVERY) >= _TELL_EVERY:
                self._told[provider] = time.monotonic()
                log.error("provider %s refuses the gateway's credential; its requests fail over, or fail", provider)

    def record(self, exchange: Exchange) -> None:
        """Count an exchange that ended, and write its line."""
        status = str(exchange.status) if 100 <= exchange.status <= 599 else "none"
        self._requests.add((exchange.operation, status))
        if hasattr(exchange, "labels"):
            self._count_consumer(exchange, f"{status[0]}xx" if status != "none" else status)
        if exchange.mcp is not None:
            if self.tools is not None:
                self.tools.record(exchange, self._error(exchange.error))
        elif exchange.forwarded:
            self._count(exchange)
        if exchange.caching is not None:
            self._count_cache(exchange)
        entry = describe(exchange)
        if exchange.forwarded and exchange.mcp is None and (warning := self._prefixes.warning(exchange)):
            entry["warning"] = warning
        self.recent.add(entry, known=hasattr(exchange, "consumer"))
        if self._log:
            self._line(entry)
            if exchange.verdicts:
                self._line(describe_verdicts(exchange))

    def _line(self, entry: Mapping[str, Any]) -> None:
        try:
            self._write(json_line(entry) + "\n")
        except OSError:  # no room or no reader: no reason to fail a request
            self._unwritten.inc()

    def _count(self, exchange: Exchange) -> None:
        usage, target, report = exchange.usage, exchange.target, exchange.report
        error = self._error(error_type(exchange))
        provider = self.provider_name(target.provider) if target else ""
        labels = (exchange.operation, provider, *self._models_of(exchange), error)
        self._duration.series(labels).observe(exchange.seconds)
        self._operation.series(labels).observe(exchange.seconds - (exchange.sent - exchange.started))
        self._usage_source.add((usage.source,))
        if usage.source != "none":
            self._tokens.series((*labels, "input")).observe(usage.input_tokens)
            if exchange.operation != "embeddings":
                self._tokens.series((*labels, "output")).observe(usage.output_tokens)
            if usage.source == "provider" and usage.input_tokens and target is not None:
                self._count_guesses(exchange, target.provider)
        self._count_cost(exchange)
        if exchange.ask.stream and exchange.first_token is not None:
            self._first_token.series(labels).observe(exchange.first_token)
            if exchange.ending.complete and usage.output_tokens > 1:
                seconds = exchange.seconds - exchange.first_token
                self._per_token.series(labels).observe(seconds / (usage.output_tokens - 1))
        if report is not None and report.usage_refused and target is not None:
            self._bad_usage.labels(target.provider).inc()
        if exchange.attempts > 1 and target is not None:
            self._failovers.labels(target.provider).inc()

    def _count_cache(self, exchange: Exchange) -> None:
        caching = exchange.caching
        self._cache.add((caching.outcome,))
        if caching.saved:
            mode = "shadow" if caching.outcome in SHADOWS else "enforce"
            self._saved.add((mode, *self._spender(exchange)), caching.saved / NANO)

    def _count_consumer(self, exchange: Exchange, status: str) -> None:
        spender = self._spender(exchange)
        self._consumer_requests.add((*spender, status))
        if exchange.forwarded and exchange.usage.source != "none":
            self._consumer_tokens.add((*spender, "input"), exchange.usage.input_tokens)
            self._consumer_tokens.add((*spender, "output"), exchange.usage.output_tokens)
            if exchange.usage.cached_tokens or exchange.usage.cache_write_tokens:
                self._count_prompt_cache(exchange, spender)
        if exchange.cost:
            self._consumer_cost.add(spender, exchange.cost / NANO)

    def _count_prompt_cache(self, exchange: Exchange, spender: tuple[str, ...]) -> None:
        usage = exchange.usage
        self._prompt_tokens.add((*spender, "read"), usage.cached_tokens)
        self._prompt_tokens.add((*spender, "write"), usage.cache_write_tokens)
        self._prompt_cost.add((*spender, "read"), exchange.prompt_saved / NANO)
        self._prompt_cost.add((*spender, "write"), exchange.prompt_extra / NANO)

    def _count_guesses(self, exchange: Exchange, provider: str) -> None:
        if provider not in self._providers:
            provider = "other"
        actual = exchange.usage.input_tokens
        self._guessed.series((provider, "estimate")).observe(input_estimate(exchange) / actual)
        self._guessed.series((provider, "held")).observe(exchange.reservation.input_tokens / actual)

    def _count_cost(self, exchange: Exchange) -> None:
        if exchange.cost == 0:
            return
        target = exchange.target or exchange.targets[0]
        where = target.provider if target.provider in self._providers else "other", self._model(target.name)
        if exchange.cost is None:
            self._no_price.add(where)
        else:
            self._cost.add(where, exchange.cost / NANO)

    def _models_of(self, exchange: Exchange) -> tuple[str, str]:
        """The models that the client asked for and that the provider names. Both choose them freely."""
        values = self._model(exchange.ask.model), self._response_model(exchange.report.model if exchange.report else "")
        if values not in self._combinations:
            if len(self._combinations) >= _MAX_COMBINATIONS:
                return values[0] if values[0] in self._models else "other", "other" if values[1] else ""
            self._combinations.add(values)
        return values

    def _spender(self, exchange: Exchange) -> tuple[str, ...]:
        """Consumer, team, and the labels of `attribution.metrics`."""
        consumer, labels = exchange.consumer, exchange.labels
        values = (
            consumer.series,
            consumer.team,
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


class _LedgerRows(Collector):
    """The counts of the ledger's writer."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        ledger = self._ledger
        rows = CounterMetricFamily("extproc_ledger_rows", "Rows of the ledger, by outcome", labels=["outcome"])
        for outcome, value in (("written", ledger.written), ("dropped", ledger.dropped), ("refused", ledger.refused)):
            rows.add_metric([outcome], value)
        yield rows
        yield CounterMetricFamily("extproc_ledger_failures", "Commits that failed; rows wait", value=ledger.failures)
