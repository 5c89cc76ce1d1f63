"""Names: under which name clients find a definition, and which server of a profile owns a name.

A name has one owner: of the servers of the profile that can have it, the one with the longest prefix, and of those the
first. A call must never reach another server because the
owner is switched off, is away, was not read yet, or gave the name up for a while. So a server owns

    every name that it offers, or offered since this process began     `Server.names`
    every name that is pinned for it                                   `Policy.pinned_names`
    every name that it could offer, while its lists are not known      `_Share.own`

and a definition of a server behind it is not offered under such a name. URIs have no prefix. A URI that a template of
the first server can give is a name that it offers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from extproc.tools.mcp.catalogue import INSTRUCTIONS, Catalogue, Definition, Kind
from extproc.tools.mcp.settings import MCPProfileSettings
from extproc.words.values import Pattern, Patterns

LONGEST = 64
"""Characters of a tool's name in the APIs of models: one that is longer makes them refuse all tools."""
_RENAMED = ("tools", "prompts")  # a URI is never renamed

Known = Callable[[str, Kind], Collection[str] | None]
"""Own names that a server has; None: they are not known."""


class Hidden(NamedTuple):
    """A definition that a profile does not offer, and the reason for people."""

    entry: Definition
    name: str  # as clients would see it
    reason: str


class _Share:
    """The part of a server that a profile offers."""

    def __init__(self, profile: MCPProfileSettings, server: str, place: int, known: Known) -> None:
        share = profile.servers[server]
        self.server = server
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
        """The name that clients see; None where the profile does not want the definition."""
        wanted = self._wanted.get(entry.kind)
        if wanted is None or not wanted(entry.name):
            return None
        return self._prefix + entry.name if entry.kind in _RENAMED else entry.name

    def own(self, kind: Kind, name: str) -> str | None:
        """The server's own name for what clients call `name`; None where it can offer nothing of that name."""
        prefix = self._prefix if kind in _RENAMED else ""
        own = name.removeprefix(prefix)
        return own if own and name.startswith(prefix) and self._wanted[kind](own) else None

    def rank(self, kind: Kind) -> tuple[int, int]:
        """The place in the order in which servers own names of a kind."""
        return -len(self._prefix) if kind in _RENAMED else 0, self._place

    def claim(self, kind: Kind, name: str) -> str:
        """The reason why the name is this server's; empty where it is not."""
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
    """Everything that a profile offers, by the name that clients see."""

    shares: Sequence[_Share]
    entries: dict[Kind, dict[str, Definition]] = field(
        default_factory=lambda: {"tools": {}, "prompts": {}, "resources": {}, "templates": {}}
    )
    hidden: list[Hidden] = field(default_factory=list)
    _templates: list[tuple[int, Callable[[str], bool], Definition]] = field(
        default_factory=list
    )  # with the server's place

    def add(self, place: int, entry: Definition) -> None:
        """Take in a definition of the server at that place."""
        name = self.shares[place].seen(entry)
        if name is None:
            return
        if entry.kind == "tools" and len(name) > LONGEST:
            reason = f"it has {len(name)} characters, of {LONGEST} at most"
        else:
            reason = self.claim(place, entry.kind, name)
        if reason:
            self.hidden.append(Hidden(entry, name, reason))
            return
        self.entries[entry.kind][name] = entry
        if entry.kind == "templates":
            self._templates.append((place, template(entry.name), entry))

    def claim(self, place: int, kind: Kind, name: str) -> str:
        """The reason why a name is one of a server before the one at that place; empty where it is none's."""
        rank = self.shares[place].rank(kind)
        before = (share for share in self.shares if share.rank(kind) < rank)
        return next((found for share in before if (found := share.claim(kind, name))), "")

    def template(self, uri: str) -> Definition | None:
        """The template that gives a URI; None where none does, or a server before it owns the URI."""
        for place, matches, entry in self._templates:
            if matches(uri):
                return None if self.claim(place, "resources", uri) else entry
        return None


def index(profile: MCPProfileSettings, catalogues: Mapping[str, Catalogue], known: Known) -> NameIndex:
    """The names of a profile. `catalogues` are those of its servers that are known, switched off ones too: they keep
    their names.
    """
    made = NameIndex([_Share(profile, server, place, known) for place, server in enumerate(profile.servers)])
    for place, share in enumerate(made.shares):
        if (catalogue := catalogues.get(share.server)) is not None:
            for kind, entries in catalogue.entries.items():
                for entry in entries.values() if kind != INSTRUCTIONS else ():
                    made.add(place, entry)
    return made


def template(uri: str) -> Callable[[str], bool]:
    """True for a URI that a template of RFC 6570 can give. A `*` in it is a letter as any other."""
    parts = uri.split("{")
    text = parts[0] + "".join("*" + part.partition("}")[2] for part in parts[1:])
    return Pattern(text) if len(parts) > 1 else lambda value: value == uri
