"""The definitions that a server offers: tools, prompts, resources and resource templates.

They are kept as the server wrote them, field by field: a profile changes nothing but the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from extproc.mcp.call import INFO, LEGACY, MODERN
from extproc.mcp.link import Link, RefusedError, ServerError
from extproc.mcp.settings import MCPLimitsSettings

Kind = Literal["tools", "prompts", "resources", "templates"]
KINDS: Mapping[str, Kind] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "templates",
}
FIELDS: Mapping[Kind, str] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "templates": "resourceTemplates",
}
"""The field of a list's result that has the definitions."""
_NAMES: Mapping[Kind, str] = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}
_SHORTEST = 5.0  # seconds between two looks that a server may ask for
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+").fullmatch  # without `_`, which Envoy refuses in names of headers
_DEPTH = 32

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(slots=True, frozen=True)
class Entry:
    """A definition, as its server gave it."""

    kind: Kind
    server: str
    name: str  # the server's own name; a URI, or the pattern of URIs of a template
    fields: Mapping[str, msgspec.Raw]  # of the definition, each as the server wrote it
    # of a tool: arguments that stand in headers too, each by its path, with the end of the header's name
    headers: tuple[tuple[tuple[str, ...], str], ...] = ()

    def value(self, name: str) -> Any:
        """A field of the definition; None where it is absent."""
        raw = self.fields.get(name)
        return None if raw is None else msgspec.json.decode(raw)


@dataclass(slots=True, frozen=True)
class Catalogue:
    """Everything that a server offers, and the revisions it speaks."""

    modern: bool = False
    legacy: str = ""  # its revision with sessions, empty: none
    sessions: bool = False  # it gives sessions to clients of that revision
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    instructions: str = ""
    entries: Mapping[Kind, Mapping[str, Entry]] = field(default_factory=dict)  # by name, in the server's order
    left_out: int = field(default=0, compare=False)  # definitions that cannot be offered
    ttl: float | None = field(default=None, compare=False)  # seconds until the next look, as the server asks


class _Hello(msgspec.Struct, rename="camel"):
    capabilities: dict[str, Any] = {}
    protocolVersion: str = ""  # noqa: N815 - as it is in JSON
    supportedVersions: list[str] = []  # noqa: N815
    instructions: str | None = None


class _Page(msgspec.Struct):
    tools: list[msgspec.Raw] = []
    prompts: list[msgspec.Raw] = []
    resources: list[msgspec.Raw] = []
    resourceTemplates: list[msgspec.Raw] = []  # noqa: N815
    nextCursor: str | None = None  # noqa: N815
    ttlMs: float | None = None  # noqa: N815


_hello = msgspec.json.Decoder(_Hello).decode
_page = msgspec.json.Decoder(_Page).decode


async def initialize(link: Link, capabilities: Mapping[str, Any]) -> tuple[_Hello, str]:
    """Begin a session: what the server says of itself, and the session's id, which may be empty. Raises ServerError,
    and RefusedError where the server knows no sessions.
    """
    params = {"protocolVersion": LEGACY[0], "capabilities": capabilities, "clientInfo": INFO}
    result, session = await link.ask("initialize", params, "")
    hello = _read(_hello, result)
    if hello.protocolVersion not in LEGACY or not _is_header(session):
        raise ServerError("bad_answer")
    await link.tell(b'{"jsonrpc":"2.0","method":"notifications/initialized"}', hello.protocolVersion, session)
    return hello, session


async def look(name: str, link: Link, limits: MCPLimitsSettings, before: Catalogue | None) -> Catalogue:
    """Ask a server for everything it offers. Raises ServerError."""
    modern, legacy, session = None, None, ""
    try:
        result, _ = await link.ask("server/discover", {}, MODERN)
        found = _read(_hello, result)
        modern = found if MODERN in found.supportedVersions else None
    except RefusedError:
        pass
    if modern is None or before is None:
        try:
            legacy, session = await initialize(link, {})
        except RefusedError:
            if modern is None:
                raise ServerError("bad_answer") from None
    version = MODERN if modern is not None else legacy.protocolVersion if legacy is not None else ""
    hello = modern or legacy
    assert hello is not None
    if modern is not None and legacy is None and before is not None:
        spoken, sessions = before.legacy, before.sessions
    else:
        spoken, sessions = "" if legacy is None else legacy.protocolVersion, bool(session)
    reader = _Reader(name, link, limits, version, "" if modern is not None else session)
    entries = {kind: await reader.read(method, kind, hello.capabilities) for method, kind in KINDS.items()}
    if session:
        await link.end(legacy.protocolVersion if legacy is not None else "", session)
    text = (hello.instructions or "")[:16384]
    return Catalogue(
        modern is not None, spoken, sessions, hello.capabilities, text, entries, reader.left_out, reader.ttl
    )


class _Reader:
    """Reads the lists of one server."""

    def __init__(self, name: str, link: Link, limits: MCPLimitsSettings, version: str, session: str) -> None:
        self._name = name
        self._link = link
        self._limits = limits
        self._version, self._session = version, session
        self._room = limits.catalogue
        self.left_out = 0
        self.ttl: float | None = None

    async def read(self, method: str, kind: Kind, capabilities: Mapping[str, Any]) -> Mapping[str, Entry]:
        """All pages of a list."""
        found: dict[str, Entry] = {}
        if ("resources" if kind == "templates" else kind) not in capabilities:
            return found
        cursor: str | None = None
        for _ in range(self._limits.pages):
            params = {} if cursor is None else {"cursor": cursor}
            try:
                result, _ = await self._link.ask(method, params, self._version, self._session)
            except RefusedError as error:
                if error.unknown:
                    return found
                raise ServerError("bad_answer") from None
            page = _read(_page, result)
            for raw in getattr(page, FIELDS[kind]):
                self._take(kind, raw, found)
            if page.ttlMs is not None:
                ttl = max(page.ttlMs / 1000, _SHORTEST)
                self.ttl = ttl if self.ttl is None else min(ttl, self.ttl)
            if not page.nextCursor or page.nextCursor == cursor:
                break
            cursor = page.nextCursor
        return found

    def _take(self, kind: Kind, raw: msgspec.Raw, found: dict[str, Entry]) -> None:
        size = len(bytes(raw))
        entry = None if len(found) >= self._limits.tools or size > self._room else self._entry(kind, raw)
        if entry is None or entry.name in found:
            self.left_out += 1
            return
        self._room -= size
        found[entry.name] = entry

    def _entry(self, kind: Kind, raw: msgspec.Raw) -> Entry | None:
        """The entry of a definition; None where it cannot be offered."""
        try:
            fields = {name: msgspec.Raw(bytes(value)) for name, value in _fields(raw).items()}
            name = msgspec.json.decode(fields[_NAMES[kind]], type=str)
            headers = _headers(fields) if kind == "tools" else ()
        except (msgspec.DecodeError, KeyError, RecursionError):
            return None
        most = self._limits.name if kind in ("tools", "prompts") else self._limits.uri
        if not 0 < len(name) <= most or not name.isprintable() or headers is None:
            return None
        return Entry(kind, self._name, name, fields, headers)


def _headers(fields: Mapping[str, msgspec.Raw]) -> tuple[tuple[tuple[str, ...], str], ...] | None:
    """Arguments of a tool that stand in headers too (`x-mcp-header`); None where such a header cannot be sent."""
    if b"x-mcp-header" not in bytes(fields.get("inputSchema", b"")):
        return ()
    found: list[tuple[tuple[str, ...], str]] = []
    stack: list[tuple[tuple[str, ...], Any]] = [((), msgspec.json.decode(fields["inputSchema"]))]
    while stack:
        path, schema = stack.pop()
        if not isinstance(schema, dict) or len(path) > _DEPTH:
            continue
        token = schema.get("x-mcp-header")
        if token is not None:
            if not isinstance(token, str) or not path or not _TOKEN(token):
                return None
            found.append((path, token.lower()))
        inner = schema.get("properties")
        stack += [((*path, name), each) for name, each in inner.items()] if isinstance(inner, dict) else []
    return tuple(found)


def _read(decode: Any, result: msgspec.Raw) -> Any:
    try:
        return decode(result)
    except (msgspec.DecodeError, RecursionError):
        raise ServerError("bad_answer") from None


def _is_header(session: str) -> bool:
    return len(session) <= 1024 and session.isascii() and (not session or session.isprintable())


def same(one: Catalogue | None, other: Catalogue) -> bool:
    """True where nothing changed that clients see."""
    return one == other and _order(one) == _order(other)


def _order(catalogue: Catalogue) -> Sequence[Sequence[str]]:
    return [list(entries) for entries in catalogue.entries.values()]
