"""The stages of one request to the MCP gateway, in order. `build` is the table of contents.

   on_headers   SignInPages (answers) · FindProfile (404 405 415) · CheckOrigin (403) · TakeToken · Authenticate (401)
                · OfProfile (401) · EnterProfile (403) · EndSession · Admit
   on_request   ParseRPC (-32700 -32600) · Era (-32020 -32022, 400 404) · UnwrapCall · AnswerLists
                · FindServer (-32602) · ChangeCall (-32602) · ToolPolicy · GuardCall · SignedIn · AwaitApproval
                · ReserveCall · UseApproval · ForwardRPC
   on_response  Returned · MarkTaint · ReadAnswer
   on_event     Translate · GuardResult · CutResult
   on_end       Cancel · Settle · Record · EnterCall

`pipeline` describes stages. Their facts about a message are in a `Call`, under the key `CALL` in `Exchange.features`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from extproc.exchange.admission import Admit
from extproc.exchange.services import Services
from extproc.guardrails import AwaitAudits
from extproc.guardrails._stages import searching
from extproc.money.accounting import stages as accounting
from extproc.money.accounting.books import Enter
from extproc.money.budgets import Reserve
from extproc.operate.telemetry.metrics import Record
from extproc.settings.config import Settings
from extproc.stores import StoreError
from extproc.tools.mcp.answers import METHODS, AnswerLists, Era
from extproc.tools.mcp.approvals import AwaitApproval, UseApproval
from extproc.tools.mcp.behalf import TakeToken
from extproc.tools.mcp.call import CALL, CALLS, LEGACY, Call, owner
from extproc.tools.mcp.changes import ChangeCall
from extproc.tools.mcp.discovery import UnwrapCall
from extproc.tools.mcp.eras import Translate
from extproc.tools.mcp.forward import FindServer, ForwardRPC, ReadAnswer, Returned
from extproc.tools.mcp.on_behalf import OnBehalf, SignedIn
from extproc.tools.mcp.pages import CutResult, Pages
from extproc.tools.mcp.policy import GuardCall, MarkTaint, Policy, ReserveCall, ToolPolicy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.refusals import JSONRPC, Refuse
from extproc.tools.mcp.results import GuardResult
from extproc.tools.mcp.servers import Servers, ServerSession
from extproc.tools.mcp.sessions import EndedSessions
from extproc.tools.mcp.settings import MCPSettings
from extproc.tools.sign_in.pages import SignInPages
from extproc.tools.sign_in.sign_ins import Place, SignIns
from extproc.wire.framing import rpc
from extproc.wire.framing.content_types import is_json
from extproc.wire.framing.events import Events
from extproc.wire.framing.json import InvalidJSON
from extproc.wire.framing.names import Names
from extproc.wire.framing.rpc import InvalidMessageError, RpcMessage
from extproc.words import contract
from extproc.words.actions import LocalReply
from extproc.words.dialect import NO_ENDPOINT, Ask
from extproc.words.errors import (
    BODY_TOO_LARGE,
    INVALID_JSON,
    INVALID_KEY,
    INVALID_REQUEST,
    MCP_SERVER_TIMEOUT,
    METHOD_NOT_ALLOWED,
    ORIGIN_NOT_ALLOWED,
    PROFILE_NOT_ALLOWED,
    PROFILE_NOT_FOUND,
    SESSION_NOT_FOUND,
    STORE_UNAVAILABLE,
    UNSUPPORTED_ENCODING,
    Refusal,
)
from extproc.words.exchange import NOTHING_VERIFIED, Ending, Exchange
from extproc.words.runs import NAMED
from extproc.words.values import Patterns, is_loopback, show_size

Stage = Callable[[Exchange], Any]


class FindProfile:
    """Writes `dialect`, `endpoint`, `operation` and the `Call`. Answers the OAuth document of a profile (RFC 9728)."""

    def __init__(self, settings: MCPSettings, issuers: Sequence[str]) -> None:
        self._profiles = settings.profiles
        self._resource = settings.resource
        self._issuers = issuers

    def __call__(self, exchange: Exchange) -> LocalReply | None:
        request = exchange.request.head
        exchange.request.dialect, exchange.request.endpoint, exchange.request.operation = JSONRPC(), NO_ENDPOINT, "mcp"
        path = request.path.partition("?")[0]
        document = path.startswith(contract.MCP_DOCUMENT_PATH)
        name = path.removeprefix(contract.MCP_DOCUMENT_PATH).removeprefix(contract.MCP_PATH)
        if (profile := self._profiles.get(name)) is None or (document and (not self._issuers or not self._resource)):
            raise Refusal(PROFILE_NOT_FOUND, "There is no profile of this name: ask the operator of the gateway.")
        if document:
            if request.method not in ("GET", "HEAD"):
                raise Refusal(METHOD_NOT_ALLOWED, "The document takes GET.", headers={"allow": "GET, HEAD"})
            return self._document(name)
        call = Call(name, profile)
        exchange.features[CALL] = call
        exchange.route.of_tools = True
        exchange.request.dialect = JSONRPC(call)
        if request.method == "DELETE":
            return None
        if request.method != "POST":
            headers = {"allow": "POST, DELETE"}
            raise Refusal(METHOD_NOT_ALLOWED, "A profile takes POST, and DELETE of a session.", headers=headers)
        if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise Refusal(UNSUPPORTED_ENCODING, "The body is compressed: send it without content-encoding.")
        if not is_json(request.headers.get("content-type", "")):
            text = "The body must be JSON in UTF-8, with 'content-type: application/json'."
            raise Refusal(UNSUPPORTED_ENCODING, text)
        return None

    def _document(self, name: str) -> LocalReply:
        found = {
            "resource": f"{self._resource}{contract.MCP_PATH}{name}",
            "authorization_servers": self._issuers,
            "bearer_methods_supported": ["header"],
            "resource_name": name,
        }
        headers = {"content-type": "application/json", "access-control-allow-origin": "*"}
        return LocalReply(200, msgspec.json.encode(found), headers)


class CheckOrigin:
    """Refuses requests of web pages whose origin is not in `mcp.origins`: 403. A page whose host and port are the
    request's own passes, if the host is a loopback address.
    """

    def __init__(self, settings: MCPSettings) -> None:
        self._allowed = Patterns(settings.origins)

    def __call__(self, exchange: Exchange) -> None:
        headers = exchange.request.head.headers
        origin = headers.get("origin")
        if origin is None:
            return
        host = origin.partition("://")[2]
        if host == headers.get(":authority") and is_loopback(_hostname(host)):
            return
        if not self._allowed(origin):
            raise Refusal(ORIGIN_NOT_ALLOWED, "Web pages of this origin may not call the gateway (mcp.origins).")


def _hostname(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).strip("[]")


class EnterProfile:
    """Refuses consumers that were granted nothing in the profile: 403."""

    def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        if not exchange.consumer.tools.enters(call.profile):
            message = f"Consumer {exchange.consumer.name} was granted no tools of the profile {call.profile!r}."
            raise Refusal(PROFILE_NOT_ALLOWED, message)


class OfProfile:
    """Refuses tokens that were issued for another profile: 401. Other credentials pass."""

    def __init__(self, settings: MCPSettings) -> None:
        self._start = None if settings.resource is None else settings.resource + contract.MCP_PATH

    def __call__(self, exchange: Exchange) -> None:
        if self._start is None or exchange.request.head.verified is NOTHING_VERIFIED:
            return
        for claims in exchange.request.head.verified.token.values():
            if not isinstance(claims, Mapping) or "aud" not in claims:
                continue
            audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
            profiles = [each for each in audiences if isinstance(each, str) and each.startswith(self._start)]
            if profiles and self._start + exchange.features[CALL].profile not in profiles:
                raise Refusal(INVALID_KEY, "The token was issued for another profile: get one for this.")


class EndSession:
    """Ends the session of a DELETE."""

    def __init__(self, servers: Servers, ended: EndedSessions) -> None:
        self._servers = servers
        self._ended = ended

    async def __call__(self, exchange: Exchange) -> LocalReply | None:
        if exchange.request.head.method != "DELETE":
            return None
        session = self._servers.sessions.find(owner(exchange), exchange.request.head.headers.get("mcp-session-id", ""))
        try:
            if session is None or not await self._ended.add(session):
                raise Refusal(SESSION_NOT_FOUND, "There is no such session.")
        except StoreError as error:
            raise Refusal(STORE_UNAVAILABLE, "The session cannot be ended now: try again in a moment.") from error
        self._servers.end(session)
        return LocalReply(204, b"")


_PARAMS = ("_meta", "name", "uri", "arguments", "ref", "cursor", "inputResponses", "requestState")


class ParseRPC:
    """Writes `call.message`, `call.name`, `operation` and `ask`. A message that two readers could take differently is
    refused.
    """

    def __init__(self, settings: MCPSettings, depth: int, nodes: int, weigh: Callable[[Exchange, int], None]) -> None:
        self._most = settings.limits.message
        self._depth, self._nodes = depth, nodes
        self._weigh = weigh
        self._params = Names(_PARAMS)

    def __call__(self, exchange: Exchange) -> None:
        body, call = exchange.request.body, exchange.features[CALL]
        if len(body) > self._most:
            raise Refusal(BODY_TOO_LARGE, f"The message is larger than {show_size(self._most)}: send less.")
        if len(body) != exchange.request.head.length:
            self._weigh(exchange, len(body))
        try:
            message = rpc.read(body, self._depth, self._nodes)
        except InvalidJSON as error:
            raise Refusal(INVALID_JSON, str(error)) from None
        except InvalidMessageError as error:
            raise Refusal(INVALID_REQUEST, str(error)) from None
        self._params.check(message.params)
        call.message = message
        if message.kind == "request" and message.method in METHODS:
            exchange.request.operation = message.method
        call.name = _name(message)
        meta = message.params.get("_meta")
        if isinstance(meta, dict) and isinstance(told := meta.get("traceparent"), str):
            exchange.features[NAMED] = told
        exchange.request.json, exchange.request.ask = dict(message.tree), Ask(call.name, free=True)


def _name(message: RpcMessage) -> str:
    """The client's name of the object that the message is about; empty without a name."""
    value: Any = message.params.get(CALLS.get(message.method, "uri"))
    if message.method == "completion/complete":  # the reference names the object
        value = value.get("uri" if value.get("type") == "ref/resource" else "name") if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


class Cancel:
    """Cancels a call at a server of an older revision: the client of 2026-07-28 has closed its stream, or the answer
    did not come in time. In older revisions the end of a connection does not cancel.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def __call__(self, exchange: Exchange) -> None:
        call = exchange.features.get(CALL)
        if call is None or call.server_version not in LEGACY or call.question is not None or call.answered:
            return
        if exchange.error == MCP_SERVER_TIMEOUT.code or (call.modern and exchange.ending in _GIVEN_UP):
            id = call.id if call.sent_id is None else call.sent_id
            body = rpc.request("notifications/cancelled", None, {"requestId": id})
            self._servers.tell(call.server, ServerSession(call.server_session, call.server_version), body)


_GIVEN_UP = (Ending.CLIENT_LEFT, Ending.INCOMPLETE, Ending.CUT)


class EnterCall:
    """Enters calls into the books; lists and handshakes have no row."""

    def __init__(self, enter: Callable[[Exchange], None]) -> None:
        self._enter = enter

    def __call__(self, exchange: Exchange) -> None:
        if exchange.request.operation in CALLS:
            self._enter(exchange)


@dataclass(slots=True, frozen=True)
class Lists:
    """The lists of stages, the shape of refusals, and the profiles."""

    on_headers: Sequence[Stage]
    on_request: Sequence[Stage]
    on_response: Sequence[Stage]
    on_end: Sequence[Stage]
    refuse: Callable[[Exchange, Refusal], LocalReply]
    profiles: Profiles


def build(
    settings: Settings, services: Services, authenticate: Stage, admit: Admit, *, reserve: Reserve, settle: Stage
) -> Lists:
    """The lists of stages for the servers of `services`. Stages given as arguments also serve requests to models."""
    mcp, servers = settings.mcp, services.servers
    assert mcp is not None
    assert servers is not None
    telemetry, limits = services.telemetry, settings.limits
    taint, ended = services.taint, EndedSessions(services.counters, mcp.limits.session_age)
    policy = Policy(mcp, settings.guardrails, changed=telemetry.tool_changed, tell=telemetry.guardrail)
    profiles = Profiles(mcp, servers, policy, taint)
    guard = partial(searching(settings, services), named=False)
    guard_result, pages = GuardResult(settings.guardrails, guard), Pages(services.answers, taint)
    cut_result, judge = CutResult(pages), ToolPolicy(policy, taint)
    approve = approvals(mcp, services, servers, profiles, judge)
    users, pages_of_sign_in, signed_in = _for_users(mcp, services, servers)
    on_headers: list[Stage] = [
        *pages_of_sign_in,
        FindProfile(mcp, [issuer.issuer for issuer in settings.auth.jwt]),
        CheckOrigin(mcp),
        *_identify(settings, mcp, authenticate),
        EnterProfile(),
        EndSession(servers, ended),
        admit,
    ]
    on_request: list[Stage] = [
        ParseRPC(mcp, limits.json_depth, limits.json_nodes, admit.take),
        Era(servers, ended),
        UnwrapCall(),
        AnswerLists(profiles, servers, pages),
        FindServer(mcp, profiles, servers, policy),
        ChangeCall(),
        judge,
        GuardCall(settings.guardrails, guard),
        *signed_in,
        *approve[:1],
        ReserveCall(reserve),
        *approve[1:],
        ForwardRPC(mcp, servers, users, services.places),
    ]
    read_answer = ReadAnswer(
        Events([Translate(servers), guard_result, cut_result], telemetry.stage),
        event=limits.sse_event,
        answer=limits.buffered_response,
        empty=limits.stream_empty,
        hold=partial(services.in_flight.hold, limits.answer_memory),
        audit=mcp.answers == "audit",
        reads=lambda exchange: guard_result.reads(exchange) or cut_result.reads(exchange),
    )
    on_response: list[Stage] = [Returned(servers, users), MarkTaint(mcp, taint), read_answer]
    record: Sequence[Stage] = (
        Record(telemetry),
        services.audit_events,
        EnterCall(Enter(services.books)),
        *accounting.tell_span(settings, services),
    )
    on_end: list[Stage] = [Cancel(servers), settle, AwaitAudits(services.audits, record), *record]
    return Lists(on_headers, on_request, on_response, on_end, Refuse(mcp.resource), profiles)


def _for_users(
    mcp: MCPSettings, services: Services, servers: Servers
) -> tuple[OnBehalf, Sequence[Stage], Sequence[Stage]]:
    """Tokens of users, and the stages of headers and of requests for users who sign in at a server."""
    ways = {name: (each.url, each.auth.sign_in) for name, each in mcp.servers.items() if each.auth is not None}
    places = {name: Place(url, way) for name, (url, way) in ways.items() if way is not None}
    if not places or mcp.sign_ins is None or mcp.resource is None:
        return OnBehalf(mcp, servers.users, None), (), ()
    given = places, mcp.sign_ins, services.counters, servers.challenge
    sign_ins = SignIns(*given, resource=mcp.resource, now=services.now)
    users = OnBehalf(mcp, servers.users, sign_ins)
    return users, [SignInPages(sign_ins, JSONRPC)], [SignedIn(users)]


def _identify(settings: Settings, mcp: MCPSettings, authenticate: Stage) -> Sequence[Stage]:
    """The stages that find out who calls. The caller's token is kept only where a server is called on its behalf."""
    take = [TakeToken(settings.auth.jwt)] if mcp.for_users else []
    return *take, authenticate, OfProfile(mcp)


def approvals(
    settings: MCPSettings, services: Services, servers: Servers, profiles: Profiles, judge: Stage
) -> Sequence[Stage]:
    """The stages before and behind ReserveCall for calls that wait for a person; empty if no tool has such calls."""
    if not any(each.approve is not None for each in settings.tools.values()):
        return ()
    given = settings, profiles, services.tools.questions
    count = services.telemetry.tool_approval
    use = UseApproval(*given, in_force=lambda: servers.settings, judge=judge, count=count)
    return AwaitApproval(*given, count), use
