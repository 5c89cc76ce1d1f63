"""Users who sign in at servers with `auth.sign_in`: their tokens, kept encrypted in the counters store.

    no token ──► link with a ticket ──► page of the gateway ──► authorization server ──► callback ──► tokens
                 sealed: server, user     sets a cookie           state: ticket, verifier, cookie

A ticket names the user for whom it was made, and a state the browser that followed it. Both are sealed, so no process
keeps a sign-in that has begun. A ticket gives tokens once. Tokens are kept under a digest of server and user, and are
sealed for it, so a note in another place opens for nobody. Each call reads them anew: a sign-out holds at once.

Refresh tokens rotate: each can be used once. So the one process of the fleet that holds a user's lock renews its
tokens, signs the user in, or signs it out. The renewal goes on if the call that began it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec

from extproc.cache.entry import Sealed
from extproc.stores import Counters, Denied, Hold, StoreError
from extproc.tools.sign_in.settings import SignInSettings, SignInsSettings
from extproc.upstream.credentials import authorization
from extproc.upstream.credentials.authorization import Grant, OAuthClient, Protection, scopes_of
from extproc.upstream.credentials.oauth import OAuthToken, TokenError, unverified_claims
from extproc.words import contract

log = logging.getLogger(__name__)

PATH = contract.MCP_SIGN_IN_PATH
CALLBACK, CLIENT = f"{PATH}callback", f"{PATH}client.json"
_FRESH = 600.0  # seconds for which documents of an authorization server are used
_LEASE = 60.0  # seconds after which the lock of a process that died is free
_PATIENCE = 8.0  # most seconds that a call waits for its token; Envoy aborts a request after 10
_LOOK = 0.1  # seconds between two tries to get a lock
_LATER = 60.0  # seconds to the next try to renew tokens that are good meanwhile
_WRITES = 5  # tries to write tokens that the server will give to nobody else
_YOUNG = 60.0  # seconds in which a refused token was just given: another one would be refused, too


class User(msgspec.Struct, array_like=True, frozen=True):
    """A user of the gateway: the consumer, and the user of its token; the latter is empty for `without_user`."""

    consumer: str
    issuer: str = ""
    subject: str = ""

    def at(self, server: str) -> str:
        """The name of the user's tokens at a server, from which neither can be read."""
        parts = [part.encode(errors="surrogatepass") for part in (server, *msgspec.structs.astuple(self))]
        return hashlib.sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).hexdigest()


class KeptTokens(msgspec.Struct, frozen=True):
    """Tokens of one user at one server. Times in epoch seconds. Its `repr` has no token."""

    access: str
    expires: float  # infinite where the server did not tell
    due: float  # time of the next renewal
    refresh: str  # empty: they cannot be renewed
    asked: str  # scopes that the user was asked for
    subject: str  # of the server's token, where it is a JWT
    endpoint: str
    resource: str
    client: OAuthClient
    given: float

    def __repr__(self) -> str:
        return "KeptTokens()"


class Ticket(msgspec.Struct, array_like=True, frozen=True):
    """A sign-in that a user may begin until a time in epoch seconds."""

    server: str
    user: User
    scope: str
    until: float
    id: str


class _Begun(msgspec.Struct, array_like=True, frozen=True):
    """A sign-in on its way through the authorization server."""

    ticket: Ticket
    verifier: str
    browser: str  # digest of the browser's cookie
    issuer: str


_tokens, _client = msgspec.msgpack.Decoder(KeptTokens).decode, msgspec.msgpack.Decoder(OAuthClient).decode
_ticket, _begun = msgspec.msgpack.Decoder(Ticket).decode, msgspec.msgpack.Decoder(_Begun).decode


class Place(NamedTuple):
    """A server with accounts of its own, and the way to sign in there."""

    url: str
    way: SignInSettings


class SignInError(Exception):
    """A user could not be signed in. The text is for people, and has no part of the server's answer."""


class SignIns:
    """The sign-ins of a fleet at `places`, by their names. `resource` is the gateway's public address, `told` gives a
    server's challenge.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        settings: SignInsSettings,
        counters: Counters,
        told: Callable[[str], Awaitable[str]],
        *,
        resource: str,
        now: Callable[[], float] = time.time,
        ask: Callable[[str, OAuthClient, Mapping[str, str]], Awaitable[Grant]] = authorization.grant,
    ) -> None:
        self.resource = resource
        self._places, self._settings = places, settings
        self._counters, self._told, self._now, self._ask = counters, told, now, ask
        self._seals = [Sealed(found.encode()) for key in self._settings.keys if (found := key.read_or_last())]
        self._found: dict[str, tuple[float, Protection]] = {}
        self._renewals: dict[str, asyncio.Task[KeptTokens | None]] = {}

    # --- tokens

    async def get(self, server: str, user: User) -> KeptTokens | None:
        """The user's tokens at a server; None if the user has to sign in. Raises StoreError, TokenError."""
        if not self._seals:
            raise TokenError("unusable", "no key of mcp.sign_ins is set")
        key, now = user.at(server), self._now()
        found = await self._read(key)
        if found is None or not authorization.covers(found.resource, self._places[server].url):
            return None  # the server has moved, and tokens are for no other place
        if now < found.due:
            return found
        if not found.refresh:
            return found if now < found.expires else None
        if (task := self._renewals.get(key)) is None:
            task = self._renewals[key] = asyncio.create_task(self._renew(key))
            task.add_done_callback(lambda done: self._renewed(key, done))
        if now < found.expires:  # tokens are renewed early, and nothing waits for it
            return found
        if not (await asyncio.wait({task}, timeout=_PATIENCE))[0]:  # it goes on for later calls
            raise TokenError("timeout", f"no answer in {_PATIENCE:.0f} s")
        return task.result()

    def _renewed(self, key: str, task: asyncio.Task[KeptTokens | None]) -> None:
        del self._renewals[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("tokens of a user cannot be renewed (%s)", _why(error))

    async def _renew(self, key: str) -> KeptTokens | None:
        async with _locked(self._counters, key):
            found, now = await self._read(key), self._now()
            if found is None or now < found.due:
                return found
            form = {"grant_type": "refresh_token", "refresh_token": found.refresh, "resource": found.resource}
            try:
                given = await self._ask(found.endpoint, found.client, form)
            except TokenError as error:
                if now < found.expires:
                    log.warning("tokens of a user cannot be renewed (%s): tried again later", error)
                    await self._write(key, msgspec.structs.replace(found, due=min(found.expires, now + _LATER)))
                    return found
                if error.outcome in ("refused", "bad_answer"):
                    return None
                raise
            renewed = self._tokens(given, found, now)
            await self._write(key, renewed)
            return renewed

    def _tokens(self, given: Grant, before: KeptTokens, now: float) -> KeptTokens:
        ends = due = float("inf")
        if given.expires_in is not None:
            token = OAuthToken(given.access_token, now + max(0.0, min(given.expires_in, 366 * 86400.0)))
            ends, due = token.expires, token.renewal(now)
        subject = next((sub for one in (given.id_token, given.access_token) if (sub := _subject(one))), before.subject)
        return msgspec.structs.replace(
            before,
            access=given.access_token,
            expires=ends,
            due=due,
            refresh=given.refresh_token or before.refresh,
            subject=subject,
            given=now,
        )

    async def refused(self, server: str, user: User, given: float) -> None:
        """Give up tokens of the time `given` that the server has refused: they are renewed, or the user has to sign in
        again. Raises StoreError, TokenError.
        """
        key, now = user.at(server), self._now()
        async with _locked(self._counters, key):
            found = await self._read(key)
            if found is None or found.given != given:
                return
            useless = now - found.given < _YOUNG or not found.refresh
            await self._write(key, None if useless else msgspec.structs.replace(found, expires=now, due=now))

    async def asked(self, server: str, user: User) -> str:
        """The scopes that the user was asked for at the last sign-in. Raises StoreError."""
        found = await self._read(user.at(server))
        return "" if found is None else found.asked

    async def _read(self, key: str) -> KeptTokens | None:
        for note in await self._counters.share(_board(key), "", b"", 1.0):
            if (packed := self._open(key.encode(), note)) is not None:
                with contextlib.suppress(ValueError):  # another release wrote it
                    return _tokens(packed)
        return None

    async def _write(self, key: str, tokens: KeptTokens | None) -> None:
        note = b"" if tokens is None else self._seals[0].close(key.encode(), msgspec.msgpack.encode(tokens))
        for last in range(_WRITES):
            try:
                await self._counters.share(_board(key), _AUTHOR, note, self._settings.keep)
            except StoreError:
                if last == _WRITES - 1:
                    raise
                await asyncio.sleep(1)
            else:
                return

    def _open(self, bound: bytes, sealed: bytes) -> bytes | None:
        return next((found for seal in self._seals if (found := seal.open(bound, sealed)) is not None), None)

    # --- a sign-in

    def link(self, server: str, user: User, scope: str = "") -> str:
        """The address at which the user signs in. `scope`: scopes in place of those of the settings."""
        ticket = Ticket(server, user, scope, self._now() + self._settings.open, secrets.token_urlsafe(12))
        return f"{self.resource}{PATH}{self._sealed(b'ticket', ticket)}"

    def ticket(self, text: str) -> Ticket:
        """The ticket of a link. Raises SignInError."""
        found: Ticket | None = self._unsealed(b"ticket", text, _ticket)
        if found is None or found.until < self._now() or self._way(found.server) is None:
            raise SignInError("This link is not valid any more. Let your agent call the tool again to get another one.")
        return found

    async def begin(self, text: str, browser: str) -> str:
        """The address at the authorization server, for a ticket and a browser's cookie. Raises SignInError."""
        ticket, verifier = self.ticket(text), authorization.new_verifier()
        try:
            found = await self._discover(ticket.server)
            client = await self._client(ticket.server, found)
        except (TokenError, StoreError) as error:
            raise SignInError(f"The server {ticket.server} cannot sign you in now ({_why(error)}).") from error
        begun = _Begun(ticket, verifier, _digest(browser), found.server.issuer)
        way = self._way(ticket.server)
        assert way is not None, "ticket() checks it"
        scope = " ".join(scopes_of(ticket.scope or way.scope or " ".join(found.scopes)))
        redirect, state = f"{self.resource}{CALLBACK}", self._sealed(b"state", begun)
        return authorization.begin(found, client, redirect=redirect, scope=scope, state=state, verifier=verifier)

    async def finish(self, told: Mapping[str, str], browser: str) -> Ticket:
        """Sign a user in with the parameters of the callback. Returns the ticket. Raises SignInError."""
        begun: _Begun | None = self._unsealed(b"state", told.get("state", ""), _begun)
        if begun is None or begun.ticket.until < self._now() or begun.browser != _digest(browser):
            raise SignInError("This sign-in was not begun in this browser, or took too long. Open the link again.")
        ticket = begun.ticket
        try:
            found = await self._discover(ticket.server)
            strict = found.server.authorization_response_iss_parameter_supported
            if begun.issuer != found.server.issuer or told.get("iss", "" if strict else begun.issuer) != begun.issuer:
                raise SignInError("The answer came from another authorization server.")
            if not told.get("code"):
                raise SignInError("The server did not sign you in. Open the link again to try once more.")
            await self._use(ticket)
            client = await self._client(ticket.server, found)
            form = {"grant_type": "authorization_code", "code": told["code"], "code_verifier": begun.verifier}
            form |= {"redirect_uri": f"{self.resource}{CALLBACK}", "resource": found.resource}
            now = self._now()  # the lifetime of a token begins before its answer
            given = await self._ask(found.server.token_endpoint, client, form)
            way = self._way(ticket.server)
            asked = ticket.scope or (way.scope if way is not None and way.scope else " ".join(found.scopes))
            blank = KeptTokens("", 0, 0, "", asked, "", found.server.token_endpoint, found.resource, client, now)
            key = ticket.user.at(ticket.server)
            async with _locked(self._counters, key):
                await self._write(key, self._tokens(given, blank, now))
        except (TokenError, StoreError) as error:
            raise SignInError(f"The server {ticket.server} did not sign you in ({_why(error)}).") from error
        return ticket

    async def _use(self, ticket: Ticket) -> None:
        """Use up a ticket. Raises SignInError, StoreError."""
        hold, id = Hold(f"mcp-ticket:{ticket.id}", 0, 1, 1, idle=2 * self._settings.open), uuid.uuid4().hex
        if isinstance(await self._counters.reserve(id, [hold], _LEASE), Denied):
            raise SignInError("This link was used already. Let your agent call the tool again.")
        await self._counters.settle(id, [1])

    def _way(self, server: str) -> SignInSettings | None:
        return None if (place := self._places.get(server)) is None else place.way

    async def _discover(self, server: str) -> Protection:
        known, way = self._found.get(server), self._way(server)
        if known is None or self._now() - known[0] > _FRESH:
            told = authorization.challenge(await self._told(server))
            issuer = None if way is None else way.issuer
            found = await authorization.discover(self._places[server].url, told.get("resource_metadata", ""), issuer)
            if scopes := scopes_of(told.get("scope", "")):
                found = msgspec.structs.replace(found, scopes=scopes)
            known = self._found[server] = self._now(), found
        return known[1]

    async def _client(self, server: str, found: Protection) -> OAuthClient:
        """The gateway as a client of the server's issuer: of the settings, its own document, or registered."""
        way, own = self._way(server), f"{self.resource}{CLIENT}"
        assert way is not None, "ticket() checks it"
        if way.client_id is not None:
            secret = way.client_secret.read() if way.client_secret is not None else ""
            if secret is None:
                raise TokenError("unusable", "client_secret is not set")
            return OAuthClient(way.client_id, secret, way.client_auth if secret else "none")
        if found.server.client_id_metadata_document_supported and own.startswith("https:"):
            return OAuthClient(own)
        key = hashlib.sha256(f"client\0{found.server.issuer}\0{self.resource}".encode()).hexdigest()
        async with _locked(self._counters, key):
            for note in await self._counters.share(_board(key), "", b"", 1.0):
                if (packed := self._open(key.encode(), note)) is not None:
                    return _client(packed)
            made = await authorization.register(found.server, self.document())
            sealed = self._seals[0].close(key.encode(), msgspec.msgpack.encode(made))
            await self._counters.share(_board(key), _AUTHOR, sealed, self._settings.keep)
            return made

    def document(self) -> Mapping[str, Any]:
        """The gateway as a client, for registration."""
        return {
            "client_name": "llm-extproc",
            "client_uri": self.resource,
            "redirect_uris": [f"{self.resource}{CALLBACK}"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }

    def _sealed(self, bound: bytes, value: Any) -> str:
        return urlsafe_b64encode(self._seals[0].close(bound, msgspec.msgpack.encode(value))).rstrip(b"=").decode()

    def _unsealed(self, bound: bytes, text: str, decode: Callable[[bytes], Any]) -> Any:
        try:
            packed = self._open(bound, urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
            return None if packed is None else decode(packed)
        except ValueError:
            return None


_AUTHOR = "tokens"


async def sign_out(counters: Counters, server: str, user: User) -> None:
    """Forget a user's tokens at a server. Raises StoreError, TokenError."""
    async with _locked(counters, key := user.at(server)):
        await counters.share(_board(key), _AUTHOR, b"", 1.0)


def _board(key: str) -> str:
    return f"mcp-user:{key}"


@asynccontextmanager
async def _locked(counters: Counters, key: str) -> AsyncIterator[None]:
    """The one place in the fleet that changes these tokens. Raises StoreError, TokenError."""
    hold, ends = Hold(f"mcp-lock:{key}", 0, 1, 1, slot=True, idle=3600), time.monotonic() + _PATIENCE
    while isinstance(await counters.reserve(id := uuid.uuid4().hex, [hold], _LEASE), Denied):
        if time.monotonic() > ends:
            raise TokenError("timeout", "another process is at it")
        await asyncio.sleep(_LOOK)
    try:
        yield
    finally:
        with contextlib.suppress(StoreError):  # its lease runs out
            await counters.settle(id, [0])


def _subject(token: str) -> str:
    claims = unverified_claims(token)
    found = claims.get("sub") if isinstance(claims, Mapping) else None
    return found[:256] if isinstance(found, str) else ""


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode(errors="surrogatepass")).hexdigest()


def _why(error: BaseException) -> str:
    """A reason without the server's words."""
    return error.detail if isinstance(error, TokenError) else type(error).__name__
