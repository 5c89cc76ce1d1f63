"""Metrics of the MCP gateway, as `groups.Tools` declares them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from extproc.operate.telemetry.groups import Tools
from extproc.words.exchange import Exchange
from extproc.words.tool_call import EXECUTE, TOOL_CALL, TOOLS_CALL, ToolCall

_MOST_TOOLS = 2000  # names of tools that are labels; further ones are `other`


class ToolMetrics(Tools):
    """Metrics of calls of tools. `definitions.read` gives the number of tools by (server, state)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._tools: set[str] = set()

    def record(self, exchange: Exchange, error: str) -> None:
        """Take in an exchange that ended. `error` is one of a bounded set."""
        call = exchange.features[TOOL_CALL]
        called = exchange.request.operation == TOOLS_CALL
        labels = (
            exchange.request.operation,
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

    def _tool(self, call: ToolCall) -> str:
        """The name of a tool that stands in a catalogue."""
        name = call.listed_tool
        if not name:
            return "other"
        if name not in self._tools:
            if len(self._tools) >= _MOST_TOOLS:
                return "other"
            self._tools.add(name)
        return name
