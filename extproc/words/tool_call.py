"""A message to the MCP gateway, as logs, metrics and traces describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from extproc.words.exchange import Exchange, Key

TOOLS_CALL, EXECUTE = "tools/call", "execute_tool"
"""MCP's method, and the operation that OpenTelemetry names it."""


class ToolCall(Protocol):
    """The facts of a message. Neither arguments nor results."""

    @property
    def profile(self) -> str: ...

    @property
    def server(self) -> str: ...

    @property
    def version(self) -> str:
        """Revision of the protocol that the client speaks."""
        ...

    @property
    def rpc_error(self) -> int:
        """Code of the server's error; 0: none."""
        ...

    @property
    def listed_tool(self) -> str:
        """The server's name of the tool, where a catalogue lists it; otherwise empty."""
        ...

    def log_fields(self, exchange: Exchange) -> Mapping[str, Any]: ...

    def span_attributes(self, exchange: Exchange) -> Mapping[str, str]: ...


TOOL_CALL: Key[ToolCall] = Key("tool call")
"""Written by the stages of the MCP gateway."""
