"""FindServer and ForwardRPC lead a name to its server. Returned and ReadAnswer handle the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from extproc.routing.retries import retry_headers
from extproc.tools.mcp.answers import unknown_method
from extproc.tools.mcp.call import CALL, MODERN, Call, owner
from extproc.tools.mcp.eras import request_for
from extproc.tools.mcp.link import NO_USER, ServerError, headers_for
from extproc.tools.mcp.on_behalf import OnBehalf
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.refusals import RPCRefusal, body_of, too_large, unknown
from extproc.tools.mcp.servers import Servers, ServerSession, SessionTicket
from extproc.tools.mcp.settings import HOP, MCPSettings
from extproc.wire.framing.content_types import framing_for
from extproc.wire.framing.events import Events
from extproc.wire.framing.patch import patch
from extproc.wire.framing.rewording import Rewording
from extproc.wire.framing.sse import SSE
from extproc.words import contract
from extproc.words.actions import Continue
from extproc.words.contract import UPSTREAM, internal
from extproc.words.dialect import Report
from extproc.words.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MCP_BAD_ANSWER,
    MCP_CREDENTIAL_REJECTED,
    MCP_SERVER_TIMEOUT,
    MCP_SERVER_UNAVAILABLE,
    Refusal,
)
from extproc.words.exchange import Exchange

_AGAIN = {"x-envoy-max-retries": "1", **retry_headers(("connect",))}
"""A call is tried again only after a failure to connect: its server has not seen it."""
_AGAIN_IN_SESSION = {**_AGAIN, **retry_headers(("connect", "404")), contract.ATTEND: contract.ATTEND_LATER}
"""A call in a session is also tried again if the server does not know the session, and so has not run the call. The
next try gets another session.
"""
_FAILURES = {
    "server_unavailable": (MCP_SERVER_UNAVAILABLE, "Server {} cannot be reached now; try again later."),
    "server_timeout": (MCP_SERVER_TIMEOUT, "Server {} did not answer in time; try again later."),
    "bad_answer": (MCP_BAD_ANSWER, "Server {} gave an answer that is not MCP."),
    "credential_rejected": (MCP_CREDENTIAL_REJECTED, "Server {} refused the gateway's credential."),
}
_REASONS = {"timeout": "server_timeout", "credential": "credential_rejected"}
_OF_SERVERS = ("mcp-session-id", "server", "www-authenticate", "x-powered-by")
"""Headers of servers that clients do not get."""


def failure(code: str, server: str) -> Refusal:
    """The refusal for a server that gave no valid answer, without the server's own words."""
    kind, text = _FAILURES[code]
    return RPCRefusal(kind, text.format(server), data={"server": server})


class FindServer:
    """Writes `server`, `tool`, `entry` and `policy` of the call, and `targets`. The refusal is the same for unknown
    names and for names that are not granted.
    """

    def __init__(self, settings: MCPSettings, profiles: Profiles, servers: Servers, policy: Policy) -> None:
        self._settings = settings
        self._profiles = profiles
        self._servers = servers
        self._policy = policy

    def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        message = call.message
        assert message is not None
        if message.kind == "response":
            self._answered(exchange, call)
        elif not call.name or len(call.name) > self._most(message.method):
            text = f"{message.method} needs a name of up to {self._most(message.method)} characters."
            raise Refusal(INVALID_PARAMS, text)
        elif not isinstance(message.params.get("arguments", {}), dict):
            raise Refusal(INVALID_PARAMS, "'arguments' are an object.")
        elif message.method.startswith("resources/") and message.method != "resources/read":
            self._subscription(exchange, call, message.method)
        else:
            found = self._profiles.find(call, exchange.consumer.tools)
            if found is None:
                raise unknown(message.method, call.name)
            call.server, call.tool, call.entry = found.server, found.name, found.entry
        if exchange.request.operation == "tools/call":
            call.policy = self._settings.policy(call.server, call.tool)
        exchange.route.targets = (self._policy.target(call),)
        if self._settings.servers[call.server].disabled:
            raise failure("server_unavailable", call.server)

    def _most(self, method: str) -> int:
        """Longest name of an object of the method, in characters."""
        limits = self._settings.limits
        return limits.name if method in ("tools/call", "prompts/get") else max(limits.uri, limits.name)

    def _answered(self, exchange: Exchange, call: Call) -> None:
        """Handle a client's answer to the question of a server."""
        question = None if call.session is None else self._servers.sessions.asked(call.session, call.id)
        if question is None or question.server not in call.settings.servers:
            raise RPCRefusal(INVALID_REQUEST, "The message answers no question of this session.", edge=True)
        call.question = question
        call.server, exchange.request.operation = question.server, "mcp"

    def _subscription(self, exchange: Exchange, call: Call, method: str) -> None:
        """Handle a subscription to a resource. With several servers in a profile it is refused: updates do not name
        their server.
        """
        uri, known = call.name, self._profiles.catalogues(call.profile)
        if len(call.settings.servers) != 1 or not known:
            raise unknown_method(method)
        if not exchange.consumer.tools(f"{call.profile}/{uri}"):
            raise unknown("resources/read", uri)
        call.server, call.tool = known[0][0], uri


class ForwardRPC:
    """Writes `onward`: the request in its server's revision, in a session at the server."""

    def __init__(self, settings: MCPSettings, servers: Servers, users: OnBehalf, places: Mapping[str, str]) -> None:
        self._servers = servers
        self._users = users
        self._timeouts = {name: str(int(each.timeout * 1000)) for name, each in settings.servers.items()}
        self._places = places  # names of tries in Envoy, if they differ from the usual ones

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        server = self._servers.by_name.get(call.server)
        if server is None or (catalogue := server.catalogue) is None:
            raise failure("server_unavailable", call.server)
        auth = self._users.way(call)
        user = NO_USER if auth is None else await self._users.headers(exchange, auth)
        if call.question is not None:
            question = call.question
            call.server_version, call.server_session = question.version, question.session
            edits: dict[str, Any] = {"id": question.id}
            headers = headers_for("", question.version, question.session)
        else:
            call.server_version = catalogue.version_for(modern=call.modern)
            sessions = catalogue.sessions and call.server_version != MODERN
            session = await self._session(exchange, call, user, sessions=sessions)
            self._servers.own.used(_ticket(exchange).key, call)
            if session is not None:
                call.server_session, call.server_version = session.id, session.version
            edits, headers = request_for(call, session, exchange.id)
        headers |= user
        if call.server_session and call.question is None and auth is None:
            headers |= _AGAIN_IN_SESSION
            headers[contract.SESSION] = _ticket(exchange).text
        else:
            headers |= _AGAIN
        call.must_read = self._must_read(call)
        if call.question is None:
            headers[contract.BOUND] = bound(call)
        removed = [
            name
            for name in exchange.request.head.headers
            if name.startswith("mcp-")
            and name not in headers
            and not (name.startswith("mcp-param-") and self._same(call))
        ]
        headers[contract.ID] = exchange.id
        headers[contract.TARGETS] = contract.encode_targets(exchange.route.targets)
        headers[contract.TIMEOUT] = headers["x-envoy-upstream-rq-per-try-timeout-ms"] = self._timeouts[call.server]
        if "?" in exchange.request.head.path:
            headers[":path"] = exchange.request.head.path.partition("?")[0]
        body = patch(exchange.request.body, edits) if edits else None
        hop = HOP + call.server
        order = (self._places.get(hop) or contract.try_cluster(hop),)
        exchange.route.onward = Continue(headers, tuple(removed), body, reroute=True, order=order)
        exchange.route.forwarded, exchange.route.sent = True, time.perf_counter()

    def _same(self, call: Call) -> bool:
        return call.modern and call.server_version == MODERN and not call.rewritten

    def _must_read(self, call: Call) -> bool:
        """True if the client cannot take the answer unchanged."""
        if call.question is not None:
            return False
        if call.modern != (call.server_version == MODERN):
            return True
        return not call.modern and bool(call.session and call.session.capabilities)

    async def _session(
        self, exchange: Exchange, call: Call, user: Mapping[str, str], *, sessions: bool
    ) -> ServerSession | None:
        """The session at a server: for the client's session, or for a consumer whose client has no session."""
        if not sessions:
            return None
        try:
            return await self._servers.session(_ticket(exchange).key, call.server, call.session, user)
        except ServerError as error:
            raise failure(error.code, call.server) from None


def bound(call: Call) -> str:
    """The value of `contract.BOUND`: the limit in bytes, and the message, in ASCII, that replaces a larger event."""
    asked = call.id if call.sent_id is None else call.sent_id
    message = body_of(call, too_large(call), asked)
    text = message.decode() if message.isascii() else json.dumps(msgspec.json.decode(message))
    return f"{call.settings.max_result} {text}"


def bound_script() -> str:
    """The Lua source for Envoy."""
    names = f'local HEADER, NAMESPACE = "{contract.BOUND}", "{contract.BOUND_NAMESPACE}"\n'
    return names + Path(__file__).with_name("bound.lua").read_text(encoding="utf-8")


def _ticket(exchange: Exchange) -> SessionTicket:
    """The session of a call at its server."""
    call = exchange.features[CALL]
    client = "" if call.session is None else call.session.id
    return SessionTicket(call.server, call.server_session, call.server_version, owner(exchange), client)


class Returned:
    """Writes `status`, `attempts`, `target`. If the server is away, fails or refuses the gateway, the client gets an
    error of JSON-RPC without the server's own words.
    """

    def __init__(self, servers: Servers, users: OnBehalf) -> None:
        self._servers = servers
        self._users = users

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        response = exchange.answer.head
        exchange.answer.status, exchange.answer.attempts = response.status, response.attempts
        if not exchange.route.forwarded:
            return
        exchange.answer.target = exchange.route.targets[0]
        status = response.status
        if contract.HOP in response.hop or response.details != UPSTREAM:
            reason = response.hop.get(contract.HOP, "timeout" if status == 504 else "")
            raise failure(_REASONS.get(reason, "server_unavailable"), call.server)
        if status in (401, 403):
            if call.on_behalf:
                raise await self._users.refused(exchange, status, response.headers.get("www-authenticate", ""))
            raise failure("credential_rejected", call.server)
        if (session := call.server_session) and response.attempts > 1:
            told = response.headers.get("mcp-session-id", "")
            call.server_session = self._servers.after(_ticket(exchange), told)
        if status == 404 and session:
            self._servers.forget(_ticket(exchange))
            raise RPCRefusal(
                MCP_SERVER_UNAVAILABLE,
                f"Server {call.server} has ended its session; try again.",
                data={"server": call.server},
            )
        if status >= 500:
            raise failure("server_timeout" if status == 504 else "server_unavailable", call.server)
        if call.question is None and (not 200 <= status < 300 and status not in (400, 404, 406, 413, 415, 422, 429)):
            raise failure("bad_answer", call.server)


class ReadAnswer:
    """Decides whether the answer is read, and returns the action for Envoy. `reads` says whether policy has to
    read it.
    """

    def __init__(
        self,
        events: Events,
        *,
        event: int,
        answer: int,
        empty: int,
        hold: Callable[[int], bool],
        audit: bool,
        reads: Callable[[Exchange], bool] = lambda _exchange: False,
    ) -> None:
        self._events = events
        self._event, self._answer, self._empty = event, answer, empty
        self._hold = hold
        self._audit = audit
        self._reads = reads

    def __call__(self, exchange: Exchange) -> Continue:
        call = exchange.features[CALL]
        response = exchange.answer.head
        told: dict[str, str] = {}
        withheld = (*internal(response.headers), *_OF_SERVERS)
        if not exchange.route.forwarded:  # Envoy answered before a server was asked
            exchange.answer.unreached, exchange.answer.reader = (
                "gateway",
                None if response.ended else Rewording(exchange),
            )
            return Continue(told, (*withheld, "content-length"), read_answer=not response.ended)
        kind = response.headers.get("content-type", "")
        framing = framing_for(
            kind, event_limit=self._event, body_limit=self._answer, empty_limit=self._empty, hold=self._hold
        )
        if call.question is not None or response.ended:
            if call.question is None and call.id is not None:
                raise failure("bad_answer", call.server)
            return Continue(told, withheld)
        if framing is None or response.headers.get("content-encoding", "identity") != "identity":
            raise failure("bad_answer", call.server)
        if response.status >= 400 and not call.modern:
            told[":status"] = "200"  # at any other status clients end the session
            exchange.answer.status, call.must_read = 200, True
        call.streamed = exchange.request.ask.stream = isinstance(framing, SSE)
        most, length = call.settings.max_result, response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large(call)
        wanted = self._reads(exchange)
        call.must_read = call.must_read or wanted
        if not (call.must_read or (not call.streamed and (self._audit or not length))):
            return Continue(told, withheld)
        exchange.answer.report = Report()
        exchange.answer.reader = self._events.reader(exchange, framing)
        return Continue(told, (*withheld, "content-length"), read_answer=True)
