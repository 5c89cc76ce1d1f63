"""Era and AnswerLists: the revision that a client speaks, and all answers of the gateway itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from extproc.tools.mcp.call import (
    CALL,
    CALLS,
    CAPABILITIES_KEY,
    INFO,
    LEGACY,
    MODERN,
    SERVER_KEY,
    SUBSCRIPTION_KEY,
    VERSION_KEY,
    Call,
    owner,
)
from extproc.tools.mcp.catalogue import FIELDS, KINDS
from extproc.tools.mcp.discovery import DEFINITIONS, Discovery, searched
from extproc.tools.mcp.eras import decoded
from extproc.tools.mcp.pages import Pages, is_page
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.refusals import RPCRefusal
from extproc.tools.mcp.servers import Servers
from extproc.tools.mcp.sessions import ClientSession, EndedSessions
from extproc.wire.framing import rpc
from extproc.wire.framing.rpc import RpcMessage
from extproc.words.actions import LocalReply
from extproc.words.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_UNKNOWN,
    SESSION_NOT_FOUND,
    VERSION_UNSUPPORTED,
    Refusal,
)
from extproc.words.exchange import Exchange

_JSON = {"content-type": "application/json"}
_SSE = {"content-type": "text/event-stream", "cache-control": "no-cache"}
_MIRRORED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Parameters that a request of 2026-07-28 repeats in the header `Mcp-Name`."""
_OF_LEGACY = ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe")
_OF_MODERN = ("server/discover", "subscriptions/listen")
METHODS = frozenset((*CALLS, *KINDS, *_OF_LEGACY, *_OF_MODERN))
"""Methods of requests that the gateway knows; operations in logs and metrics."""
_TAKEN = LocalReply(202, b"", {}, "answered")


class Era:
    """Writes `version`, `capabilities` and `session` of the call. The body decides; headers are compared with it."""

    def __init__(self, servers: Servers, ended: EndedSessions) -> None:
        self._sessions = servers.sessions
        self._ended = ended

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        message, headers = call.message, exchange.request.head.headers
        assert message is not None
        version = headers.get("mcp-protocol-version")
        stated = VERSION_KEY in message.meta
        if stated or (version is not None and version not in LEGACY and message.method != "initialize"):
            self._modern(call, message, headers, version)
        elif message.method != "initialize" or message.kind != "request":
            call.session = session = await self._session(exchange, headers.get("mcp-session-id"))
            call.version, call.capabilities = session.version, session.capabilities

    async def _session(self, exchange: Exchange, id: str | None) -> ClientSession:
        if id is None:
            text = "The request has no session: begin with 'initialize' and send its header 'Mcp-Session-Id'."
            raise RPCRefusal(INVALID_REQUEST, text, edge=True)
        found = self._sessions.find(owner(exchange), id)
        if found is None or await self._ended.has(found):
            raise Refusal(SESSION_NOT_FOUND, "There is no such session: begin a new one with 'initialize'.")
        return found

    def _modern(self, call: Call, message: RpcMessage, headers: Mapping[str, str], version: str | None) -> None:
        meta = message.meta
        call.version = MODERN
        if message.kind != "request":
            if version != MODERN:
                raise self._unsupported(version)
            if message.kind == "response":
                text = "Clients of this revision send requests and notifications alone."
                raise RPCRefusal(INVALID_REQUEST, text, edge=True)
            return
        if VERSION_KEY not in meta and version != MODERN:
            raise self._unsupported(version)
        lacking = next((key for key in (VERSION_KEY, CAPABILITIES_KEY) if key not in meta), None)
        if lacking is not None:
            raise RPCRefusal(INVALID_PARAMS, f"'params._meta' lacks {lacking!r}.", edge=True)
        stated, capabilities = meta[VERSION_KEY], meta[CAPABILITIES_KEY]
        if version is None or version != stated:
            raise _mismatch("MCP-Protocol-Version")
        if headers.get("mcp-method") != message.method:
            raise _mismatch("Mcp-Method")
        key = _MIRRORED.get(message.method)
        if key is not None and decoded(headers.get("mcp-name", "=?base64?-?=")) != message.params.get(key):
            raise _mismatch("Mcp-Name")
        if stated != MODERN:
            raise self._unsupported(stated)
        if not isinstance(capabilities, dict):
            raise RPCRefusal(INVALID_PARAMS, f"{CAPABILITIES_KEY!r} is an object.", edge=True)
        call.capabilities = capabilities

    def _unsupported(self, version: Any) -> Refusal:
        data = {"supported": [MODERN], "requested": version[:64] if isinstance(version, str) else ""}
        return RPCRefusal(VERSION_UNSUPPORTED, "Unsupported protocol version", data=data)


def _mismatch(header: str) -> Refusal:
    return Refusal(HEADER_MISMATCH, f"The header '{header}' does not say what the body says.")


class AnswerLists:
    """Answers lists, handshakes and all other messages except calls, from the catalogues."""

    def __init__(self, profiles: Profiles, servers: Servers, pages: Pages) -> None:
        self._profiles = profiles
        self._servers = servers
        self._pages = pages
        self._discovery = Discovery(profiles)
        self._answers: Mapping[str, Callable[[Exchange, Call], LocalReply]] = {
            "initialize": self._initialize,
            "server/discover": self._discover,
            "ping": self._ping,
            "logging/setLevel": self._ping,  # a no-op: servers send log messages with the answer of a call
            "subscriptions/listen": self._listen,
        }

    async def __call__(self, exchange: Exchange) -> LocalReply | None:
        call = exchange.features[CALL]
        message = call.message
        assert message is not None
        if message.kind == "notification":
            if message.method == "notifications/cancelled" and call.session is not None:
                self._servers.tell_all(call.session, exchange.request.body)
            return _TAKEN
        if message.kind == "response":  # the client's answer to a server's question
            if call.session is None or call.session.capabilities:
                return None
            self._servers.decline(call.session, call.id)
            return _TAKEN
        method = message.method
        if method in (_OF_LEGACY if call.modern else _OF_MODERN):
            raise unknown_method(method)
        await self._servers.wait_first_look(call.settings.servers)
        if method in CALLS or method in KINDS:
            await self._profiles.read_own(exchange, owner(exchange) if call.session is None else call.session.id)
        if method in CALLS or method in ("resources/subscribe", "resources/unsubscribe"):
            if method == "resources/read" and is_page(call):
                exchange.request.operation = "resources/list"  # the call that gave the link has the row
                return _result(call, self._cacheable(call, await self._pages.read(exchange, call.name)))
            found = await self._discovery(exchange)
            return None if found is None else _result(call, found)
        if method in KINDS:
            return self._list(exchange, call, method)
        if (answer := self._answers.get(method)) is None:
            raise unknown_method(method)
        return answer(exchange, call)

    def _list(self, exchange: Exchange, call: Call, method: str) -> LocalReply:
        kind = KINDS[method]
        own = kind == "tools" and searched(call)
        if kind != "tools" and not self._profiles.offers(call.profile, "resources" if kind == "templates" else kind):
            raise unknown_method(method)
        assert call.message is not None
        if call.message.params.get("cursor") is not None:
            raise Refusal(INVALID_PARAMS, "There is no such page: lists have one.")
        entries = msgspec.Raw(DEFINITIONS if own else self._profiles.listed(exchange, kind))
        return _result(call, self._cacheable(call, {FIELDS[kind]: entries}))

    def _cacheable(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        """The result with the cache hints of the new revision. They are private: consumers see different lists."""
        if call.modern:
            result |= {"ttlMs": self._profiles.ttl(call.profile), "cacheScope": "private"}
        return result

    def _initialize(self, exchange: Exchange, call: Call) -> LocalReply:
        assert call.message is not None
        params = call.message.params
        asked, capabilities = params.get("protocolVersion"), params.get("capabilities", {})
        if not isinstance(asked, str) or not isinstance(capabilities, dict):
            raise Refusal(INVALID_PARAMS, "'initialize' needs 'protocolVersion' and 'capabilities'.")
        version = asked if asked in LEGACY else LEGACY[0]
        if len(call.settings.servers) > 1:  # a question outside a call's answer does not name its server
            capabilities = {name: value for name, value in capabilities.items() if name == "elicitation"}
        session = self._servers.sessions.begin(owner(exchange), version, capabilities)
        call.version, call.session = version, session
        result = {"protocolVersion": version, "serverInfo": INFO, **self._profiles.hello(call, version)}
        return _result(call, result, {"mcp-session-id": session.id})

    def _discover(self, _exchange: Exchange, call: Call) -> LocalReply:
        result = {"supportedVersions": [MODERN], **self._profiles.hello(call, MODERN)}
        return _result(call, self._cacheable(call, result))

    def _ping(self, _exchange: Exchange, call: Call) -> LocalReply:
        return _result(call, {})

    def _listen(self, _exchange: Exchange, call: Call) -> LocalReply:
        """Answer a subscription as empty and ended, because no list announces its changes. Lists give the time for
        which they are fresh.
        """
        meta = {"_meta": {SUBSCRIPTION_KEY: call.id}}
        told = rpc.request("notifications/subscriptions/acknowledged", None, {**meta, "notifications": {}})
        done = rpc.result(call.id, {"resultType": "complete", **meta})
        body = b"".join(b"event: message\ndata: %b\n\n" % each for each in (told, done))
        return LocalReply(200, body, _SSE)


def unknown_method(method: str) -> Refusal:
    return Refusal(METHOD_UNKNOWN, f"Method not found: {method[:128]}")


def _result(call: Call, result: dict[str, Any], headers: Mapping[str, str] | None = None) -> LocalReply:
    if call.modern:
        result = {"resultType": "complete", **result, "_meta": {SERVER_KEY: INFO}}
    return LocalReply(200, rpc.result(call.id, result), {**_JSON, **(headers or {})})
