"""Sessions of the revisions before 2026-07-28.

A client's session id holds the session's data, under a signature that binds it to the consumer and the profile, so any
replica can use it. A server's question to the client gets an id that holds the destination of the answer, under a
signature that binds it to the session. Only the end of a session needs the counters store, where it is a count that
every process reads.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from extproc.stores import Counters, Denied, Hold, StoreError
from extproc.wire.framing import rpc

_MAC = 16  # bytes of a signature
_MOST_CAPABILITIES = 1024  # most bytes of a client's abilities in JSON
_ASKING = ("elicitation", "sampling", "roots")
_END_LEASE = 10.0  # seconds of the lease; if the process dies before its settle, the session has not ended
QUESTION = "q."
"""Prefix of the ids of questions."""


@dataclass(slots=True, frozen=True)
class ClientSession:
    """A client's session: the results of `initialize`."""

    id: str  # id that the client has
    version: str
    capabilities: Mapping[str, Any]


@dataclass(slots=True, frozen=True)
class ServerQuestion:
    """The destination of the answer to a question."""

    server: str
    session: str  # id of the server's session
    version: str
    id: rpc.Id  # id of the server's question


class Sessions:
    """Signs and reads ids of sessions and questions. `now` in seconds since the epoch."""

    def __init__(self, secret: str | None, age: float, now: Callable[[], float] = time.time) -> None:
        self._key = _derived(secrets.token_bytes(32))
        self._now = now
        self.use(secret, age)

    def use(self, secret: str | None, age: float) -> None:
        """Sign with this secret from now on: ids signed with another secret are void. None changes nothing."""
        if secret is not None:
            self._key = _derived(secret.encode())
        self._age = age

    def begin(self, owner: str, version: str, capabilities: Mapping[str, Any]) -> ClientSession:
        """A new session. `owner` names the consumer and the profile."""
        kept = {name: value for name in _ASKING if isinstance(value := capabilities.get(name), dict)}
        if len(msgspec.json.encode(kept)) > _MOST_CAPABILITIES:
            kept = {name: {} for name in kept}
        packed = msgspec.msgpack.encode([int(self._now()), os.urandom(9), version, kept])
        return ClientSession(self._signed(packed, owner), version, kept)

    def find(self, owner: str, id: str) -> ClientSession | None:
        """The session of that id; None if it is not the owner's, or too old."""
        packed = self._checked(id, owner)
        if packed is None:
            return None
        begun, _, version, capabilities = msgspec.msgpack.decode(packed)
        if not 0 <= self._now() - begun + 60 <= self._age + 60:
            return None
        return ClientSession(id, version, capabilities)

    def ask(self, session: ClientSession, question: ServerQuestion) -> str:
        """The id under which a client gets a question."""
        packed = msgspec.msgpack.encode([question.server, question.session, question.version, question.id])
        return QUESTION + self._signed(packed, session.id)

    def asked(self, session: ClientSession, id: rpc.Id | None) -> ServerQuestion | None:
        """The question that an id stands for; None if it was not asked in this session."""
        if not isinstance(id, str) or not id.startswith(QUESTION):
            return None
        packed = self._checked(id.removeprefix(QUESTION), session.id)
        return None if packed is None else ServerQuestion(*msgspec.msgpack.decode(packed))

    def _signed(self, packed: bytes, owner: str) -> str:
        return urlsafe_b64encode(packed + self._mac(packed, owner)).rstrip(b"=").decode()

    def _checked(self, text: str, owner: str) -> bytes | None:
        try:
            data = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except (ValueError, UnicodeEncodeError):
            return None
        packed, mac = data[:-_MAC], data[-_MAC:]
        return packed if hmac.compare_digest(mac, self._mac(packed, owner)) else None

    def _mac(self, packed: bytes, owner: str) -> bytes:
        size = len(packed).to_bytes(8)
        return blake2b(size + packed + owner.encode(), digest_size=_MAC, key=self._key).digest()


def _derived(secret: bytes) -> bytes:
    return blake2b(secret, digest_size=32, person=b"mcp-sessions").digest()


class EndedSessions:
    """The sessions that their clients have ended. Every process that shares the counters store knows them at once.

    A session is no credential: each request carries a credential. So while the store is away, sessions continue, and
    none can be ended.
    """

    def __init__(self, counters: Counters, age: float) -> None:
        self._counters = counters
        self._age = age  # seconds after which any session is too old

    async def add(self, session: ClientSession) -> bool:
        """End a session. False if it had ended before. Raises StoreError."""
        hold, id = Hold(_scope(session), 0, 1, 1, idle=self._age), secrets.token_hex(16)
        if isinstance(await self._counters.reserve(id, [hold], _END_LEASE), Denied):
            return False
        await self._counters.settle(id, [1])
        return True

    async def has(self, session: ClientSession) -> bool:
        try:
            [level] = await self._counters.levels([(_scope(session), 0)])
        except StoreError:
            return False
        return level.settled + level.reserved > 0


def _scope(session: ClientSession) -> str:
    return "mcp-ended:" + blake2b(session.id.encode(), digest_size=16).hexdigest()
