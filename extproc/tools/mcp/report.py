"""The servers and their definitions, for operators and `extproc mcp`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.tools.mcp.catalogue import Definition, Kind
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.servers import McpServer, Servers

LEFT_OUT = "left_out"
"""State of a definition that cannot be offered, by its name or by a limit."""


def describe(servers: Servers, profiles: Profiles, *, definitions: bool) -> Sequence[Mapping[str, Any]]:
    """The servers, each with its definitions, optionally with the definitions' texts."""
    return [
        {
            "name": name,
            "error": server.failing,
            "read_at": server.looked or None,
            "tools": [
                _definition_row(each, profiles, definitions=definitions) for each in _entries(server, tools=True)
            ],
            "others": [
                _definition_row(each, profiles, definitions=definitions) for each in _entries(server, tools=False)
            ],
            "left_out": list(_left_out(server, profiles)),
        }
        for name, server in sorted(servers.by_name.items())
    ]


def count(servers: Servers, profiles: Profiles) -> Mapping[tuple[str, ...], int]:
    """The number of tools by server and state; all kinds of definitions count as left out."""
    found: Counter[tuple[str, ...]] = Counter()
    for name, server in servers.by_name.items():
        found.update((name, profiles.policy.state(entry)) for entry in _entries(server, tools=True))
        if left_out := len(list(_left_out(server, profiles))):
            found[name, LEFT_OUT] = left_out
    return found


def _entries(server: McpServer, *, tools: bool) -> Iterator[Definition]:
    if server.catalogue is not None:
        shared = [entry for found in server.catalogue.entries.values() for entry in found.values()]
        known = {**{(entry.kind, entry.name): entry for entry in shared}, **server.in_sessions}
        yield from (entry for entry in known.values() if (entry.kind == "tools") is tools)


def _left_out(server: McpServer, profiles: Profiles) -> Iterator[Mapping[str, str]]:
    """Definitions that at least one profile does not offer, each with the reason."""
    if server.catalogue is None:
        return
    for kind, name, reason in server.catalogue.left_out:
        yield _hidden_row(kind, name, reason)
    if not server.catalogue.complete:
        yield _hidden_row("tools", "", "the server offers more, see mcp.limits")
    for profile, hidden in profiles.hidden(server.name):
        reason = f"in profile {profile} it would be {hidden.name!r}: {hidden.reason}"
        yield _hidden_row(hidden.entry.kind, hidden.entry.name, reason)


def _hidden_row(kind: Kind, name: str, reason: str) -> Mapping[str, str]:
    return {"kind": kind, "name": name, "reason": reason}


def _definition_row(entry: Definition, profiles: Profiles, *, definitions: bool) -> Mapping[str, Any]:
    judged = profiles.policy.judged(entry)
    found: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind,
        "state": judged.state,
        "reason": judged.reason,
        "app": entry.is_app,
        "digest": profiles.policy.digest(entry),
        "pinned": profiles.policy.pinned(entry),
    }
    if definitions:
        found["definition"] = {name: entry.value(name) for name in entry.fields}
    return found
