"""Tables of operators: gateway keys made while the gateway runs, the trail of acts, sessions ended before their time.

A key is stored as its keyed hash. Replicas that share the ledger's database share its keys.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.access.auth.issued import IssuedKey
from extproc.money.ledger import LedgerError
from extproc.money.ledger.database import Database
from extproc.money.ledger.rows import micros, text

MAX_KEYS = 10_000
"""Keys that are stored, revoked ones included: those are deleted first."""
MAX_DETAIL = 4096  # bytes of one entry's detail
_KEY = ("id", "hash", "consumer", "name", "created", "created_by", "expires", "revoked")
_ENTRY = ("id", "time", "actor", "role", "action", "detail")


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One act of an operator. `time` in epoch seconds."""

    id: str
    time: float
    actor: str
    role: str
    action: str
    detail: Mapping[str, Any]


class TooManyKeysError(LedgerError):
    """There are MAX_KEYS keys, and none of them is revoked or expired."""


class Operators:
    """All methods block, and raise LedgerError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._place = database.placeholder

    def mark(self) -> object:
        """Something that differs when the keys do."""
        with self._database.look() as cursor:
            cursor.execute("SELECT count(*), max(created), max(revoked) FROM gateway_keys")
            return cursor.fetchone()

    def keys(self) -> Sequence[IssuedKey]:
        """All keys, the oldest first."""
        with self._database.look() as cursor:
            cursor.execute(f"SELECT {', '.join(_KEY)} FROM gateway_keys ORDER BY created, id")  # noqa: S608
            found = cursor.fetchall()
        return [
            IssuedKey(id, hash, consumer, name, created / 1e6, by, _seconds(expires), _seconds(revoked))
            for id, hash, consumer, name, created, by, expires, revoked in found
        ]

    def add(self, key: IssuedKey) -> None:
        """Store a key, where there is no room in the place of the one that was revoked or expired first."""
        values = (
            *(key.id, key.hash, text(key.consumer), text(key.name), micros(key.created), text(key.created_by)),
            *(None if at is None else micros(at) for at in (key.expires, key.revoked)),
        )
        with self._database.change() as cursor:
            cursor.execute("SELECT count(*) FROM gateway_keys")
            [[count]] = cursor.fetchall()
            if count >= MAX_KEYS:
                ended = "CASE WHEN revoked < coalesce(expires, revoked + 1) THEN revoked ELSE expires END"
                over = f"revoked IS NOT NULL OR expires <= {self._place}"
                oldest = f"SELECT id FROM gateway_keys WHERE {over} ORDER BY {ended}, id LIMIT 1"  # noqa: S608
                cursor.execute(f"DELETE FROM gateway_keys WHERE id IN ({oldest})", (micros(key.created),))  # noqa: S608
                if not cursor.rowcount:
                    raise TooManyKeysError(f"there are {MAX_KEYS} keys, and none of them is revoked or expired")
            places = ", ".join([self._place] * len(_KEY))
            cursor.execute(f"INSERT INTO gateway_keys ({', '.join(_KEY)}) VALUES ({places})", values)  # noqa: S608

    def revoke(self, id: str, now: float) -> bool:
        """Revoke a key. False: there is none of that id, or it was revoked before."""
        with self._database.change() as cursor:
            cursor.execute(
                f"UPDATE gateway_keys SET revoked = {self._place} WHERE id = {self._place} AND revoked IS NULL",  # noqa: S608
                (micros(now), text(id)),
            )
            return bool(cursor.rowcount)

    def record(self, actor: str, role: str, action: str, detail: Mapping[str, Any]) -> None:
        """Add an act to the trail."""
        content = json.dumps(dict(detail))  # it escapes lone surrogates
        if len(content) > MAX_DETAIL:
            content = json.dumps({"cut": content[: MAX_DETAIL // 2]})
        values = (uuid.uuid4().hex, micros(time.time()), text(actor), role, action, content)
        with self._database.change() as cursor:
            places = ", ".join([self._place] * len(_ENTRY))
            cursor.execute(f"INSERT INTO audit ({', '.join(_ENTRY)}) VALUES ({places})", values)  # noqa: S608

    def trail(self, limit: int, before: str | None = None) -> Sequence[Act]:
        """The latest acts first: those before the act with the id `before`."""
        wanted, given = "", list[object]()
        if before is not None:
            older = f"SELECT time FROM audit WHERE id = {self._place}"  # noqa: S608
            wanted = f"WHERE time < ({older}) OR time = ({older}) AND id < {self._place}"
            given = [text(before)] * 3
        with self._database.look() as cursor:
            cursor.execute(
                f"SELECT {', '.join(_ENTRY)} FROM audit {wanted} ORDER BY time DESC, id DESC LIMIT {limit:d}",  # noqa: S608
                given,
            )
            found = cursor.fetchall()
        return [
            Act(id=id, time=at / 1e6, actor=actor, role=role, action=action, detail=json.loads(detail))
            for id, at, actor, role, action, detail in found
        ]

    def prune(self, before: float) -> None:
        """Delete acts from before a time, in epoch seconds."""
        with self._database.change() as cursor:
            cursor.execute(f"DELETE FROM audit WHERE time < {self._place}", (micros(before),))  # noqa: S608

    def end_session(self, id: str, until: float, now: float) -> None:
        """Remember a session that was ended, until its time; forget those whose time has come."""
        with self._database.change() as cursor:
            cursor.execute(f"DELETE FROM ended_sessions WHERE until < {self._place}", (micros(now),))  # noqa: S608
            cursor.execute(
                f"INSERT INTO ended_sessions (id, until) VALUES ({self._place}, {self._place}) "  # noqa: S608
                "ON CONFLICT (id) DO NOTHING",
                (text(id), micros(until)),
            )

    def examine(self) -> None:
        """Write a row and delete it, in one transaction that nobody sees."""
        id = f"doctor-{uuid.uuid4().hex}"
        with self._database.change() as cursor:
            cursor.execute(f"INSERT INTO ended_sessions (id, until) VALUES ({self._place}, 0)", (id,))  # noqa: S608
            cursor.execute(f"DELETE FROM ended_sessions WHERE id = {self._place}", (id,))  # noqa: S608

    def ended_sessions(self) -> Sequence[str]:
        """The ids of sessions that were ended."""
        with self._database.look() as cursor:
            cursor.execute("SELECT id FROM ended_sessions")
            return [id for (id,) in cursor.fetchall()]


def _seconds(at: int | None) -> float | None:
    return None if at is None else at / 1_000_000
