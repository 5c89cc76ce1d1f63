"""The servers and their tools, for operators and `extproc mcp`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extproc.mcp.catalogue import Entry
from extproc.mcp.policy import Policy
from extproc.mcp.servers import Servers


def describe(servers: Servers, policy: Policy, *, definitions: bool) -> Sequence[Mapping[str, Any]]:
    """The servers, each with its tools; with their `definitions` if wanted."""
    return [
        {
            "name": name,
            "error": server.failing,
            "read_at": server.looked or None,
            "tools": [_tool(entry, policy, definitions=definitions) for entry in _tools(server)],
        }
        for name, server in sorted(servers.by_name.items())
    ]


def count(servers: Servers, policy: Policy) -> Mapping[tuple[str, str], int]:
    """The number of tools by server and state."""
    found: dict[tuple[str, str], int] = {}
    for name, server in servers.by_name.items():
        for entry in _tools(server):
            key = name, policy.state(entry)
            found[key] = found.get(key, 0) + 1
    return found


def _tools(server: Any) -> Sequence[Entry]:
    return () if server.catalogue is None else list(server.catalogue.entries["tools"].values())


def _tool(entry: Entry, policy: Policy, *, definitions: bool) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "name": entry.name,
        "state": policy.state(entry),
        "digest": policy.digest(entry),
        "pinned": policy.pinned(entry),
    }
    if definitions:
        found["definition"] = {name: entry.value(name) for name in entry.fields}
    return found
