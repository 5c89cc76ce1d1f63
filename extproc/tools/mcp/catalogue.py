"""The definitions that a server offers: tools, prompts, resources and resource templates.

Definitions are kept as the server wrote them, field by field: a profile changes only the name. A server's instructions
for its clients' models are a definition, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import msgspec

from extproc.tools.mcp.call import INFO, LEGACY, MODERN
from extproc.tools.mcp.link import NO_USER, Link, RefusedError, ServerError, SessionGoneError
from extproc.tools.mcp.settings import MCPLimitsSettings

Kind = Literal["tools", "prompts", "resources", "templates", "instructions"]
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
"""The field with the definitions in a list's result, by kind."""
_NAMES: Mapping[Kind, str] = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}
NOUNS: Mapping[str, str] = {
    "tools": "tool",
    "prompts": "prompt",
    "resources": "resource",
    "templates": "template",
    "instructions": "instructions",
}
INSTRUCTIONS: Literal["instructions"] = "instructions"
"""Kind, name and only field of the definition that holds a server's instructions."""
MOST_LEFT_OUT = 100
"""Most definitions that a catalogue leaves out by name; further ones make it incomplete."""
_MOST_INSTRUCTIONS = 16384  # most characters of a server's instructions
_SHORTEST = 5.0  # shortest time between two looks that a server may ask for, seconds
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+").fullmatch  # without `_`, because Envoy refuses it in header names
_DEPTH = 32

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(slots=True, frozen=True)
class Definition:
    """A definition, as its server gave it."""

    kind: Kind
    server: str
    name: str  # the server's own name; a URI, or the pattern of URIs of a template
    fields: Mapping[str, msgspec.Raw]  # fields of the definition, as the server wrote them
    # Arguments of a tool that headers repeat: path of the argument -> end of the header's name.
    headers: tuple[tuple[tuple[str, ...], str], ...] = ()

    def value(self, name: str) -> Any:
        """A field of the definition; None if it is absent."""
        raw = self.fields.get(name)
        return None if raw is None else msgspec.json.decode(raw)

    @property
    def is_app(self) -> bool:
        """True for the page of an app, and for a tool that names one (https://github.com/modelcontextprotocol/ext-apps,
        and its forerunners).
        """
        if self.kind != "tools":
            return self.kind in ("resources", "templates") and is_app(self.name)
        meta = self.value("_meta")
        return isinstance(meta, dict) and any(key == "ui" or key.startswith(_APP_KEYS) for key in meta)


_APP_KEYS = ("ui/", "openai/")


def is_app(uri: str) -> bool:
    """True for the URI of an app's page."""
    return uri.strip().lower().startswith("ui:")


class Voice(NamedTuple):
    """The way to speak with a server: revision, session, and abilities of the client."""

    version: str
    session: str = ""
    capabilities: Mapping[str, Any] = {}


class LeftOut(NamedTuple):
    """A definition that cannot be offered, and the reason for people."""

    kind: Kind
    name: str  # empty: the name is missing or unreadable
    reason: str


@dataclass(slots=True, frozen=True)
class Catalogue:
    """Everything that a server offers, and the revisions it speaks."""

    modern: bool = False
    legacy: str = ""  # the server's revision with sessions; empty: none
    sessions: bool = False  # True: the server gives sessions to clients of that revision
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[Kind, Mapping[str, Definition]] = field(default_factory=dict)  # by name, in the server's order
    left_out: Sequence[LeftOut] = ()
    complete: bool = True  # False: the server has further definitions beyond the limits
    ttl: float | None = field(default=None, compare=False)  # seconds until the next look, as the server asks

    def version_for(self, *, modern: bool) -> str:
        """The revision to speak with the server for a client: the client's own if the server speaks it."""
        return MODERN if self.modern and (modern or not self.legacy) else self.legacy


class _Hello(msgspec.Struct, rename="camel"):
    capabilities: dict[str, Any] = {}
    protocolVersion: str = ""  # noqa: N815 - the name in JSON
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


async def initialize(
    link: Link, capabilities: Mapping[str, Any], user: Mapping[str, str] = NO_USER
) -> tuple[_Hello, str]:
    """Begin a session, for a `user` with these headers. Returns the server's description of itself, and the session's
    id, which may be empty. Raises ServerError, and RefusedError if the server knows no sessions.
    """
    params = {"protocolVersion": LEGACY[0], "capabilities": capabilities, "clientInfo": INFO}
    result, session = await link.ask("initialize", params, "", user=user)
    hello = _read(_hello, result)
    if hello.protocolVersion not in LEGACY or not _is_header(session):
        raise ServerError("bad_answer")
    await link.tell(b'{"jsonrpc":"2.0","method":"notifications/initialized"}', hello.protocolVersion, session, user)
    return hello, session


async def look(
    name: str,
    link: Link,
    limits: MCPLimitsSettings,
    before: Catalogue | None,
    capabilities: Mapping[str, Any] | None = None,
) -> Catalogue:
    """Read all definitions that a server offers to clients with these capabilities. Raises ServerError."""
    can = capabilities or {}
    modern, legacy, session = None, None, ""
    try:
        result, _ = await link.ask("server/discover", {}, MODERN, "", can)
        found = _read(_hello, result)
        modern = found if MODERN in found.supportedVersions else None
    except RefusedError:
        pass
    if modern is None or before is None:
        try:
            legacy, session = await initialize(link, can)
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
    voice = Voice(version, "" if modern is not None else session, can)
    reader, entries = await _lists(name, link, limits, voice, hello.capabilities)
    if session:
        await link.end(legacy.protocolVersion if legacy is not None else "", session)
    if text := (hello.instructions or "")[:_MOST_INSTRUCTIONS]:
        entries[INSTRUCTIONS] = {INSTRUCTIONS: Definition(INSTRUCTIONS, name, INSTRUCTIONS, {INSTRUCTIONS: _raw(text)})}
    return Catalogue(
        modern=modern is not None,
        legacy=spoken,
        sessions=sessions,
        capabilities=hello.capabilities,
        entries=entries,
        left_out=reader.left_out,
        complete=reader.complete,
        ttl=reader.ttl,
    )


async def look_again(base: Catalogue, name: str, link: Link, limits: MCPLimitsSettings, voice: Voice) -> Catalogue:
    """The catalogue that a server offers in one session. Raises ServerError, and SessionGoneError."""
    reader, entries = await _lists(name, link, limits, voice, base.capabilities)
    if INSTRUCTIONS in base.entries:
        entries[INSTRUCTIONS] = base.entries[INSTRUCTIONS]
    return replace(base, entries=entries, left_out=reader.left_out, complete=reader.complete, ttl=reader.ttl)


async def _lists(
    name: str, link: Link, limits: MCPLimitsSettings, voice: Voice, offered: Mapping[str, Any]
) -> tuple[_Reader, dict[Kind, Mapping[str, Definition]]]:
    reader = _Reader(name, link, limits, voice)
    return reader, {kind: await reader.read(method, kind, offered) for method, kind in KINDS.items()}


class _Reader:
    """Reads the lists of one server."""

    def __init__(self, name: str, link: Link, limits: MCPLimitsSettings, voice: Voice) -> None:
        self._name = name
        self._link = link
        self._limits = limits
        self._voice = voice
        self._room = limits.catalogue
        self.left_out: list[LeftOut] = []
        self.complete = True
        self.ttl: float | None = None

    async def read(self, method: str, kind: Kind, capabilities: Mapping[str, Any]) -> Mapping[str, Definition]:
        """All pages of a list."""
        found: dict[str, Definition] = {}
        if ("resources" if kind == "templates" else kind) not in capabilities:
            return found
        cursor: str | None = None
        for _ in range(self._limits.pages):
            params = {} if cursor is None else {"cursor": cursor}
            try:
                result, _ = await self._link.ask(method, params, *self._voice)
            except SessionGoneError:
                raise
            except RefusedError as error:
                if error.unknown:
                    return found
                raise ServerError("bad_answer") from None
            page = _read(_page, result)
            for raw in getattr(page, FIELDS[kind]):
                self._add_definition(kind, raw, found)
            if page.ttlMs is not None:
                ttl = max(page.ttlMs / 1000, _SHORTEST)
                self.ttl = ttl if self.ttl is None else min(ttl, self.ttl)
            if not page.nextCursor or page.nextCursor == cursor:
                return found
            cursor = page.nextCursor
        self.complete = False
        return found

    def _add_definition(self, kind: Kind, raw: msgspec.Raw, found: dict[str, Definition]) -> None:
        size = len(bytes(raw))
        name, entry = "", None
        try:
            fields = {key: msgspec.Raw(bytes(value)) for key, value in _fields(raw).items()}
            name = msgspec.json.decode(fields[_NAMES[kind]], type=str)
            headers = _headers(fields) if kind == "tools" else ()
        except (msgspec.DecodeError, KeyError, RecursionError):
            reason = "it is no definition with a name"
        else:
            reason = self._reason(kind, name, headers, size, found)
            entry = Definition(kind, self._name, name, fields, headers or ())
        if entry is None or reason:
            self._leave_out(LeftOut(kind, name[: self._limits.uri], reason))
            return
        self._room -= size
        found[name] = entry

    def _reason(self, kind: Kind, name: str, headers: Any, size: int, found: Mapping[str, Definition]) -> str:
        """The reason why a definition cannot be offered; empty if it can be."""
        limits = self._limits
        limit, most = ("name", limits.name) if kind in ("tools", "prompts") else ("uri", limits.uri)
        if not 0 < len(name) <= most:
            return f"its name has {len(name)} characters, of 1 to {most} (mcp.limits.{limit})"
        if not name.isprintable():
            return "its name has characters that people do not see"
        if headers is None:
            return "its schema wants a header that cannot be sent (x-mcp-header)"
        if name in found:
            return "another definition has the same name"
        if len(found) >= limits.tools:
            return f"the server offers more than {limits.tools} of this kind (mcp.limits.tools)"
        return "the server's definitions are larger than mcp.limits.catalogue" if size > self._room else ""

    def _leave_out(self, what: LeftOut) -> None:
        if len(self.left_out) < MOST_LEFT_OUT:
            self.left_out.append(what)
        else:
            self.complete = False


def _headers(fields: Mapping[str, msgspec.Raw]) -> tuple[tuple[tuple[str, ...], str], ...] | None:
    """Arguments of a tool that headers repeat (`x-mcp-header`); None if such a header cannot be sent."""
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


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _is_header(session: str) -> bool:
    return len(session) <= 1024 and session.isascii() and (not session or session.isprintable())


def same(one: Catalogue | None, other: Catalogue) -> bool:
    """True if nothing that clients see has changed."""
    return one == other and _order(one) == _order(other)


def _order(catalogue: Catalogue) -> Sequence[Sequence[str]]:
    return [list(entries) for entries in catalogue.entries.values()]
