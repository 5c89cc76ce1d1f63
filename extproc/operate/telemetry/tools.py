"""Metrics of the MCP gateway. Names follow the OpenTelemetry semantic conventions for MCP, in development
(https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp/), in Prometheus form.

`server` in their names is this gateway towards clients, `client` is it towards servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from extproc.operate.telemetry.histogram import Histogram
from extproc.operate.telemetry.traces import CALL, EXECUTE
from extproc.words.exchange import Exchange

_DURATION = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_MOST_TOOLS = 2000  # names of tools that are labels; further ones are `other`


class ToolMetrics:
    """What calls of tools came to. `count` gives the definitions by (server, state), `ages` the seconds since each
    catalogue was read; they are asked at each scrape.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["mcp_method_name", "gen_ai_operation_name", "gen_ai_tool_name", "error_type"]
        more = ["rpc_response_status_code", "mcp_protocol_version", "network_transport", "profile", "mcp_server"]
        self._served = Histogram(
            "mcp_server_operation_duration_seconds",
            "From a client's message to the end of its answer",
            [*labels, *more],
            _DURATION,
            registry,
        )
        self._asked = Histogram(
            "mcp_client_operation_duration_seconds",
            "From a request to a server to the end of its answer",
            ["mcp_server", "error_type", "network_transport"],
            _DURATION,
            registry,
        )
        self._changes = Counter(
            "extproc_mcp_tool_changes",
            "Definitions of tools that differ from their pins, or have none",
            ["mcp_server"],
            registry=registry,
        )
        self._tools: set[str] = set()
        self.count: Callable[[], Mapping[tuple[str, str], int]] = dict
        registry.register(_Definitions(self))

    def record(self, exchange: Exchange, error: str) -> None:
        """Take in an exchange that ended. `error` is one of a bounded set."""
        call = exchange.mcp
        called = exchange.operation == CALL
        labels = (
            exchange.operation,
            EXECUTE if called else "",
            self._tool(call) if called else "",
            error,
            str(call.rpc_error or ""),
            call.version,
            "tcp",
            call.profile,
            call.server,
        )
        self._served.series(labels).observe(exchange.seconds)

    def attempt(self, server: str, outcome: str, seconds: float) -> None:
        """Take in a request to a server that Envoy reported."""
        self._asked.series((server, "" if outcome == "ok" else outcome, "tcp")).observe(seconds)

    def changed(self, server: str) -> None:
        self._changes.labels(server).inc()

    def _tool(self, call: object) -> str:
        """The name of a tool that stands in a catalogue."""
        if getattr(call, "entry", None) is None:
            return "other"
        name: str = getattr(call, "tool", "")
        if name not in self._tools:
            if len(self._tools) >= _MOST_TOOLS:
                return "other"
            self._tools.add(name)
        return name


class _Definitions(Collector):
    def __init__(self, metrics: ToolMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily("extproc_mcp_tools", "Definitions of tools", labels=["mcp_server", "state"])
        for labels, number in sorted(self._metrics.count().items()):
            family.add_metric(labels, number)
        return [family]
