"""Profiles: the names under which clients find the definitions of several servers, and the lists they get."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.tools.mcp.call import CALL, CALLS, MODERN, Call
from extproc.tools.mcp.catalogue import INSTRUCTIONS, Catalogue, Definition, Kind
from extproc.tools.mcp.changes import changed
from extproc.tools.mcp.names import Hidden, NameIndex, index
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.search import ToolSearch, document
from extproc.tools.mcp.servers import Servers
from extproc.tools.mcp.settings import MCPSettings
from extproc.tools.taint import Taint
from extproc.words.exchange import Exchange, ToolGrants

log = logging.getLogger(__name__)

_MOST_LISTS = 1000  # most lists that are kept, each of one profile, kind and set of grants
_MOST_SEARCHED = 50_000  # most tools in all indexes of words that are kept
_MOST_LINES = 20  # most log lines for one profile at a time
_ASKED = ("tools", "prompts", "resources", "completions", "logging")


@dataclass(slots=True, frozen=True)
class Resolved:
    """A definition found by the client's name, or a resource that is in no list."""

    server: str
    name: str  # the server's own name
    entry: Definition | None


class Profiles:
    """The profiles of one configuration."""

    def __init__(self, settings: MCPSettings, servers: Servers, policy: Policy, taint: Taint) -> None:
        self._settings = settings
        self._servers = servers
        self.policy = policy
        self._taint = taint
        self._indexes: dict[str, tuple[Any, NameIndex]] = {}
        self._lists: dict[Any, tuple[Any, bytes]] = {}
        self._told: set[tuple[str, str, str]] = set()
        own = [name for name, each in settings.servers.items() if each.lists == "session" and not each.disabled]
        self._own = {name: [one for one in own if one in each.servers] for name, each in settings.profiles.items()}
        self._own_indexes: OrderedDict[Any, tuple[Any, NameIndex, Any]] = OrderedDict()
        self._searches: OrderedDict[NameIndex, ToolSearch] = OrderedDict()
        self._searching = asyncio.Lock()  # held while an index of words is made

    async def read_own(self, exchange: Exchange, owner: str) -> None:
        """Writes `call.own`: the lists of servers whose lists depend on the session. `owner` names the session."""
        call = exchange.features[CALL]
        if not (names := self._own[call.profile]):
            return
        await self._read_own(call, owner, names, new=exchange.request.operation not in CALLS)
        if exchange.request.operation in CALLS and call.name and self.find(call, exchange.consumer.tools) is None:
            await self._read_own(call, owner, names, new=True)

    async def _read_own(self, call: Call, owner: str, names: Sequence[str], *, new: bool) -> None:
        lists, servers = self._servers.own, self._settings.servers
        wanted = [lists.get(owner, name, call, refresh=servers[name].refresh, new=new) for name in names]
        found = zip(names, await asyncio.gather(*wanted), strict=True)
        call.own = {name: catalogue for name, catalogue in found if catalogue is not None}

    def index_for(self, call: Call) -> NameIndex:
        """The names of the profile, for a client's session."""
        if not (own := self._own[call.profile]):
            return self.index(call.profile)
        key = (call.profile, *(id(call.own.get(name)) for name in own))
        generation = self._generation()
        known = self._own_indexes.get(key)
        if known is None or known[0] != generation:
            shared = {name: each for name, each in self._known(call.profile).items() if name not in own}
            made = index(call.settings, {**shared, **call.own}, self._names)
            known = self._own_indexes[key] = generation, made, call.own  # keeping `call.own` keeps its id() unique
            while len(self._own_indexes) > self._settings.limits.session_lists:
                self._own_indexes.popitem(last=False)
        return known[1]

    def index(self, profile: str) -> NameIndex:
        """The names of the profile, for all consumers."""
        generation = self._generation()
        known = self._indexes.get(profile)
        if known is None or known[0] != generation:
            made = index(self._settings.profiles[profile], self._known(profile), self._names)
            known = self._indexes[profile] = generation, made
            self._log_hidden(profile, made)
        return known[1]

    def _known(self, profile: str) -> Mapping[str, Catalogue]:
        """The catalogues of a profile's servers, in order; switched off servers are included."""
        found = {name: self._servers.by_name.get(name) for name in self._settings.profiles[profile].servers}
        return {
            name: server.catalogue
            for name, server in found.items()
            if server is not None and server.catalogue is not None
        }

    def _names(self, server: str, kind: Kind) -> Collection[str] | None:
        """The names that a server owns; None while unknown, and always if sessions decide about its names."""
        known, pinned = self._servers.by_name.get(server), self.policy.pinned_names(server, kind)
        if known is None or known.catalogue is None:
            return pinned
        open_ended = self._settings.servers[server].lists == "session" or not known.catalogue.complete
        return None if open_ended and pinned is None else known.names[kind].keys() | (pinned or ())

    def hidden(self, server: str) -> Iterator[tuple[str, Hidden]]:
        """The definitions of a server that a profile includes but cannot offer, by profile."""
        for name, profile in self._settings.profiles.items():
            if server in profile.servers:
                yield from ((name, each) for each in self.index(name).hidden if each.entry.server == server)

    def _log_hidden(self, profile: str, made: NameIndex) -> None:
        new = [each for each in made.hidden if (profile, each.entry.server, each.name) not in self._told]
        for entry, name, reason in new[:_MOST_LINES]:
            log.warning(
                "profile %s: %s of %s is not offered as %r: %s", profile, entry.name, entry.server, name, reason
            )
        if len(new) > _MOST_LINES:
            log.warning("profile %s: %d more names: see `extproc mcp list`", profile, len(new) - _MOST_LINES)
        self._told = {told for told in self._told if told[0] != profile} | {
            (profile, each.entry.server, each.name) for each in made.hidden
        }

    def _generation(self) -> tuple[int, int]:
        """A value that differs after any change of definitions or their states."""
        return self._servers.generation, self.policy.version

    def listed(self, exchange: Exchange, kind: Kind) -> bytes:
        """The definitions that a consumer may see, as a JSON array, in a tainted run without sensitive tools."""
        call, grants = exchange.features[CALL], exchange.consumer.tools
        careful = kind == "tools" and bool(self._taint.tools(exchange))
        index = self.index_for(call)
        generation, key = (self._generation(), index), (call.profile, kind, grants.key, careful)
        known = self._lists.get(key)
        if known is None or known[0] != generation:
            renamed = kind in ("tools", "prompts")
            shown = [
                self.client_form(call.profile, name if renamed else "", entry)
                for name, entry in self.shown(exchange, kind).items()
            ]
            if len(self._lists) >= _MOST_LISTS:
                self._lists.clear()
            known = self._lists[key] = generation, msgspec.json.encode(shown)
        return known[1]

    def shown(self, exchange: Exchange, kind: Kind) -> Mapping[str, Definition]:
        """The definitions that a consumer may see, by the clients' names."""
        entries, shows = self.index_for(exchange.features[CALL]).entries[kind], self._shows(exchange, kind)
        return {name: entry for name, entry in entries.items() if shows(name, entry)}

    def _shows(self, exchange: Exchange, kind: Kind) -> Callable[[str, Definition], bool]:
        profile, grants = exchange.features[CALL].profile, exchange.consumer.tools
        careful = kind == "tools" and bool(self._taint.tools(exchange))
        return lambda name, entry: (
            grants(f"{profile}/{name}")
            and not self.policy.hides(entry)
            and not (careful and self._settings.policy(entry.server, entry.name).sensitive)
        )

    async def search(self, exchange: Exchange, query: str, most: int) -> Sequence[tuple[str, Definition]]:
        """The tools that a consumer may see and that fit a query best, by the clients' names, the best first."""
        profile, index = exchange.features[CALL].profile, self.index_for(exchange.features[CALL])
        entries, shows = list(index.entries["tools"].items()), self._shows(exchange, "tools")
        async with self._searching:
            if (search := self._searches.get(index)) is None:
                forms = [self.client_form(profile, *each) for each in entries]
                search = await asyncio.to_thread(lambda: ToolSearch([document(fields) for fields in forms]))
                self._keep_search(index, search)
        return [entries[at] for at in search.find(query, most, lambda at: shows(*entries[at]))]

    def _keep_search(self, index: NameIndex, search: ToolSearch) -> None:
        """Keep an index of words. The oldest leave: names have a new index after each change of the definitions."""
        self._searches[index] = search
        while len(self._searches) > 1 and sum(each.size for each in self._searches.values()) > _MOST_SEARCHED:
            self._searches.popitem(last=False)

    def client_form(self, profile: str, name: str, entry: Definition) -> Mapping[str, Any]:
        """A definition as clients of a profile see it, under the clients' name."""
        fields: dict[str, Any] = {**entry.fields, "name": name} if name else dict(entry.fields)
        if entry.kind == "tools":
            change = self._settings.profiles[profile].servers[entry.server].changes.get(entry.name)
            fields = fields if change is None else changed(fields, change)
        for omitted in self.policy.omitted(entry):
            fields.pop(omitted, None)
        return fields

    def catalogues(self, profile: str) -> Sequence[tuple[str, Catalogue]]:
        """The catalogues of a profile's servers that are known and not switched off."""
        known = self._known(profile).items()
        return [(name, catalogue) for name, catalogue in known if not self._settings.servers[name].disabled]

    def find(self, call: Call, grants: ToolGrants) -> Resolved | None:
        """The definition that a call is about; None if it is unknown or not granted."""
        message, profile, name = call.message, call.profile, call.name
        assert message is not None
        if not grants(f"{profile}/{name}"):
            return None
        kinds: tuple[Kind, ...] = {"tools/call": ("tools",), "prompts/get": ("prompts",)}.get(message.method, ())  # type: ignore[assignment]
        if message.method == "completion/complete":
            kinds = ("prompts",) if message.params["ref"].get("type") == "ref/prompt" else ("templates", "resources")
        known = self.index_for(call)
        for kind in kinds or ("resources",):
            if (entry := known.entries[kind].get(name)) is not None:
                return None if self.policy.state(entry) == "disabled" else Resolved(entry.server, entry.name, entry)
        return None if message.method in ("tools/call", "prompts/get") else self._resource(profile, known, name)

    def _resource(self, profile: str, offered: NameIndex, uri: str) -> Resolved | None:
        """A resource that is in no list: it fits a template, or only one server can have it."""
        if (entry := offered.template(uri)) is not None:
            return None if self.policy.state(entry) == "disabled" else Resolved(entry.server, uri, entry)
        known = self._known(profile)
        having = [
            share.server
            for share in offered.shares
            if share.own("resources", uri) is not None
            and (share.server not in known or "resources" in known[share.server].capabilities)
        ]
        if len(having) != 1 or having[0] not in known or self._settings.servers[having[0]].disabled:
            return None
        return Resolved(having[0], uri, None)

    # --- the gateway's own answers

    def offers(self, profile: str, capability: str) -> bool:
        """True if a server of the profile has definitions of the kind. Pages of results are resources."""
        paged = capability == "resources" and self._settings.profiles[profile].pages is not None
        return paged or any(capability in catalogue.capabilities for _, catalogue in self.catalogues(profile))

    def hello(self, call: Call, version: str) -> dict[str, Any]:
        """The gateway's description of a profile, for `initialize` and `server/discover`."""
        known = self.catalogues(call.profile)
        capabilities: dict[str, Any] = {
            name: {} for name in _ASKED if self.offers(call.profile, name) and (name, version) != ("logging", MODERN)
        }
        said = [entry for _, catalogue in known for entry in catalogue.entries.get(INSTRUCTIONS, {}).values()]
        texts = [f"{each.server}: {each.value(INSTRUCTIONS)}" for each in said if not self.policy.hides(each)]
        found: dict[str, Any] = {"capabilities": capabilities}
        if text := call.settings.instructions or "\n\n".join(texts):
            found["instructions"] = text
        return found

    def ttl(self, profile: str) -> int:
        """Milliseconds for which a list is fresh."""
        servers = self._settings.profiles[profile].servers
        if self._own[profile]:
            return 0
        return int(1000 * min(self._settings.servers[name].refresh for name in servers))
