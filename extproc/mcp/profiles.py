"""Profiles: the names under which clients find the definitions of several servers, and the lists they get."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from extproc.mcp.call import MODERN, Call
from extproc.mcp.catalogue import Catalogue, Entry, Kind
from extproc.mcp.policy import Policy, session_of
from extproc.mcp.servers import Servers
from extproc.mcp.settings import JOIN, MCPProfileSettings, MCPSettings
from extproc.taint import Taint
from extproc.words.exchange import Exchange, ToolGrants
from extproc.words.values import Pattern

log = logging.getLogger(__name__)

LONGEST = 64
"""Characters of a tool's name in the APIs of models: one that is longer makes them refuse all tools."""
_MOST_LISTS = 1000  # kept; each of one profile, kind and set of grants
_ASKED = ("tools", "prompts", "resources", "completions", "logging")


@dataclass(slots=True)
class Index:
    """Everything that a profile offers, by the name that clients see."""

    entries: dict[Kind, dict[str, Entry]] = field(
        default_factory=lambda: {"tools": {}, "prompts": {}, "resources": {}, "templates": {}}
    )
    templates: list[tuple[Callable[[str], bool], Entry]] = field(default_factory=list)  # URIs that each stands for
    hidden: int = 0  # definitions behind another of the same name, and tools of too long names


@dataclass(slots=True, frozen=True)
class Found:
    """A definition by the client's name, or a resource that is in no list."""

    server: str
    name: str  # the server's own
    entry: Entry | None


class Profiles:
    """The profiles of one configuration."""

    def __init__(self, settings: MCPSettings, servers: Servers, policy: Policy, taint: Taint) -> None:
        self._settings = settings
        self._servers = servers
        self._policy = policy
        self._taint = taint
        self._indexes: dict[str, tuple[Any, Index]] = {}
        self._lists: dict[Any, tuple[Any, bytes]] = {}

    def index(self, profile: str) -> Index:
        """Everything in the profile, whoever asks."""
        generation = self._generation()
        known = self._indexes.get(profile)
        if known is None or known[0] != generation:
            known = self._indexes[profile] = generation, self._index(self._settings.profiles[profile])
            if known[1].hidden:
                log.warning("profile %s: %d definitions share a name or have a long one", profile, known[1].hidden)
        return known[1]

    def _generation(self) -> tuple[int, int]:
        """Another one when definitions, or their states, have changed."""
        return self._servers.generation, self._policy.version

    def listed(self, exchange: Exchange, kind: Kind) -> bytes:
        """The definitions that a consumer may see, as a JSON array. In a tainted run none of sensitive tools."""
        profile, grants = exchange.mcp.profile, exchange.consumer.tools
        careful = kind == "tools" and bool(self._taint.tools(exchange, session_of(exchange.mcp)))
        generation, key = self._generation(), (profile, kind, grants.key, careful)
        known = self._lists.get(key)
        if known is None or known[0] != generation:
            entries = self.index(profile).entries[kind].items()
            renamed = kind in ("tools", "prompts")
            shown = [
                self._shown(name if renamed else "", entry)
                for name, entry in entries
                if grants(f"{profile}/{name}")
                and not self._policy.hides(entry)
                and not (careful and self._sensitive(entry))
            ]
            if len(self._lists) >= _MOST_LISTS:
                self._lists.clear()
            known = self._lists[key] = generation, msgspec.json.encode(shown)
        return known[1]

    def _sensitive(self, entry: Entry) -> bool:
        return self._settings.policy(entry.server, entry.name).sensitive

    def _shown(self, name: str, entry: Entry) -> Mapping[str, Any]:
        """A definition as clients get it: with their name for it."""
        fields: dict[str, Any] = {**entry.fields, "name": name} if name else dict(entry.fields)
        for omitted in self._policy.omitted(entry):
            fields.pop(omitted, None)
        return fields

    def catalogues(self, profile: str) -> list[tuple[str, Catalogue]]:
        """The servers of a profile that are known, with what they offer."""
        found = [(name, self._servers.by_name.get(name)) for name in self._settings.profiles[profile].servers]
        return [
            (name, server.catalogue)
            for name, server in found
            if server is not None and server.catalogue is not None and not self._settings.servers[name].disabled
        ]

    def find(self, call: Call, grants: ToolGrants) -> Found | None:
        """The definition that a call is about; None where it is unknown or not granted."""
        message, profile, name = call.message, call.profile, call.name
        assert message is not None
        if not grants(f"{profile}/{name}"):
            return None
        kinds: tuple[Kind, ...] = {"tools/call": ("tools",), "prompts/get": ("prompts",)}.get(message.method, ())  # type: ignore[assignment]
        if message.method == "completion/complete":
            kinds = ("prompts",) if message.params["ref"].get("type") == "ref/prompt" else ("templates", "resources")
        index = self.index(profile)
        for kind in kinds or ("resources",):
            if (entry := index.entries[kind].get(name)) is not None:
                return Found(entry.server, entry.name, entry)
        return None if message.method in ("tools/call", "prompts/get") else self._resource(profile, index, name)

    def _resource(self, profile: str, index: Index, uri: str) -> Found | None:
        """A resource that is in no list: of a template, or of the only server that offers resources."""
        for matches, entry in index.templates:
            if matches(uri):
                return Found(entry.server, uri, entry)
        offering = [name for name, catalogue in self.catalogues(profile) if "resources" in catalogue.capabilities]
        if len(offering) != 1:
            return None
        share = self._settings.profiles[profile].servers[offering[0]]
        return Found(offering[0], uri, None) if _any(share.resources)(uri) else None

    def _index(self, profile: MCPProfileSettings) -> Index:
        index = Index()
        for server, share in profile.servers.items():
            known = self._servers.by_name.get(server)
            if known is None or known.catalogue is None or self._settings.servers[server].disabled:
                continue
            prefix = server + JOIN if share.prefix is None else share.prefix
            wanted: Mapping[Kind, Any] = {
                "tools": _any(share.tools),
                "prompts": _any(share.prompts),
                "resources": (resources := _any(share.resources)),
                "templates": resources,
            }
            for kind, entries in known.catalogue.entries.items():
                for entry in entries.values():
                    # One that is withheld keeps its name: no other server may take its place.
                    if wanted[kind](entry.name) and self._policy.state(entry) != "disabled":
                        self._add(index, kind, prefix, entry)
        return index

    def _add(self, index: Index, kind: Kind, prefix: str, entry: Entry) -> None:
        name = prefix + entry.name if kind in ("tools", "prompts") else entry.name
        too_long = kind == "tools" and len(name) > LONGEST
        if too_long or index.entries[kind].setdefault(name, entry) is not entry:
            index.hidden += 1
        elif kind == "templates":
            index.templates.append((_template(entry.name), entry))

    # --- the gateway's own answers

    def offers(self, profile: str, capability: str) -> bool:
        """True where a server of the profile has tools, prompts, resources and so on."""
        return any(capability in catalogue.capabilities for _, catalogue in self.catalogues(profile))

    def hello(self, call: Call, version: str) -> dict[str, Any]:
        """What the gateway says of a profile, for `initialize` and `server/discover`."""
        known = self.catalogues(call.profile)
        there = {name for _, catalogue in known for name in catalogue.capabilities}
        capabilities: dict[str, Any] = {
            name: {} for name in _ASKED if name in there and (name, version) != ("logging", MODERN)
        }
        texts = [f"{name}: {text.instructions}" for name, text in known if text.instructions]
        found: dict[str, Any] = {"capabilities": capabilities}
        if text := call.settings.instructions or "\n\n".join(texts):
            found["instructions"] = text
        return found

    def ttl(self, profile: str) -> int:
        """Milliseconds for which a list is as good as new."""
        servers = self._settings.profiles[profile].servers
        return int(1000 * min(self._settings.servers[name].refresh for name in servers))


def _any(patterns: Any) -> Callable[[str], bool]:
    found = [Pattern(pattern) for pattern in patterns]
    return lambda name: any(pattern(name) for pattern in found)


def _template(uri: str) -> Callable[[str], bool]:
    """True for a URI that a template of RFC 6570 can give. A `*` in it is a letter as any other."""
    parts = uri.split("{")
    text = parts[0] + "".join("*" + part.partition("}")[2] for part in parts[1:])
    return Pattern(text) if len(parts) > 1 else lambda value: value == uri
