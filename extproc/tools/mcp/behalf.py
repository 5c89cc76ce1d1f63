"""Tokens of users for MCP servers with `auth`: the caller's token is exchanged for one of the server (RFC 8693, RFC
7523), or is made for the server too.

Envoy verifies the caller's token and, for paths of profiles alone, leaves it in the request. `TakeToken` takes it out
of the headers, once its claims are those that Envoy has verified. The token is kept with the call, goes to the token
endpoint of the settings, and to no server: a hop removes every credential of a client.

A token is cached by the server and a digest of the caller's token, so another caller, or the same with other rights,
never gets it. Each process has its own cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from extproc.access.auth import JWTSettings
from extproc.tools.mcp.behalf_settings import JWTBearerSettings, MCPAuthSettings, TokenExchangeSettings
from extproc.tools.mcp.call import CALL
from extproc.upstream.credentials.oauth import (
    OAuthToken,
    TokenError,
    TokenRequest,
    as_client,
    request_token,
    unverified_claims,
)
from extproc.words.contract import claims_key
from extproc.words.exchange import NOTHING_VERIFIED, Exchange

_GRANT, _TYPE = "urn:ietf:params:oauth:grant-type:", "urn:ietf:params:oauth:token-type:"
_PATIENCE = 8.0  # most seconds that a call waits for its token; Envoy aborts a request after 10
_Endpoint = TokenExchangeSettings | JWTBearerSettings


@dataclass(slots=True, frozen=True)
class Caller:
    """The user of a call, as the verified token names it."""

    token: str = field(repr=False)
    issuer: str
    subject: str
    audiences: Sequence[str] = ()
    expires: float = math.inf  # epoch seconds

    @property
    def digest(self) -> str:
        """A digest of the user, for the names of its sessions."""
        return hashlib.sha256(f"{self.issuer}\0{self.subject}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


class TakeToken:
    """Writes `caller` of the call, and takes the caller's verified token out of the headers. A token that Envoy has not
    verified stays there, and so is refused as an unknown key.
    """

    def __init__(self, issuers: Sequence[JWTSettings]) -> None:
        self._issuers = [(claims_key(issuer.mark), issuer) for issuer in issuers]

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.request.head
        if head.verified is NOTHING_VERIFIED:
            return
        for key, issuer in self._issuers:
            claims = head.verified.token.get(key)
            token = _token(head.headers.get(issuer.header, ""), issuer.header)
            if (
                not isinstance(claims, Mapping)
                or claims.get("iss") != issuer.issuer
                or unverified_claims(token) != claims
            ):
                continue
            left = {name: value for name, value in head.headers.items() if name != issuer.header}
            exchange.request.head = head = replace(head, headers=left)
            if isinstance(subject := claims.get("sub"), str) and subject:
                exchange.features[CALL].caller = _caller(token, issuer.issuer, subject, claims)


def _caller(token: str, issuer: str, subject: str, claims: Mapping[str, Any]) -> Caller:
    audiences, expires = claims.get("aud"), claims.get("exp")
    known = audiences if isinstance(audiences, list) else [audiences]
    return Caller(
        token,
        issuer,
        subject,
        [one for one in known if isinstance(one, str)],
        float(expires) if isinstance(expires, int | float) else math.inf,
    )


def _token(value: str, header: str) -> str:
    if header != "authorization":
        return value
    scheme, _, token = value.partition(" ")
    return token if scheme == "Bearer" else ""


@dataclass(slots=True)
class _Entry:
    settings: _Endpoint
    task: asyncio.Task[OAuthToken] | None = None
    token: OAuthToken | None = None
    due: float = 0.0  # time of the next request


class UserTokens:
    """Tokens of users at servers, of one process."""

    def __init__(
        self,
        request: Callable[[TokenRequest, float], Awaitable[OAuthToken]] = request_token,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._request = request
        self._clock = clock
        self._entries: OrderedDict[tuple[str, bytes], _Entry] = OrderedDict()

    async def get(self, server: str, auth: MCPAuthSettings, caller: Caller) -> str:
        """The caller's token at the server. Raises TokenError."""
        if (settings := auth.at_endpoint) is None:
            assert auth.own_token is not None, "the settings name one way"
            if auth.own_token.audience not in caller.audiences:
                raise TokenError("unusable", "the caller's token is not for this server")
            return caller.token
        key, now = _key(server, caller), self._clock()
        entry = self._entries.get(key)
        if entry is None or entry.settings is not settings:
            entry = self._entries[key] = _Entry(settings)
        self._entries.move_to_end(key)
        while len(self._entries) > settings.max_tokens:
            self._entries.popitem(last=False)
        if entry.token is not None and now < entry.due:
            return entry.token.value
        if entry.task is None:
            entry.task = asyncio.create_task(self._exchange(entry, caller, now))
            entry.task.add_done_callback(_retrieve)
        task = entry.task
        try:
            if not (await asyncio.wait({task}, timeout=_PATIENCE))[0]:  # it goes on for later calls
                raise TokenError("timeout", f"no answer in {_PATIENCE:.0f} s")
            return task.result().value
        except TokenError:
            if entry.token is not None and self._clock() < entry.token.expires:
                return entry.token.value
            raise

    def forget(self, server: str, caller: Caller) -> None:
        """Forget a token that the server has refused."""
        self._entries.pop(_key(server, caller), None)

    async def _exchange(self, entry: _Entry, caller: Caller, now: float) -> OAuthToken:
        try:
            wanted = await asyncio.to_thread(exchange_request, entry.settings, caller.token)
            found = await self._request(wanted, now)
            entry.token = token = OAuthToken(found.value, min(found.expires, caller.expires))
            entry.due = token.renewal(now)
        finally:
            entry.task = None
        return token


def _retrieve(task: asyncio.Task[OAuthToken]) -> None:
    """Mark the task's exception as read, even if no call waits for it."""
    if not task.cancelled():
        task.exception()


def _key(server: str, caller: Caller) -> tuple[str, bytes]:
    return server, hashlib.sha256(caller.token.encode()).digest()


def exchange_request(settings: _Endpoint, token: str) -> TokenRequest:
    """The request of RFC 8693, section 2.1, or of RFC 7523, section 2.1. Raises TokenError."""
    secret, form = settings.client_secret.read(), dict(settings.parameters)
    if not secret:
        raise TokenError("unusable", "client_secret is not set")
    told = {"scope": settings.scope}
    if isinstance(settings, TokenExchangeSettings):
        form |= {"grant_type": _GRANT + "token-exchange", "requested_token_type": _TYPE + "access_token"}
        form |= {"subject_token": token, "subject_token_type": _TYPE + settings.subject_token_type}
        told |= {"audience": settings.audience, "resource": settings.resource}
        if settings.actor_token is not None:
            if not (actor := settings.actor_token.read()):
                raise TokenError("unusable", "actor_token is not set")
            form |= {"actor_token": actor, "actor_token_type": _TYPE + "jwt"}
    else:
        form |= {"grant_type": _GRANT + "jwt-bearer", "assertion": token}
    form |= {name: value for name, value in told.items() if value is not None}
    return as_client(settings.endpoint, form, settings.client_id, secret, settings.client_auth)
