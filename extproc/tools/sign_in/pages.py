"""Pages of the gateway for users who sign in at a server: they come from a link, and back with a code.

    GET /mcp-sign-in/TICKET        who would be signed in, and at which server: the user says yes by going on
    GET /mcp-sign-in/TICKET?go     a cookie for the browser, and the way to the authorization server
    GET /mcp-sign-in/callback      the browser is back: the code becomes tokens
    GET /mcp-sign-in/client.json   the gateway as a client, for authorization servers that read such documents

No request here has a credential of the gateway. A link that is passed on would sign another person in for the user that
it was made for, so the page names that user, and nothing happens before the person goes on.
"""

from __future__ import annotations

import asyncio
import html
import logging
import re
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

import msgspec

from extproc.tools.sign_in.sign_ins import CALLBACK, CLIENT, PATH, SignInError, SignIns, User
from extproc.words.actions import LocalReply
from extproc.words.api import ClientAPI
from extproc.words.dialect import NO_ENDPOINT
from extproc.words.errors import METHOD_NOT_ALLOWED, Refusal
from extproc.words.exchange import Exchange

log = logging.getLogger(__name__)

_COOKIE = "extproc_mcp_sign_in"
_LASTS = 3600  # seconds for which a browser keeps its cookie
_BROWSER = re.compile(r"[\w-]{43}", re.ASCII).fullmatch
_MOST = 32  # most parameters of a callback
_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PAGE = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Sign in</title>
<style>body {{ font: 1rem/1.5 system-ui; max-width: 34rem; margin: 4rem auto; padding: 0 1rem }}</style>
<h1>{title}</h1><p>{text}</p>{more}</html>
"""


class SignInPages:
    """Answers requests of browsers below `/mcp-sign-in/`. `dialect` makes the API of an exchange."""

    def __init__(self, sign_ins: SignIns, dialect: Callable[[], ClientAPI]) -> None:
        self._sign_ins, self._dialect = sign_ins, dialect
        secure = sign_ins.resource.startswith("https:")
        # With this prefix no other host of the domain can give a browser the cookie.
        self._cookie = f"__Host-{_COOKIE}" if secure else _COOKIE
        self._kept = f"Path=/; Max-Age={_LASTS}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"

    async def __call__(self, exchange: Exchange) -> LocalReply | None:
        head = exchange.request.head
        path, _, query = head.path.partition("?")
        if not path.startswith(PATH):
            return None
        exchange.request.dialect, exchange.request.endpoint, exchange.request.operation = (
            self._dialect(),
            NO_ENDPOINT,
            "mcp",
        )
        if head.method not in ("GET", "HEAD"):
            raise Refusal(METHOD_NOT_ALLOWED, "The page takes GET.", headers={"allow": "GET, HEAD"})
        if path == CLIENT:
            found = {"client_id": f"{self._sign_ins.resource}{CLIENT}", **self._sign_ins.document()}
            return LocalReply(200, msgspec.json.encode(found), {"content-type": "application/json"})
        await asyncio.sleep(0)  # lets this coroutine run in a task
        browser = _browser(head.headers.get("cookie", ""), self._cookie)
        try:
            if path == CALLBACK:
                return await self._finish(query, browser)
            ticket = path.removeprefix(PATH)
            return await self._begin(ticket, browser) if query == "go" else self._ask(ticket)
        except SignInError as error:
            return _page(400, "Not signed in", html.escape(str(error)))

    def _ask(self, text: str) -> LocalReply:
        ticket = self._sign_ins.ticket(text)
        server = html.escape(ticket.server)
        words = f"Agents of <b>{_name(ticket.user)}</b> will use the tools of <b>{server}</b> with your account there. "
        words += "Go on only if this is you, and you have just asked for it."
        return _page(200, f"Sign in at {server}?", words, '<p><a href="?go">Go on and sign in</a></p>')

    async def _begin(self, text: str, browser: str) -> LocalReply:
        browser = browser or secrets.token_urlsafe(32)
        where = await self._sign_ins.begin(text, browser)
        cookie = f"{self._cookie}={browser}; {self._kept}"
        return LocalReply(302, b"", {**_HEADERS, "location": where, "set-cookie": cookie})

    async def _finish(self, query: str, browser: str) -> LocalReply:
        try:
            told = dict(parse_qsl(query, max_num_fields=_MOST))
        except ValueError:
            told = {}
        ticket = await self._sign_ins.finish(told, browser)
        log.info("MCP server %s: a user of %r signed in (%r)", ticket.server, ticket.user.consumer, ticket.user.subject)
        return _page(200, "Signed in", f"Your agent can use {html.escape(ticket.server)} now. Close this page.")


def _name(user: User) -> str:
    """The user, for people."""
    return html.escape(f"{user.subject} ({user.consumer})" if user.subject else user.consumer)


def _browser(cookies: str, name: str) -> str:
    """The value of the browser's cookie; empty without one of the gateway's form."""
    try:
        found = SimpleCookie(cookies).get(name)
    except CookieError:
        return ""
    return found.value if found is not None and _BROWSER(found.value) else ""


def _page(status: int, title: str, text: str, more: str = "") -> LocalReply:
    """A page. Title and text are HTML."""
    return LocalReply(status, _PAGE.format(title=title, text=text, more=more).encode(), _HEADERS)
