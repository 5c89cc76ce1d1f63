"""The credential of a call at a server with `auth`: a token of its user.

    SignedIn   a call without tokens of `sign_in` is refused with a link, before anything is held or used up for it
    OnBehalf   the header with the token, and the end of a token that the server refused

A client gets the link as an elicitation in URL mode, if it takes one: in 2026-07-28 as a question, before as the error
-32042 of 2025-11-25. Other clients get it in the text of the tool's result.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from extproc.access.auth import ANONYMOUS
from extproc.stores import StoreError
from extproc.tools.mcp.behalf import UserTokens
from extproc.tools.mcp.behalf_settings import MCPAuthSettings
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.link import NO_USER
from extproc.tools.mcp.refusals import AskUser, RPCRefusal, asking, elicits, take_answer
from extproc.tools.mcp.settings import MCPSettings
from extproc.tools.sign_in.sign_ins import SignIns, User
from extproc.upstream.credentials.authorization import challenge, scopes_of
from extproc.upstream.credentials.oauth import TokenError
from extproc.words import contract
from extproc.words.errors import MCP_CREDENTIAL_REJECTED, SIGN_IN_REQUIRED, STORE_UNAVAILABLE, Refusal
from extproc.words.exchange import Consumer, Exchange

log = logging.getLogger(__name__)

_KEY, _STATE = "sign_in", "llm-extproc/sign-in:"
_ELICIT = -32042  # URLElicitationRequiredError of 2025-11-25
_WAIT, _LOOK = 8.0, 0.5  # seconds that a call waits for its user, who said yes to the link; between two looks


class OnBehalf:
    """Tokens of users for calls. `sign_ins`: of servers with `sign_in`; None without such servers."""

    def __init__(self, settings: MCPSettings, users: UserTokens, sign_ins: SignIns | None) -> None:
        self._auth = {name: each.auth for name, each in settings.servers.items() if each.auth is not None}
        self._users = users
        self._sign_ins = sign_ins

    def way(self, call: Call) -> MCPAuthSettings | None:
        """The settings of users' tokens at the call's server; None: the server gets the gateway's own credential."""
        return self._auth.get(call.server)

    async def headers(self, exchange: Exchange, auth: MCPAuthSettings) -> Mapping[str, str]:
        """The header with the user's token; none where the server's own may stand in for it. Raises Refusal."""
        call = exchange.features[CALL]
        if call.caller is None and auth.without_user == "token":
            return NO_USER
        if call.caller is None and not (auth.without_user == "consumer" and _is_person(exchange.consumer)):
            raise _no_token(
                f"Server {call.server} is called on behalf of users: sign in with the company's issuer.", call
            )
        try:
            token = await self._signed_in(exchange) if auth.sign_in is not None else await self._exchanged(call, auth)
        except TokenError as error:
            log.warning("MCP server %s: no token for a user (%s)", call.server, error)
            raise _no_token(f"There is no token for you at server {call.server} now.", call) from None
        except StoreError:
            raise _store_away(call) from None
        if not token:
            raise self._ask(exchange, "")
        call.on_behalf = True
        return {contract.BEHALF: f"Bearer {token}"}

    async def _exchanged(self, call: Call, auth: MCPAuthSettings) -> str:
        assert call.caller is not None, "without_user: consumer needs sign_in"
        return await self._users.get(call.server, auth, call.caller)

    async def _signed_in(self, exchange: Exchange) -> str:
        """The token of the call's user; empty if the user has to sign in."""
        if self._sign_ins is None:  # the settings in force wait for Envoy
            raise TokenError("unusable", "the settings have no sign_ins")
        call = exchange.features[CALL]
        found = await self._sign_ins.get(call.server, user_of(exchange))
        if found is None:
            return ""
        call.server_subject, call.token_given = found.subject, found.given
        return found.access

    async def refused(self, exchange: Exchange, status: int, told: str) -> Refusal:
        """The refusal of a call whose token the server has refused with this challenge."""
        call = exchange.features[CALL]
        auth, text = self._auth[call.server], f"Server {call.server} refused your token."
        if auth.sign_in is None:
            if call.caller is not None:
                self._users.forget(call.server, call.caller)
            return _no_token(text, call)
        assert self._sign_ins is not None, "a server has sign_in"
        user, said = user_of(exchange), challenge(told)
        try:
            if status == 401:
                await self._sign_ins.refused(call.server, user, call.token_given)
            elif said.get("error") == "insufficient_scope":
                asked = scopes_of(await self._sign_ins.asked(call.server, user))
                wanted = scopes_of(" ".join((*asked, *scopes_of(said.get("scope", "")))))
                if len(wanted) > len(asked):  # otherwise the user gave all of them, or did not want to
                    return self._ask(exchange, " ".join(wanted))
        except (TokenError, StoreError):
            return _store_away(call)
        return _no_token(f"{text} Call the tool again.", call)

    def _ask(self, exchange: Exchange, scope: str) -> Refusal:
        """The refusal with a link to sign in, for these scopes in place of those of the settings."""
        assert self._sign_ins is not None, "a server has sign_in"
        call = exchange.features[CALL]
        link = self._sign_ins.link(call.server, user_of(exchange), scope)
        message = f"Sign in at {call.server}, so that your agent can use its tools for you."
        params: dict[str, Any] = {"mode": "url", "message": message, "url": link}
        if elicits(call, "url") and call.message is not None and call.message.kind == "request":
            if call.modern:
                return AskUser(SIGN_IN_REQUIRED, message, asking(_KEY, params, _STATE))
            told = [{**params, "elicitationId": link.rpartition("/")[2][-32:]}]
            return RPCRefusal(SIGN_IN_REQUIRED, message, data={"elicitations": told}, code=_ELICIT)
        text = f"The user has to sign in at server {call.server} first. Ask the user to open {link} and to say when it "
        return Refusal(SIGN_IN_REQUIRED, f"{text}is done. Then call the tool again.")


class SignedIn:
    """Refuses a call whose user has to sign in at its server. A call whose user has just said yes to the link waits for
    some seconds.
    """

    def __init__(self, users: OnBehalf) -> None:
        self._users = users

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        auth = self._users.way(call)
        if auth is None or auth.sign_in is None:
            return
        _, said = take_answer(exchange, _STATE, _KEY)
        ends = time.monotonic() + (_WAIT if said.get("action") == "accept" else 0.0)
        while True:
            try:
                await self._users.headers(exchange, auth)
            except Refusal as refusal:
                if refusal.kind is not SIGN_IN_REQUIRED or not said:
                    raise
                if time.monotonic() > ends:
                    text = f"The user has not signed in at server {call.server}. Call the tool again when it is done."
                    raise Refusal(SIGN_IN_REQUIRED, text) from None
            else:
                return
            await asyncio.sleep(_LOOK)


def _is_person(consumer: Consumer) -> bool:
    """True for a consumer that may be a user: not for clients without a credential, nor for a name from a token."""
    return consumer.listed and consumer.name != ANONYMOUS


def user_of(exchange: Exchange) -> User:
    """The user of a call: the consumer, and the user that its token names."""
    caller = exchange.features[CALL].caller
    consumer = exchange.consumer.name
    return User(consumer) if caller is None else User(consumer, caller.issuer, caller.subject)


def _no_token(text: str, call: Call) -> Refusal:
    return RPCRefusal(MCP_CREDENTIAL_REJECTED, text, data={"server": call.server})


def _store_away(call: Call) -> Refusal:
    text = f"Sign-ins at server {call.server} cannot be read now: try again later."
    return Refusal(STORE_UNAVAILABLE, text)
