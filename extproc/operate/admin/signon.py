"""Sign-on of operators with OpenID Connect: the authorization code flow with PKCE, and sessions in signed cookies.

   GET  /auth/login      to the provider, with a state that is bound to this browser by a cookie
   GET  /auth/callback   the code becomes an ID token, whose signature, issuer, audience, times and nonce are verified
   POST /auth/logout     ends the session

The provider's documents are fetched with bounds of time and size. A session and a begun sign-in are cookies that any
worker or replica reads (`sessions.py`). The desk shares sessions that were ended early.

Envoy's `oauth2` and `jwt_authn` filters are not used: the processor also serves the console where no Envoy listener
leads to it, and each route needs its own role.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jwt
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from extproc.operate.admin.guard import Principal, failure
from extproc.operate.admin.sessions import CookieSeal, Session, SignIn
from extproc.operate.reports.desk import Desk
from extproc.settings.signon import OIDCSettings
from extproc.wire.outbound.client import AnswerError, ask
from extproc.words.values import Secret

log = logging.getLogger(__name__)

SESSION, BEGUN = "extproc_session", "extproc_login"
_PATIENCE = 10.0  # seconds for an answer of the provider
_MOST = 256 << 10  # most bytes of the provider's answer
_SIGN_IN = 600.0  # seconds for an operator to sign on at the provider
_FRESH = 3600.0  # seconds for which the provider's documents are kept
_AGAIN = 60.0  # seconds before the provider's keys are fetched again for an unknown key
_SKEW = 60  # most seconds by which the clocks may differ
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_FRAGMENT = re.compile(r"[A-Za-z0-9=&%+._*-]{0,2048}")


class SignOnError(Exception):
    """The operator cannot be signed on. The text is for people, and has no part of the provider's answer."""


class SignOn:
    """Sign-on for `settings`. `desk` remembers ended sessions; the key of cookies is derived from the client's secret
    and `given`. `now` in epoch seconds.
    """

    def __init__(
        self,
        settings: OIDCSettings,
        desk: Desk,
        given: Sequence[Secret] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._desk = desk
        self._now = now
        self._seal = CookieSeal(settings, [*filter(None, [settings.client_secret]), *given])
        self._secure = urlsplit(settings.url).scheme == "https"
        self._lock = threading.Lock()
        self._recent: list[float] = []  # times of sign-ins begun in the last minute
        self._documents: dict[str, tuple[float, Any]] = {}

    # --- routes

    def login(self, request: Request) -> Response:
        """Begin a sign-in: redirect to the provider."""
        now = self._now()
        with self._lock:
            self._recent = [at for at in self._recent if abs(now - at) < 60]  # abs: the clock may step back
            if len(self._recent) >= self._settings.sign_ins:
                return failure(429, "too many sign-ins at once: try again in a minute", **{"retry-after": "60"})
            self._recent.append(now)
        try:
            where = self._endpoint("authorization_endpoint")
        except SignOnError as error:
            return failure(503, str(error))
        fragment = request.query_params.get("next", "")
        state = secrets.token_urlsafe(32)
        begun = SignIn(state, fragment if _FRAGMENT.fullmatch(fragment) else "", now + _SIGN_IN)
        verifier = hashlib.sha256(self._seal.word("verifier", state).encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": self._seal.word("nonce", state),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        answer = RedirectResponse(f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}", 302)
        self._set(answer, BEGUN, self._seal.begun(begun), int(_SIGN_IN), path="/auth")
        return answer

    def callback(self, request: Request) -> tuple[Response, Principal | None]:
        """End a sign-in, when the provider has sent the browser back. Returns the operator."""
        given = request.query_params
        state = given.get("state", "")
        # The cookie shows that this browser began the sign-in: the code of another browser must not sign it on. The
        # provider accepts each code once.
        begun = self._seal.read_begun(request.cookies.get(BEGUN, ""))
        bound = begun is not None and secrets.compare_digest(begun.state.encode(), state.encode())
        if begun is None or not bound or begun.until < self._now():
            return failure(400, "this sign-in was not begun here, or took too long: begin again"), None
        if "code" not in given:
            return failure(403, "the identity provider refused the sign-in", code="sign_in_refused"), None
        try:
            who = self._operator(self._exchange(given["code"], begun), begun)
        except SignOnError as error:
            log.warning("a sign-in failed: %s", error)
            return failure(403, str(error), code="sign_in_refused"), None
        now = self._now()
        session = Session(secrets.token_urlsafe(16), who, now, now + self._settings.session)
        answer = RedirectResponse(f"{self._settings.url}/" + (f"#{begun.fragment}" if begun.fragment else ""), 302)
        self._set(answer, SESSION, self._seal.session(session), int(self._settings.session))
        self._set(answer, BEGUN, "", 0, path="/auth")
        return answer, who

    def logout(self, request: Request) -> Response:
        """End the session at every worker and replica. Blocks."""
        session = self._seal.read_session(request.cookies.get(SESSION, ""))
        if session is not None:
            self._desk.end_session(session.id, session.until)
        answer = Response(status_code=204)
        self._set(answer, SESSION, "", 0)
        return answer

    def find(self, request: Request) -> Principal | None:
        """The operator whose session the request belongs to."""
        session = self._seal.read_session(request.cookies.get(SESSION, ""))
        if session is None or session.until <= self._now() or self._desk.has_ended(session.id, session.begun):
            return None
        return session.who

    # --- the provider

    @property
    def _redirect(self) -> str:
        return f"{self._settings.url}/auth/callback"

    def _exchange(self, code: str, begun: SignIn) -> str:
        """The ID token for a code."""
        settings = self._settings
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect}
        form |= {"code_verifier": self._seal.word("verifier", begun.state), "client_id": settings.client_id}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if settings.client_secret is not None:
            secret = settings.client_secret.read()
            if secret is None:
                raise SignOnError("admin.oidc.client_secret is not set")
            both = f"{quote(settings.client_id, safe='')}:{quote(secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
        found = _fetched(self._endpoint("token_endpoint"), urlencode(form).encode(), headers)
        token = found.get("id_token")
        if not isinstance(token, str):
            raise SignOnError("the identity provider gave no ID token")
        return token

    def _operator(self, token: str, begun: SignIn) -> Principal:
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                self._key(token),
                algorithms=list(_ALGORITHMS),
                audience=settings.client_id,
                issuer=self._issuer(),
                leeway=_SKEW,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise SignOnError(f"the ID token is not valid ({type(error).__name__})") from None
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not secrets.compare_digest(
            nonce.encode(errors="replace"), self._seal.word("nonce", begun.state).encode()
        ):
            raise SignOnError("the ID token belongs to another sign-in")
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != settings.client_id:
            raise SignOnError("the ID token belongs to another client")
        name = _claim(claims, settings.name)
        name = name if isinstance(name, str) and name else str(claims["sub"])
        role = settings.role(_groups(_claim(claims, settings.roles)))
        if role is None:
            raise SignOnError("your groups have no role here: ask the gateway's operators")
        return Principal(name[:256], role, session=True)

    def _key(self, token: str) -> Any:
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in _ALGORITHMS:
            raise SignOnError("the ID token is signed in a way that is not accepted")
        for latest in (False, True):
            keys = self._document(self._endpoint("jwks_uri"), latest=latest).get("keys")
            for key in keys if isinstance(keys, list) else ():
                if isinstance(key, dict) and key.get("kid") == header.get("kid") and key.get("use", "sig") == "sig":
                    return jwt.PyJWK(key, algorithm=header["alg"])
        raise SignOnError("the ID token is signed with an unknown key")

    def _issuer(self) -> str:
        found = self._discovered().get("issuer")
        if not isinstance(found, str) or found.rstrip("/") != self._settings.issuer:
            raise SignOnError("the identity provider's document is another issuer's")
        return found

    def _endpoint(self, name: str) -> str:
        self._issuer()
        found = self._discovered().get(name)
        secure = urlsplit(self._settings.issuer).scheme == "https"
        if not isinstance(found, str) or urlsplit(found).scheme not in (("https",) if secure else ("http", "https")):
            raise SignOnError(f"the identity provider's document has no usable {name}")
        return found

    def _discovered(self) -> Mapping[str, Any]:
        return self._document(f"{self._settings.issuer}/.well-known/openid-configuration")

    def _document(self, url: str, *, latest: bool = False) -> Mapping[str, Any]:
        """A document of the provider, kept for `_FRESH` seconds; with `latest`, for `_AGAIN`."""
        known = self._documents.get(url)
        if known is None or self._now() - known[0] > (_AGAIN if latest else _FRESH):
            known = self._documents[url] = self._now(), _fetched(url)
        found: Mapping[str, Any] = known[1]
        return found

    # --- small parts

    def _set(self, answer: Response, name: str, value: str, seconds: int, path: str = "/") -> None:
        answer.set_cookie(name, value, max_age=seconds, path=path, httponly=True, samesite="lax", secure=self._secure)


def _fetched(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    try:
        status, content = ask(url, body, headers, timeout=_PATIENCE, most=_MOST)
        found = json.loads(content) if status == 200 and len(content) <= _MOST else None
    except (OSError, AnswerError, ValueError, RecursionError):
        raise SignOnError("the identity provider does not answer as it should") from None
    if not isinstance(found, dict):
        raise SignOnError("the identity provider does not answer as it should")
    return found


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    found: Any = claims.get(path)
    if found is None:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _groups(value: Any) -> Sequence[str]:
    return (
        [value]
        if isinstance(value, str)
        else [each for each in value if isinstance(each, str)]
        if isinstance(value, list)
        else []
    )
