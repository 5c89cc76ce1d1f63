"""Names: the name under which clients find a definition, and the server of a profile that owns a name.

A name has one owner: among the servers of the profile that can have it, the first server with the longest prefix. A
call must never reach another server because the owner is switched off, is away, was not read yet, or dropped the name
for a while. So a server owns

    every name that it offers, or offered since this process began     `Server.names`
    every name that is pinned for it                                   `Policy.pinned_names`
    every name that it could offer, while its lists are not known      `_Share.own`

and no later server's definition is offered under such a name. URIs have no prefix. A URI that fits a template of a
server is a name that this server offers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from extproc.tools.mcp.catalogue import INSTRUCTIONS, Catalogue, Definition, Kind
from extproc.tools.mcp.profile_settings import MCPProfileSettings
from extproc.words.values import Pattern, Patterns

LONGEST = 64
"""Most characters of a tool's name in the APIs of models: with a longer name they refuse all tools."""
FIND_TOOLS, DESCRIBE_TOOL, CALL_TOOL = "find_tools", "describe_tool", "call_tool"
"""Tools of the gateway itself, in profiles with `discovery: search`. No server owns their names there."""
_RENAMED = ("tools", "prompts")  # a URI is never renamed

Known = Callable[[str, Kind], Collection[str] | None]
"""Gives the own names of a server's definitions; None: not known."""


class Hidden(NamedTuple):
    """A definition that a profile does not offer, and the reason for people."""

    entry: Definition
    name: str  # the name that clients would see
    reason: str


class _Share:
    """The part of a server that a profile offers."""

    def __init__(self, profile: MCPProfileSettings, server: str, place: int, known: Known) -> None:
        share = profile.servers[server]
        self.server = server
        self._share = share
        self._place = place
        self._prefix = share.before(server)
        self._known = known
        self._templates: list[Callable[[str], bool]] | None = None
        resources = Patterns(share.resources)
        self._wanted: Mapping[Kind, Callable[[str], bool]] = {
            "tools": Patterns(share.tools),
            "prompts": Patterns(share.prompts),
            "resources": resources,
            "templates": resources,
        }

    def seen(self, entry: Definition) -> str | None:
        """The name that clients see; None if the profile leaves the definition out."""
        wanted = self._wanted.get(entry.kind)
        if wanted is None or not wanted(entry.name):
            return None
        name = self._share.name_of(entry.name) if entry.kind == "tools" else entry.name
        return self._prefix + name if entry.kind in _RENAMED else name

    def own(self, kind: Kind, name: str) -> str | None:
        """The server's own name for the clients' `name`; None if the server can offer nothing under that name."""
        prefix = self._prefix if kind in _RENAMED else ""
        if not name.startswith(prefix) or name == prefix:
            return None
        own = name.removeprefix(prefix)
        found = self._share.own_name(own) if kind == "tools" else own
        return found if found is not None and self._wanted[kind](found) else None

    def rank(self, kind: Kind) -> tuple[int, int]:
        """The sort key by which servers own names of a kind."""
        return -len(self._prefix) if kind in _RENAMED else 0, self._place

    def claim(self, kind: Kind, name: str) -> str:
        """The reason why this server owns the name; empty if it does not."""
        if (own := self.own(kind, name)) is None:
            return ""
        names = self._known(self.server, kind)
        if names is None:
            return f"it may be one of {self.server}, whose lists are not known"
        return f"it belongs to {self.server}" if own in names or (kind == "resources" and self._gives(own)) else ""

    def _gives(self, uri: str) -> bool:
        if self._templates is None:
            self._templates = [template(each) for each in self._known(self.server, "templates") or ()]
        return any(matches(uri) for matches in self._templates)


@dataclass(slots=True, eq=False)
class NameIndex:
    """All definitions that a profile offers, by the names that clients see."""

    shares: Sequence[_Share]
    entries: dict[Kind, dict[str, Definition]] = field(
        default_factory=lambda: {"tools": {}, "prompts": {}, "resources": {}, "templates": {}}
    )
    hidden: list[Hidden] = field(default_factory=list)
    taken: Collection[str] = ()  # names of tools that are the gateway's own
    _templates: list[tuple[int, Callable[[str], bool], Definition]] = field(
        default_factory=list
    )  # each with its server's index

    def add(self, place: int, entry: Definition) -> None:
        """Add a definition of the server with that index."""
        name = self.shares[place].seen(entry)
        if name is None:
            return
        if entry.kind == "tools" and len(name) > LONGEST:
            reason = f"it has {len(name)} characters, of {LONGEST} at most"
        elif entry.kind == "tools" and name in self.taken:
            reason = "it is a name of the gateway's own (discovery: search)"
        elif entry.kind == "tools" and self.shares[place].own("tools", name) != entry.name:
            reason = "another tool of its server has this name in the profile"
        else:
            reason = self.claim(place, entry.kind, name)
        if reason:
            self.hidden.append(Hidden(entry, name, reason))
            return
        self.entries[entry.kind][name] = entry
        if entry.kind == "templates":
            self._templates.append((place, template(entry.name), entry))

    def claim(self, place: int, kind: Kind, name: str) -> str:
        """The reason why an earlier server than the one with that index owns a name; empty if none does."""
        rank = self.shares[place].rank(kind)
        before = (share for share in self.shares if share.rank(kind) < rank)
        return next((found for share in before if (found := share.claim(kind, name))), "")

    def template(self, uri: str) -> Definition | None:
        """The template that fits a URI; None if no template fits, or an earlier server owns the URI."""
        for place, matches, entry in self._templates:
            if matches(uri):
                return None if self.claim(place, "resources", uri) else entry
        return None


def index(profile: MCPProfileSettings, catalogues: Mapping[str, Catalogue], known: Known) -> NameIndex:
    """The names of a profile. `catalogues` are the known catalogues of its servers; switched off servers are included
    and keep their names.
    """
    taken = (FIND_TOOLS, DESCRIBE_TOOL, CALL_TOOL) if profile.discovery == "search" else ()
    shares = [_Share(profile, server, place, known) for place, server in enumerate(profile.servers)]
    made = NameIndex(shares, taken=taken)
    for place, share in enumerate(made.shares):
        if (catalogue := catalogues.get(share.server)) is not None:
            for kind, entries in catalogue.entries.items():
                for entry in entries.values() if kind != INSTRUCTIONS else ():
                    made.add(place, entry)
    return made


def template(uri: str) -> Callable[[str], bool]:
    """True for a URI that fits a template of RFC 6570. A `*` in the template is an ordinary character."""
    parts = uri.split("{")
    text = parts[0] + "".join("*" + part.partition("}")[2] for part in parts[1:])
    return Pattern(text) if len(parts) > 1 else lambda value: value == uri
