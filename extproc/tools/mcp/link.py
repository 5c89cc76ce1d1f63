"""Requests of the processor itself to a server: handshakes, lists, and refusals of questions.

The requests go through a private listener of Envoy into the server's hop. So Envoy applies the server's TLS, credential
and limits here, too, and no server's key is ever in this process.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.tools.mcp.call import CAPABILITIES_KEY, INFO, INFO_KEY, MODERN, VERSION_KEY
from extproc.wire.framing import rpc
from extproc.wire.framing.sse import SSE
from extproc.wire.outbound.pool import AnswerError, ConnectionPool
from extproc.words import contract

ACCEPT = "application/json, text/event-stream"
NO_USER: Mapping[str, str] = {}


class ServerError(Exception):
    """The server gave no valid answer. `code` is the code of the calls' refusal, without `mcp_`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class RefusedError(Exception):
    """The server answered with an error of JSON-RPC, or unreadably, in place of a result. `unknown`: the method does
    not exist.
    """

    def __init__(self, *, unknown: bool = False) -> None:
        super().__init__()
        self.unknown = unknown


class SessionGoneError(RefusedError):
    """The server does not know the session: 404."""


class NoEnvoyError(ServerError):
    """Envoy does not listen, so the server's state is unknown."""


class _Reply(msgspec.Struct):
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Any = None
    id: Any = None


_decode = msgspec.json.Decoder(_Reply).decode


class Link:
    """The connection to one server. An answer has at most `most` bytes and takes at most `timeout` seconds."""

    def __init__(self, name: str, socket: str, *, most: int, timeout: float) -> None:
        self._path = f"/{name}"
        self._pool = ConnectionPool("http://mcp", most=most, socket=socket)
        self._timeout = timeout

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        version: str,
        session: str = "",
        capabilities: Mapping[str, Any] | None = None,
        *,
        user: Mapping[str, str] = NO_USER,
    ) -> tuple[msgspec.Raw, str]:
        """The result of a request, and the session that the server began with it. Raises ServerError, or RefusedError
        if the server answers with an error. `capabilities` are those of a client, for revisions without sessions.
        `user`: headers with the credential of the user for whom the gateway asks.
        """
        if version == MODERN:
            params = {**params, "_meta": meta({}, capabilities)}
        id = f"gateway-{secrets.token_hex(8)}"  # unique, because servers mix up answers to equal ids in a session
        body = rpc.request(method, id, params)
        status, headers, data = await self._send(body, {**headers_for(method, version, session), **user})
        if status in (401, 403):
            raise ServerError("credential_rejected")
        if status == 404 and session:
            raise SessionGoneError
        if status >= 500:
            raise ServerError("server_timeout" if status == 504 else "server_unavailable")
        try:
            reply = _reply(headers.get("content-type", ""), data, id)
        except ValueError:
            if status >= 400:
                raise RefusedError from None
            raise ServerError("bad_answer") from None
        if reply.result is msgspec.UNSET:
            code = reply.error.get("code") if isinstance(reply.error, dict) else None
            raise RefusedError(unknown=code == rpc.METHOD_NOT_FOUND)
        return reply.result, headers.get("mcp-session-id", "")

    async def challenge(self) -> str:
        """The server's challenge for a token that nobody gave; empty without one. Raises ServerError."""
        headers = {**headers_for("ping", MODERN, ""), contract.BEHALF: "Bearer none"}
        return (await self._send(rpc.request("ping", "gateway", meta({})), headers))[1].get("www-authenticate", "")

    async def tell(self, body: bytes, version: str, session: str = "", user: Mapping[str, str] = NO_USER) -> None:
        """Send a notification or an answer. Raises ServerError."""
        await self._send(body, {**headers_for("", version, session), **user})

    async def end(self, version: str, session: str) -> None:
        """End a session. Raises ServerError."""
        await self._send(b"", headers_for("", version, session), "DELETE")

    async def _send(
        self, body: bytes, headers: Mapping[str, str], method: str = "POST"
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with asyncio.timeout(self._timeout):
                status, said, data = await self._pool.ask(self._path, body, headers, method)
        except TimeoutError:
            raise ServerError("server_timeout") from None
        except AnswerError:
            raise ServerError("bad_answer") from None
        except OSError:
            raise NoEnvoyError("server_unavailable") from None
        if contract.HOP in said:  # the answer is Envoy's own
            raise ServerError("server_timeout" if said[contract.HOP] == "timeout" else "server_unavailable")
        return status, said, data


def headers_for(method: str, version: str, session: str) -> dict[str, str]:
    """The headers of a request to a server that speaks `version`."""
    found = {"content-type": "application/json", "accept": ACCEPT}
    if version:
        found["mcp-protocol-version"] = version
    if session:
        found["mcp-session-id"] = session
    if version == MODERN:
        found["mcp-method"] = method
    return found


def meta(more: Mapping[str, Any], capabilities: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`_meta` of the gateway's requests in 2026-07-28, for clients that do not describe themselves."""
    return {**more, VERSION_KEY: MODERN, CAPABILITIES_KEY: capabilities or {}, INFO_KEY: INFO}


def _reply(content_type: str, data: bytes, id: str) -> _Reply:
    """The answer to the request with that id, among the messages of a body. Raises ValueError."""
    if not content_type.startswith("text/event-stream"):
        return _decode(data)
    framing = SSE(len(data) + 1)
    for event in (*framing.feed(data), *framing.end()):
        if event.data:
            reply = _decode(event.data)
            if reply.id == id:
                return reply
    raise ValueError("no answer")
