"""The guard before every admin route: the token, the page of origin, and limits of size."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from extproc.operate.admin.answers import Error, ErrorText
from extproc.operate.admin.failures import Failures
from extproc.words.values import is_loopback, show_size

MAX_TARGET = 8 << 10  # most bytes of path and query

_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::[0-9]{1,5})?")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]|%[01][0-9A-Fa-f]|%7[Ff]")
_CODES = {
    400: "invalid_request",
    401: "invalid_token",
    403: "cross_site",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "conflict",
    411: "length_required",
    413: "body_too_large",
    414: "address_too_long",
    415: "unsupported_type",
    421: "wrong_host",
    429: "too_many",
    500: "internal",
    503: "unavailable",
}


ROLES = ("viewer", "operator", "admin")
"""Each role includes the rights of the role before it. A viewer reads; an operator changes grants, keys and the cache;
an admin erases from the ledger and reads the audit trail.
"""


@dataclass(slots=True, frozen=True)
class Principal:
    """The operator behind a request."""

    name: str
    role: str
    session: bool = False

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


_NOBODY = Principal("", "viewer")  # the principal of open paths


def principal(request: Request) -> Principal:
    """The operator behind a request that passed the guard."""
    found: Principal = request.scope["principal"]
    return found


class JSON(Response):
    """A JSON response. Lone surrogates, which clients can send as labels, have no UTF-8 form and are escaped."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        try:
            return msgspec.json.encode(content)  # msgspec is fast, and holds the interpreter's lock briefly
        except UnicodeEncodeError:
            return json.dumps(msgspec.to_builtins(content)).encode()


def failure(status: int, message: str, *, code: str = "", **headers: str) -> Response:
    """An error in the API's shape."""
    return JSON(Error(ErrorText(message, code or _CODES.get(status, "error"))), status_code=status, headers=headers)


class AdminGuard:
    """Refuses before `app` sees the request, and puts the security headers on every answer.

    Without a token the API listens on loopback, where any web page in a browser can send requests. So the Host must be
    a loopback name, too (a name rebound to 127.0.0.1 is refused). Only same-origin pages may change anything.

    A token that may change while the process runs is given as a function that reads it; while it has no value no
    request passes.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | Callable[[], str | None] | None,
        session: Callable[[Request], Principal | None] | None = None,
        address: str = "",
        *,
        failures: Failures | None = None,
        open_paths: Collection[str] = (),
    ) -> None:
        """`session` finds the operator who has signed on; None without sign-on. `address` is the console's public
        address, if known, because a proxy may have written another Host. `open_paths` have no data and need no token:
        the console asks for the token.
        """
        self._app = app
        self._token = token
        self._session = session
        self._own = urlsplit(address).netloc.lower()
        self._failures = failures or Failures(0)
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(Request(scope)) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._open and not _is_local(host):
            return failure(421, "without a token the admin API serves this machine only: use localhost or 127.0.0.1")
        path: bytes = request.scope.get("raw_path") or request.url.path.encode()
        target = path + b"?" + request.scope["query_string"]
        if len(target) > MAX_TARGET:
            return failure(414, f"path and query have at most {show_size(MAX_TARGET)}")
        if _CONTROL.search(target):
            return failure(400, "path and query must not contain control characters")
        if wait := self._barred(request):
            return failure(429, f"too many wrong tokens from this address: wait {wait}s", **{"retry-after": str(wait)})
        who = self._principal(request)
        if who is None and request.url.path not in self._open_paths:
            told = {"www-authenticate": "Bearer"}
            if self._session is not None:
                return failure(401, "sign on at /auth/login", code="sign_in_required", **told)
            return failure(401, "send 'Authorization: Bearer <admin token>'", **told)
        request.scope["principal"] = who or _NOBODY
        request.scope["allowed"] = lambda: self._principal(request) is not None  # asked again by answers that last
        if request.method in ("POST", "DELETE"):
            return _refused_change(request, {host, self._own})
        return None

    @property
    def _open(self) -> bool:
        """True when every user of this machine may use the API."""
        return self._token is None and self._session is None

    def _barred(self, request: Request) -> int:
        """Seconds for which the address of a request with a token is refused, even with the right token: the answers
        must not reveal whether a token is right.
        """
        if self._token is None or "authorization" not in request.headers:
            return 0
        return self._failures.wait(_address(request))

    def _principal(self, request: Request) -> Principal | None:
        if self._open:
            return Principal("local", "admin")
        if self._token is not None and self._known(request):
            return Principal("token", "admin")
        return None if self._session is None else self._session(request)

    def _known(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = ((self._token() if callable(self._token) else self._token) or "").encode()
        if bool(expected) and hmac.compare_digest(given.encode(), expected) and scheme.lower() == "bearer":
            return True
        if given:
            self._failures.add(_address(request))
        return False


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _refused_change(request: Request, own: set[str]) -> Response | None:
    """The refusal of a change from another site, or None. A page of another site cannot send a DELETE or this content
    type without a preflight, which is never granted.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    try:
        foreign = origin is not None and urlsplit(origin).netloc not in own - {""}
    except ValueError:
        foreign = True
    if foreign or site not in ("same-origin", "none"):
        return failure(403, "pages of other sites may not change anything")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json":
        return failure(415, "send 'Content-Type: application/json'")
    return None


def _is_local(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback((match[1] or match[2]).lower())
