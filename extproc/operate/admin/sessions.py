"""Sessions of operators and begun sign-ins, each in a signed cookie of its own browser.

All workers and replicas derive the same key from the secrets of their settings, so each reads the others' cookies. The
key also depends on the roles' settings: a change of roles ends all sessions. If no secret is set, the key is random and
ends with the process.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from extproc.operate.admin.guard import ROLES, Principal
from extproc.settings.signon import OIDCSettings
from extproc.words.values import Secret

MAX_COOKIE = 4096  # most characters of a cookie
_LOGIN, _SESSION = b"login", b"session"
_BOUND = ("issuer", "client_id", "url", "name", "roles", "viewers", "operators", "admins")


@dataclass(slots=True, frozen=True)
class SignIn:
    """A sign-in under way. `fragment` is that of the console's address. Times are in epoch seconds."""

    state: str
    fragment: str
    until: float


@dataclass(slots=True, frozen=True)
class Session:
    """A session. Times are in epoch seconds."""

    id: str
    who: Principal
    begun: float
    until: float


class CookieSeal:
    """Signs and reads the cookies. The key is derived from the secrets `given`, which are read for each use, because a
    secret's file may change. While the file is missing, its last content counts.
    """

    def __init__(self, settings: OIDCSettings, given: Sequence[Secret]) -> None:
        self._bound = json.dumps([str(getattr(settings, name)) for name in _BOUND]).encode()
        self._given = given
        self._own = secrets.token_bytes(32)

    def begun(self, found: SignIn) -> str:
        return self._signed(_LOGIN, [found.state, found.fragment, found.until])

    def read_begun(self, cookie: str) -> SignIn | None:
        """The sign-in in a cookie; None if this gateway did not sign the cookie."""
        content = self._content(_LOGIN, cookie)
        return None if content is None else SignIn(*content)

    def session(self, found: Session) -> str:
        return self._signed(_SESSION, [found.id, found.who.name, found.who.role, found.begun, found.until])

    def read_session(self, cookie: str) -> Session | None:
        """The session in a cookie, possibly ended; None if this gateway did not sign the cookie."""
        content = self._content(_SESSION, cookie)
        if content is None:
            return None
        id, name, role, begun, until = content
        return Session(id, Principal(name, role, session=True), begun, until) if role in ROLES else None

    def word(self, purpose: str, state: str) -> str:
        """A word of 43 characters that only a holder of the key can derive from a sign-in's state."""
        return _text(self._tag(purpose.encode(), state.encode()))

    def _signed(self, purpose: bytes, content: Sequence[Any]) -> str:
        data = json.dumps(content).encode()  # json escapes lone surrogates
        return f"{_text(data)}.{_text(self._tag(purpose, data))}"

    def _content(self, purpose: bytes, cookie: str) -> Any:
        data, _, tag = cookie.partition(".")
        if len(cookie) > MAX_COOKIE or not cookie.isascii():
            return None
        try:
            content = urlsafe_b64decode(data + "=" * (-len(data) % 4))
        except ValueError:
            return None
        good = hmac.compare_digest(tag, _text(self._tag(purpose, content)))
        return json.loads(content) if good else None

    def _tag(self, purpose: bytes, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=32, key=self._key(), person=purpose).digest()

    def _key(self) -> bytes:
        found = [secret.read_or_last() for secret in self._given]
        texts = [text for text in found if text]
        if not texts or len(texts) < len(found):  # without all secrets others could derive the key
            return self._own
        every = json.dumps(texts).encode()
        return hashlib.blake2b(every + b"\0" + self._bound, digest_size=32, person=b"extproc console").digest()


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
