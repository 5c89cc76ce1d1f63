"""Tables of operators: gateway keys made while the gateway runs, and sessions ended before their time.

A key is stored as its keyed hash. Replicas that share the ledger's database share its keys.
"""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

import uuid
from collections.abc import Sequence

from extproc.access.auth.issued import IssuedKey
from extproc.money.ledger import LedgerError
from extproc.money.ledger.database import Database
from extproc.money.ledger.rows import micros, text
from extproc.money.ledger.sql import places

MAX_KEYS = 10_000
"""Most keys that are stored, revoked keys included. Revoked keys are deleted first."""
_KEY = ("id", "hash", "consumer", "name", "created", "created_by", "expires", "revoked", "ending")


class TooManyKeysError(LedgerError):
    """The table has MAX_KEYS keys, none of them revoked or expired."""


class Operators:
    """The tables of operators. All methods block, and raise LedgerError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self) -> object:
        """A value that changes whenever the keys change."""
        with self._database.look() as cursor:
            [found] = cursor.rows("SELECT count(*), max(created), max(revoked) FROM gateway_keys")
            return found

    def keys(self) -> Sequence[IssuedKey]:
        """All keys, the oldest first."""
        with self._database.look() as cursor:
            found = cursor.rows(f"SELECT {', '.join(_KEY)} FROM gateway_keys ORDER BY created, id")
        return [
            IssuedKey(id, hash, consumer, name, created / 1e6, by, _seconds(expires), _seconds(revoked), ending)
            for id, hash, consumer, name, created, by, expires, revoked, ending in found
        ]

    def add(self, key: IssuedKey) -> None:
        """Store a key. In a full table it replaces the key that was revoked or expired first."""
        values = (
            *(key.id, key.hash, text(key.consumer), text(key.name), micros(key.created), text(key.created_by)),
            *(None if at is None else micros(at) for at in (key.expires, key.revoked)),
            key.ending,
        )
        with self._database.change() as cursor:
            if cursor.value("SELECT count(*) FROM gateway_keys") >= MAX_KEYS:
                deleted = cursor.execute(
                    "DELETE FROM gateway_keys WHERE id IN ("
                    "SELECT id FROM gateway_keys WHERE revoked IS NOT NULL OR expires <= ? ORDER BY "
                    "CASE WHEN revoked < coalesce(expires, revoked + 1) THEN revoked ELSE expires END, id LIMIT 1)",
                    (micros(key.created),),
                )
                if not deleted:
                    raise TooManyKeysError(f"there are {MAX_KEYS} keys, and none of them is revoked or expired")
            cursor.execute(f"INSERT INTO gateway_keys ({', '.join(_KEY)}) VALUES ({places(len(_KEY))})", values)

    def revoke(self, id: str, now: float) -> bool:
        """Revoke a key. False: no key has that id, or it was revoked before."""
        with self._database.change() as cursor:
            return bool(
                cursor.execute(
                    "UPDATE gateway_keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (micros(now), text(id))
                )
            )

    def end_session(self, id: str, until: float, now: float) -> None:
        """Remember an ended session until it would have expired; forget expired ones."""
        with self._database.change() as cursor:
            cursor.execute("DELETE FROM ended_sessions WHERE until < ?", (micros(now),))
            cursor.execute(
                "INSERT INTO ended_sessions (id, until) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
                (text(id), micros(until)),
            )

    def examine(self) -> None:
        """Write a row and delete it in one transaction, invisible to others."""
        id = f"doctor-{uuid.uuid4().hex}"
        with self._database.change() as cursor:
            cursor.execute("INSERT INTO ended_sessions (id, until) VALUES (?, 0)", (id,))
            cursor.execute("DELETE FROM ended_sessions WHERE id = ?", (id,))

    def ended_sessions(self) -> Sequence[str]:
        """The ids of ended sessions."""
        with self._database.look() as cursor:
            return [id for (id,) in cursor.rows("SELECT id FROM ended_sessions")]


def _seconds(at: int | None) -> float | None:
    return None if at is None else at / 1_000_000
