"""The MCP servers as this process knows them: catalogues and sessions, which outlive a configuration."""

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

from extproc.tools.mcp.behalf import UserTokens
from extproc.tools.mcp.board import Board
from extproc.tools.mcp.catalogue import Catalogue, Definition, Kind, initialize, look, same
from extproc.tools.mcp.link import NO_USER, Link, NoEnvoyError, RefusedError, ServerError, SessionGoneError
from extproc.tools.mcp.own import OwnLists
from extproc.tools.mcp.sessions import ClientSession, ServerQuestion, Sessions
from extproc.tools.mcp.settings import MCPLimitsSettings, MCPSettings
from extproc.wire.framing import rpc

log = logging.getLogger(__name__)

_AGAIN = 0.25  # seconds to the next look after a failed one, doubled for each further failure
_PATIENCE = 8.0  # most seconds for a handshake within a request; Envoy aborts a request after 10
_FIRST = 3.0  # most seconds that lists wait for the first look at a server
_BACKGROUND = 256  # most own requests in the background at a time
_LOOKS = 16  # most looks at a time
_SOON = 5.0  # seconds to the next look at a server that seems to have changed
_LONGEST = 30.0  # most seconds for an own request
_MOST_LINES = 20  # most log lines for one change of a server
_MOST_NAME = 128  # most characters of a name in the log


@dataclass(slots=True, frozen=True)
class ServerSession:
    """A session at a server, for one session of a client or one consumer."""

    id: str  # empty: the server has no sessions
    version: str


class SessionTicket(msgspec.Struct, array_like=True, frozen=True):
    """A session at a server and its owner, for a later try of a call. Any process can use it."""

    server: str
    session: str  # id of the session at the server
    version: str  # version of the protocol in the session at the server
    owner: str  # consumer that owns the session
    client: str  # id of the client's session; empty: the session belongs to the consumer

    @property
    def key(self) -> str:
        """The key under which the session is kept."""
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
        self.failing = ""  # code of the latest look's failure; empty: it succeeded
        self.looked = 0.0  # time of the latest successful look, epoch seconds
        self.known = asyncio.Event()  # set once the first look has ended
        self.due = 0.0  # time of the next look, monotonic seconds
        self.failures = 0
        self.looking = False
        self.names: dict[Kind, dict[str, None]] = defaultdict(dict)  # own names that it offers or once offered
        self.in_sessions: dict[tuple[Kind, str], Definition] = {}  # the latest definitions of separate sessions
        self._told = ""  # the definitions that cannot be offered, as logged

    def learn(self, found: Catalogue, most: int) -> None:
        """Store a new catalogue. Of the names that the server no longer offers, `most` of each kind are remembered."""
        self.catalogue = found
        self._remember(found, most)
        self._log_left_out(found)

    def _log_left_out(self, found: Catalogue) -> None:
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
        """Note the catalogue of one session. At most `most` definitions of sessions are remembered."""
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
    """The servers of one process: their catalogues and sessions. `socket` is Envoy's, for own requests."""

    def __init__(self, settings: MCPSettings, socket: str, secret: str | None) -> None:
        self._settings = settings
        self._socket = Path(socket)
        self.sessions = Sessions(secret, settings.limits.session_age)
        self.users = UserTokens()
        self.board = Board(self._heard)
        self._at_servers: OrderedDict[tuple[Hashable, str], asyncio.Task[ServerSession]] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self.generation = 0  # grows with each change of a catalogue
        self.changed: Callable[[Catalogue], None] = lambda _found: None  # called with each new catalogue
        self.own = OwnLists(self)
        self.by_name: dict[str, McpServer] = {}
        self.apply_settings(settings, secret)

    def apply_settings(self, settings: MCPSettings, secret: str | None) -> None:
        """Use new settings: servers that are new or have moved begin anew. Without a secret the earlier one stays in
        use.
        """
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
    def settings(self) -> MCPSettings:
        """The settings in force."""
        return self._settings

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
                    if away:  # Envoy is away: fail without a task
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
        """Note a failed look. False: Envoy was away, so the failure says nothing about the server."""
        reached = not isinstance(error, NoEnvoyError)
        if server.failing != error.code and reached:
            log.warning("MCP server %s: its lists cannot be read (%s); the last good ones stay", server.name, error)
        server.failing, server.failures = error.code, server.failures + 1
        wait = _AGAIN * 2.0 ** min(server.failures - 1, 10 if reached else 2)
        settings = self._settings.servers.get(server.name)
        server.due = time.monotonic() + (wait if settings is None else min(settings.refresh, wait))
        return reached

    async def challenge(self, name: str) -> str:
        """See `Link.challenge`. Empty if the server does not answer."""
        server = self.by_name.get(name)
        with contextlib.suppress(ServerError):
            return "" if server is None else await server.link.challenge()
        return ""

    def again(self, name: str) -> None:
        """Look at a server soon, because it does not know a tool that it has listed."""
        server, settings = self.by_name.get(name), self._settings.servers.get(name)
        if server is not None and settings is not None:
            server.due = min(server.due, max(time.monotonic(), server.due - settings.refresh + _SOON))
            self._wake.set()

    async def wait_first_look(self, names: Mapping[str, Any]) -> None:
        """Wait for the first look at each of these servers, for some seconds after the start."""
        unknown = [server for name in names if (server := self.by_name.get(name)) and not server.known.is_set()]
        if not unknown:
            return
        await asyncio.sleep(0)  # lets this coroutine run in a task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST):
                await asyncio.gather(*[server.known.wait() for server in unknown])
        for server in unknown:
            server.known.set()

    # --- sessions at servers

    async def session(
        self, owner: Hashable, name: str, client: ClientSession | None, user: Mapping[str, str] = NO_USER
    ) -> ServerSession:
        """The session at a server for a client's session or a consumer, opened at its first use with the headers of
        its `user`. Raises ServerError.
        """
        key = (owner, name)
        task = self._at_servers.get(key)
        if task is None or (task.done() and _opened(task) is None):
            capabilities = {} if client is None else client.capabilities
            task = self._at_servers[key] = self.spawn(self._open(name, capabilities, user))
            while len(self._at_servers) > self._settings.limits.sessions:
                self._close(*self._at_servers.popitem(last=False))
        self._at_servers.move_to_end(key)
        if task.done():
            return task.result()
        await asyncio.sleep(0)  # lets this coroutine run in a task
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(task)
        except TimeoutError:
            raise ServerError("server_timeout") from None

    async def _open(self, name: str, capabilities: Mapping[str, Any], user: Mapping[str, str]) -> ServerSession:
        if (server := self.by_name.get(name)) is None:
            raise ServerError("server_unavailable")
        try:
            hello, session = await initialize(server.link, capabilities, user)
        except RefusedError:
            raise ServerError("bad_answer") from None
        return ServerSession(session, hello.protocolVersion)

    async def renewed(self, text: str) -> Mapping[str, str]:
        """The headers of a later try, for the `SessionTicket` of the first try. If the server did not know the session,
        the try gets a new session. If no session can be opened the call stays unchanged.
        """
        ticket = _decode_ticket(text)
        client = self.sessions.find(ticket.owner, ticket.client) if ticket.client else None
        await asyncio.sleep(0)  # lets this coroutine run in a task
        with contextlib.suppress(ServerError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while await self._is_gone(ticket):
                    self.forget(ticket)
                    known = self._known(ticket)  # opened by another later try, and possibly gone, too
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
        """Forget a session that the server has ended."""
        self.drop(ticket.key, ticket.server, ticket.session)

    def after(self, ticket: SessionTicket, told: str) -> str:
        """The id of the session of a later try. `told` is the id that its answer names, as answers of the official
        servers do. If another process opened the session, this process opens its own for the next call.
        """
        if told != ticket.session:
            self.forget(ticket)
        known = self._known(ticket)
        return told or ("" if known is None else known.id)

    def drop(self, owner: str, name: str, session: str) -> None:
        """Forget the session of that id, which the server has ended."""
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
        server = self._as_gateway(key[1])
        if server is not None and (session := _opened(task)) is not None and session.id:
            self._behind(server.link.end(session.version, session.id))

    # --- messages that nothing waits for

    def decline(self, session: ClientSession, id: rpc.Id | None) -> None:
        """Tell a server that its question was declined, because the client takes no questions."""
        self.tell_all(session, _refusal(id))

    def tell_all(self, session: ClientSession, body: bytes) -> None:
        """Pass a message on to all servers with a session for the client's session, in every process."""
        self._tell_own(session.id, body)
        self.board.tell(session.id, body)

    def _tell_own(self, owner: str, body: bytes) -> None:
        for name in self.by_name:
            task = self._at_servers.get((owner, name))
            if task is not None and (at := _opened(task)) is not None:
                self.tell(name, at, body)

    def _heard(self, owner: str, body: bytes) -> None:
        """Handle a client's message that another process received."""
        if body:
            self._tell_own(owner, body)
        else:
            self._end(owner)

    def refuse(self, question: ServerQuestion) -> None:
        """Tell a server that no client gets its question, so that its tool does not wait."""
        self.tell(question.server, ServerSession(question.session, question.version), _refusal(question.id))

    def tell(self, name: str, session: ServerSession, body: bytes) -> None:
        """Send a notification, or an answer to a question, to a server."""
        if (server := self._as_gateway(name)) is not None:
            self._behind(server.link.tell(body, session.version, session.id))

    def _as_gateway(self, name: str) -> McpServer | None:
        """The server, if its sessions have the gateway's own token: those of users are not at hand here."""
        settings = self._settings.servers.get(name)
        return None if settings is None or settings.auth is not None else self.by_name.get(name)

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
    """The answer to a question that no client gets."""
    return rpc.encode(rpc.error(id, rpc.METHOD_NOT_FOUND, "The client takes no questions."))


def _opened(task: asyncio.Task[ServerSession]) -> ServerSession | None:
    """The session, if it is open."""
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None
