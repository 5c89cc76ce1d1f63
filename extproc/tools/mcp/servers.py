"""The MCP servers as this process knows them: what outlives a configuration."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from extproc.tools.mcp.board import Board
from extproc.tools.mcp.catalogue import Catalogue, Definition, Kind, initialize, look, same
from extproc.tools.mcp.link import Link, NoEnvoyError, RefusedError, ServerError, SessionGoneError
from extproc.tools.mcp.own import OwnLists
from extproc.tools.mcp.sessions import ClientSession, ServerQuestion, Sessions
from extproc.tools.mcp.settings import MCPLimitsSettings, MCPSettings
from extproc.wire.framing import rpc

log = logging.getLogger(__name__)

_AGAIN = 0.25  # seconds after a failed look, doubled for each further one
_PATIENCE = 8.0  # seconds for a handshake within a request; Envoy gives a request up after 10
_FIRST = 3.0  # seconds that lists wait for the first look at a server
_BACKGROUND = 256  # requests of our own at a time that nothing waits for
_LOOKS = 16  # looks at a time
_SOON = 5.0  # seconds from a look to the next, where a server turned out to have changed
_LONGEST = 30.0  # seconds for one of our own requests
_MOST_LINES = 20  # lines in the log, for one change of a server
_MOST_NAME = 128  # characters of a name in the log


@dataclass(slots=True, frozen=True)
class ServerSession:
    """A session at a server, for one session of a client or one consumer."""

    id: str  # may be empty: the server knows none
    version: str


class SessionTicket(msgspec.Struct, array_like=True, frozen=True):
    """A session at a server and its owner, for a later try of a call. Any process can go on with it."""

    server: str
    session: str  # at the server
    version: str  # the protocol's, in the session at the server
    owner: str  # the consumer whose session it is
    client: str  # id of the client's session, empty: the session is the consumer's

    @property
    def key(self) -> str:
        """The session is kept under this name."""
        return self.client or self.owner

    @property
    def text(self) -> str:
        """The value of `contract.SESSION`."""
        return json.dumps(msgspec.structs.astuple(self))


_decode_ticket = msgspec.json.Decoder(SessionTicket).decode


class McpServer:
    """One server: the latest good catalogue, and the time of the next look."""

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.link = link
        self.catalogue: Catalogue | None = None
        self.failing = ""  # code of the latest look, empty: it went well
        self.looked = 0.0  # time of the latest good look, in seconds since the epoch
        self.known = asyncio.Event()  # a first look has ended
        self.due = 0.0  # monotonic
        self.failures = 0
        self.looking = False
        self.names: dict[Kind, dict[str, None]] = defaultdict(dict)  # that it offers, or offered: they stay its own
        self.in_sessions: dict[
            tuple[Kind, str], Definition
        ] = {}  # the latest definitions that sessions of their own have
        self._told = ""  # the definitions that cannot be offered, as the log has them

    def learn(self, found: Catalogue, most: int) -> None:
        """Take in a catalogue. Of the names that the server has given up, `most` of each kind are remembered."""
        self.catalogue = found
        self._remember(found, most)
        self._tell(found)

    def _tell(self, found: Catalogue) -> None:
        """Log the definitions that cannot be offered, once for each change of them."""
        left_out = found.left_out
        lines = [f"{each.kind} {each.name[:_MOST_NAME]!r}: {each.reason}" for each in left_out[:_MOST_LINES]]
        if (more := len(left_out) - len(lines)) > 0 or not found.complete:
            lines.append(f"{more or 'an unknown number of'} more: see `extproc mcp list`, and mcp.limits")
        if (told := "\n".join(lines)) != self._told:
            self._told = told
            for line in lines:
                log.warning("MCP server %s: a definition is not offered: %s", self.name, line)

    def remember(self, found: Catalogue, most: int) -> None:
        """Take in the catalogue of one session. `most` of the definitions that sessions have are remembered."""
        for kind, entries in found.entries.items():
            for name, entry in entries.items():
                self.in_sessions.pop((kind, name), None)
                self.in_sessions[kind, name] = entry
        for key in list(self.in_sessions)[: max(0, len(self.in_sessions) - most)]:
            del self.in_sessions[key]
        self._remember(found, most)

    def _remember(self, found: Catalogue, most: int) -> None:
        left_out = [(each.kind, each.name) for each in found.left_out if each.name]
        for kind, name in (*((kind, name) for kind, entries in found.entries.items() for name in entries), *left_out):
            names = self.names[kind]
            names.pop(name, None)
            names[name] = None
        for kind, names in self.names.items():
            for name in list(names)[: max(0, len(names) - len(found.entries.get(kind, ())) - most)]:
                del names[name]


class Servers:
    """The servers of one process: their catalogues and sessions. `socket` is Envoy's, for requests of our own."""

    def __init__(self, settings: MCPSettings, socket: str, secret: str | None) -> None:
        self._settings = settings
        self._socket = Path(socket)
        self.sessions = Sessions(secret, settings.limits.session_age)
        self.board = Board(self._heard)
        self._at_servers: OrderedDict[tuple[Hashable, str], asyncio.Task[ServerSession]] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self.generation = 0  # grows with a change of any catalogue
        self.changed: Callable[[Catalogue], None] = lambda _found: None  # called with each new catalogue
        self.own = OwnLists(self)
        self.by_name: dict[str, McpServer] = {}
        self.take(settings, secret)

    def take(self, settings: MCPSettings, secret: str | None) -> None:
        """Use other settings: servers that are new or have moved begin anew. Without a secret the last one stays."""
        before, self._settings = self._settings, settings
        self.sessions.use(secret, settings.limits.session_age)
        for name, each in settings.servers.items():
            old = before.servers.get(name)
            if name not in self.by_name or old is None or old.url != each.url:
                link = Link(
                    name, str(self._socket), most=settings.limits.catalogue, timeout=min(each.timeout, _LONGEST)
                )
                self.by_name[name] = McpServer(name, link)
        for name in [name for name in self.by_name if name not in settings.servers]:
            del self.by_name[name]
        self.generation += 1
        self._wake.set()

    @property
    def limits(self) -> MCPLimitsSettings:
        return self._settings.limits

    # --- catalogues

    async def run(self) -> None:
        """Look at servers until cancelled."""
        room = asyncio.Semaphore(_LOOKS)
        try:
            while True:
                self._wake.clear()
                now = time.monotonic()
                away = not self._socket.exists()
                for server in self.by_name.values():
                    if server.looking or now < server.due:
                        continue
                    if away:  # no look is worth a task
                        self._failed(server, NoEnvoyError("server_unavailable"))
                    else:
                        server.looking = True
                        self.spawn(self._look(server, room))
                due = min([server.due for server in self.by_name.values() if not server.looking], default=now + 60)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.05, due - now)):
                        await self._wake.wait()
        finally:
            for task in self._tasks:
                task.cancel()

    async def _look(self, server: McpServer, room: asyncio.Semaphore) -> None:
        settings, reached = self._settings.servers.get(server.name), True
        if settings is None:
            return
        try:
            if settings.disabled:
                server.due = time.monotonic() + settings.refresh
                return
            async with room:
                can = self._settings.carried(server.name)
                found = await look(server.name, server.link, self._settings.limits, server.catalogue, can)
        except ServerError as error:
            reached = self._failed(server, error)
        else:
            server.failing, server.failures, server.looked = "", 0, time.time()
            server.due = time.monotonic() + min(settings.refresh, found.ttl or settings.refresh)
            if not same(server.catalogue, found):
                server.learn(found, self._settings.limits.tools)
                self.generation += 1
                self.changed(found)
        finally:
            server.looking = False
            if reached:
                server.known.set()
            self._wake.set()

    def _failed(self, server: McpServer, error: ServerError) -> bool:
        """Note a look that went wrong. False: Envoy was not there, so it says nothing about the server."""
        reached = not isinstance(error, NoEnvoyError)
        if server.failing != error.code and reached:
            log.warning("MCP server %s: its lists cannot be read (%s); the last good ones stay", server.name, error)
        server.failing, server.failures = error.code, server.failures + 1
        wait = _AGAIN * 2.0 ** min(server.failures - 1, 10 if reached else 2)
        settings = self._settings.servers.get(server.name)
        server.due = time.monotonic() + (wait if settings is None else min(settings.refresh, wait))
        return reached

    def again(self, name: str) -> None:
        """Look at a server soon: it does not know a tool that it has listed."""
        server, settings = self.by_name.get(name), self._settings.servers.get(name)
        if server is not None and settings is not None:
            server.due = min(server.due, max(time.monotonic(), server.due - settings.refresh + _SOON))
            self._wake.set()

    async def met(self, names: Mapping[str, Any]) -> None:
        """Wait until there was a first look at each of these servers, for some seconds after the start."""
        unknown = [server for name in names if (server := self.by_name.get(name)) and not server.known.is_set()]
        if not unknown:
            return
        await asyncio.sleep(0)  # enters a task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST):
                await asyncio.gather(*[server.known.wait() for server in unknown])
        for server in unknown:
            server.known.set()

    # --- sessions at servers

    async def session(self, owner: Hashable, name: str, client: ClientSession | None) -> ServerSession:
        """The session at a server for a client's session or a consumer, opened at its first use. Raises ServerError."""
        key = (owner, name)
        task = self._at_servers.get(key)
        if task is None or (task.done() and _opened(task) is None):
            capabilities = {} if client is None else client.capabilities
            task = self._at_servers[key] = self.spawn(self._open(name, capabilities))
            while len(self._at_servers) > self._settings.limits.sessions:
                self._close(*self._at_servers.popitem(last=False))
        self._at_servers.move_to_end(key)
        if task.done():
            return task.result()
        await asyncio.sleep(0)  # enters a task
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(task)
        except TimeoutError:
            raise ServerError("server_timeout") from None

    async def _open(self, name: str, capabilities: Mapping[str, Any]) -> ServerSession:
        if (server := self.by_name.get(name)) is None:
            raise ServerError("server_unavailable")
        try:
            hello, session = await initialize(server.link, capabilities)
        except RefusedError:
            raise ServerError("bad_answer") from None
        return ServerSession(session, hello.protocolVersion)

    async def renewed(self, text: str) -> Mapping[str, str]:
        """The headers of a later try, for the `SessionTicket` of the first one. Its server did not know the session,
        and gets another one, or there was no connection. A session that cannot be opened leaves the call unchanged.
        """
        ticket = _decode_ticket(text)
        client = self.sessions.find(ticket.owner, ticket.client) if ticket.client else None
        await asyncio.sleep(0)  # enters a task
        with contextlib.suppress(ServerError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while await self._is_gone(ticket):
                    self.forget(ticket)
                    known = self._known(ticket)  # found by a later try; it may be gone, too
                    session = await self.session(ticket.key, ticket.server, client)
                    ticket = msgspec.structs.replace(ticket, session=session.id, version=session.version)
                    if known is None:
                        break
        return {"mcp-session-id": ticket.session, "mcp-protocol-version": ticket.version}

    async def _is_gone(self, ticket: SessionTicket) -> bool:
        if (server := self.by_name.get(ticket.server)) is None:
            return False
        try:
            await server.link.ask("ping", {}, ticket.version, ticket.session)
        except RefusedError as error:
            return isinstance(error, SessionGoneError)
        return False

    def forget(self, ticket: SessionTicket) -> None:
        """The server has ended a session."""
        self.drop(ticket.key, ticket.server, ticket.session)

    def after(self, ticket: SessionTicket, told: str) -> str:
        """The id of the session in which a later try went out. `told` is the one that its answer names, as those of the
        official servers do. Where another process opened it, this one opens its own for the next call.
        """
        if told != ticket.session:
            self.forget(ticket)
        known = self._known(ticket)
        return told or ("" if known is None else known.id)

    def drop(self, owner: str, name: str, session: str) -> None:
        """The server has ended the session of that id."""
        task = self._at_servers.get((owner, name))
        if task is not None and (known := _opened(task)) is not None and known.id == session:
            del self._at_servers[owner, name]

    def _known(self, ticket: SessionTicket) -> ServerSession | None:
        task = self._at_servers.get((ticket.key, ticket.server))
        return None if task is None else _opened(task)

    def end(self, session: ClientSession) -> None:
        """End all sessions at servers of a client's session, in every process."""
        self._end(session.id)
        self.board.tell(session.id)

    def _end(self, owner: str) -> None:
        for name in self.by_name:
            self.own.end(owner, name)
            if (task := self._at_servers.pop((owner, name), None)) is not None:
                self._close((owner, name), task)

    def _close(self, key: tuple[Hashable, str], task: asyncio.Task[ServerSession]) -> None:
        server = self.by_name.get(key[1])
        if server is not None and (session := _opened(task)) is not None and session.id:
            self._behind(server.link.end(session.version, session.id))

    # --- messages that nothing waits for

    def decline(self, session: ClientSession, id: rpc.Id | None) -> None:
        """A client that takes no questions answers one: its servers hear that it does not."""
        self.tell_all(session, _refusal(id))

    def tell_all(self, session: ClientSession, body: bytes) -> None:
        """Pass a message on to the servers where the client's session has one, in every process."""
        self._tell_own(session.id, body)
        self.board.tell(session.id, body)

    def _tell_own(self, owner: str, body: bytes) -> None:
        for name in self.by_name:
            task = self._at_servers.get((owner, name))
            if task is not None and (at := _opened(task)) is not None:
                self.tell(name, at, body)

    def _heard(self, owner: str, body: bytes) -> None:
        """A client told another process something."""
        if body:
            self._tell_own(owner, body)
        else:
            self._end(owner)

    def refuse(self, question: ServerQuestion) -> None:
        """Tell a server that its question reaches nobody: else its tool would wait."""
        self.tell(question.server, ServerSession(question.session, question.version), _refusal(question.id))

    def tell(self, name: str, session: ServerSession, body: bytes) -> None:
        """Send a notification, or an answer to a question, to a server."""
        if (server := self.by_name.get(name)) is not None:
            self._behind(server.link.tell(body, session.version, session.id))

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) > _BACKGROUND:
            work.close()
            return

        async def quietly() -> None:
            with contextlib.suppress(ServerError):
                await work

        self.spawn(quietly())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ServerError):
            log.error("a request to an MCP server ended: a bug", exc_info=error)


def _refusal(id: rpc.Id | None) -> bytes:
    """The answer to a question that reaches nobody."""
    return rpc.encode(rpc.error(id, rpc.METHOD_NOT_FOUND, "The client takes no questions."))


def _opened(task: asyncio.Task[ServerSession]) -> ServerSession | None:
    """The session, where it is open."""
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None
