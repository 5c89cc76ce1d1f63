"""The audit trail: security-relevant events of a fleet in one order, each bound to all before it by hashes.

    digest = SHA-256 of the event's bytes        hash = SHA-256 of the hash before and the digest, as hexadecimal text

The database sets the order: processes that share it append one after the other. A changed, inserted, removed or
reordered entry breaks the chain. Entries removed at its end, or a rebuilt chain, show in the absence of a hash that was
noted elsewhere (`verify`). An entry of a forgotten consumer keeps its digest and loses its event, so the chain stays
whole. Older entries are deleted by age; the oldest kept entry is the base of the chain.

Events are in the Elastic Common Schema: https://www.elastic.co/docs/reference/ecs
"""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.money.ledger.database import Database
from extproc.money.ledger.rows import micros, text
from extproc.money.ledger.sql import POSTGRESQL, Cursor, places

BEGIN = "0" * 64
"""The hash before the first entry."""
MAX_EVENT = 16 << 10  # most bytes of an event
_COLUMNS = ("number", "id", "time", "consumer", "event", "digest", "hash")
_CHAIN = ',"chain":{"number":'
# Key of an advisory lock in PostgreSQL: a number that no other program in the database uses.
_LOCK = 7_310_868_733_423_013
_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True):
    """An event to append. `fields` have its id in `event.id`, and at most `MAX_EVENT` bytes as JSON."""

    id: str
    time: float  # epoch seconds
    fields: Mapping[str, Any]
    consumer: str = ""  # consumer of the event, for `forget`


class AuditEntry(msgspec.Struct, frozen=True):
    """An entry of the trail. `event` is JSON; empty where its consumer was forgotten."""

    number: int
    event: str
    digest: str
    hash: str

    def line(self, previous: str) -> str:
        """The event as a line of JSON, with its place in the chain as the last field."""
        chain = f'{_CHAIN}{self.number},"previous":"{previous}","digest":"{self.digest}","hash":"{self.hash}"}}}}'
        return (self.event or '{"forgotten":true}')[:-1] + chain


class BrokenError(Exception):
    """The chain is broken. The text names the first entry at fault."""


def digest_of(event: str) -> str:
    return hashlib.sha256(event.encode()).hexdigest()


def hash_of(previous: str, digest: str) -> str:
    return hashlib.sha256((previous + digest).encode()).hexdigest()


def read_line(line: str) -> tuple[AuditEntry, str]:
    """The entry in a line, and the hash before it. Raises BrokenError."""
    event, found, chain = line.rstrip("\n").rpartition(_CHAIN)
    try:
        fields = msgspec.json.decode(f'{{"number":{chain[:-1]}', type=dict[str, Any])
        number, previous, digest, own = (fields[name] for name in ("number", "previous", "digest", "hash"))
        entry = AuditEntry(int(number), "" if event == '{"forgotten":true' else event + "}", str(digest), str(own))
    except (msgspec.DecodeError, KeyError, ValueError, TypeError):
        raise BrokenError(f"a line is no entry of the trail: {line[:80]!r}") from None
    if not found:
        raise BrokenError(f"a line is no entry of the trail: {line[:80]!r}")
    return entry, str(previous)


def verify(entries: Iterable[AuditEntry], first: str | None = None) -> Iterator[AuditEntry]:
    """Yields the entries, each checked. Raises BrokenError at the first entry that does not fit. `first` is the hash
    before them; None: the first entry is the base, or the beginning of the trail.
    """
    last: AuditEntry | None = None
    for entry in entries:
        if entry.event and digest_of(entry.event) != entry.digest:
            raise BrokenError(f"entry {entry.number} was changed: its event is not that of its digest")
        if last is not None and entry.number != last.number + 1:
            raise BrokenError(f"behind entry {last.number} comes {entry.number}: entries are missing or out of order")
        before = last.hash if last is not None else BEGIN if entry.number == 1 else first
        if before is not None and hash_of(before, entry.digest) != entry.hash:
            raise BrokenError(f"entry {entry.number} does not follow the one before it: its hash is another")
        yield entry
        last = entry


class Trail:
    """The trail in the ledger's database. All methods block, and raise LedgerError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, events: Sequence[Event]) -> None:
        """Append events, in their order. Skips events that an earlier call of unknown outcome has already appended."""
        with self._database.change() as cursor:
            if cursor.dialect is POSTGRESQL:
                cursor.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
            ids = [event.id for event in events]
            known = {id for (id,) in cursor.rows(f"SELECT id FROM audit WHERE id IN ({places(len(ids))})", ids)}
            number, last = _head(cursor)
            rows: list[Sequence[object]] = []
            for event in events:
                if event.id not in known:
                    content = encode(event.fields)
                    digest, number = digest_of(content), number + 1
                    last = hash_of(last, digest)
                    rows.append((number, event.id, micros(event.time), text(event.consumer), content, digest, last))
            if rows:
                cursor.execute_each(f"INSERT INTO audit ({', '.join(_COLUMNS)}) VALUES ({places(len(_COLUMNS))})", rows)

    def latest(self, limit: int, before: int | None = None) -> Sequence[AuditEntry]:
        """Entries before the number `before`, the latest first."""
        wanted, given = ("", ()) if before is None else ("WHERE number < ?", (before,))
        return self._entries(f"{wanted} ORDER BY number DESC LIMIT {limit:d}", given)

    def after(self, number: int, limit: int) -> Sequence[AuditEntry]:
        """The entries after a number, in their order."""
        return self._entries(f"WHERE number > ? ORDER BY number LIMIT {limit:d}", (number,))

    def all(self) -> Iterator[AuditEntry]:
        """All entries, in their order."""
        number = 0
        while page := self.after(number, 1000):
            yield from page
            number = page[-1].number

    def prune(self, before: float) -> None:
        """Delete entries before a time, in epoch seconds, except the last of them, which is the base of the chain."""
        with self._database.change() as cursor:
            last = cursor.value("SELECT max(number) FROM audit WHERE time < ?", (micros(before),))
            if last is not None:
                cursor.execute("DELETE FROM audit WHERE number < ?", (last,))

    def forget(self, consumer: str) -> None:
        """Empty the events of a consumer. Their places in the chain stay."""
        with self._database.change() as cursor:
            cursor.execute("UPDATE audit SET event = '', consumer = '' WHERE consumer = ?", (text(consumer),))

    def _entries(self, rest: str, given: Sequence[object]) -> Sequence[AuditEntry]:
        with self._database.look() as cursor:
            found = cursor.rows(f"SELECT number, event, digest, hash FROM audit {rest}", given)
        return [AuditEntry(*row) for row in found]

    # --- what was sent elsewhere

    def claim(self, sink: str, now: float, until: float) -> tuple[int, str] | None:
        """Claim the sending of the trail to `sink`, until a time. Returns the number and hash of the last entry sent;
        None while another process has the claim.
        """
        with self._database.change() as cursor:
            cursor.execute(
                "INSERT INTO audit_sent (sink, number, hash, claimed) VALUES (?, 0, ?, 0) "
                "ON CONFLICT (sink) DO NOTHING",
                (sink, BEGIN),
            )
            taken = cursor.execute(
                "UPDATE audit_sent SET claimed = ? WHERE sink = ? AND claimed <= ?", (micros(until), sink, micros(now))
            )
            if not taken:
                return None
            [(number, last)] = cursor.rows("SELECT number, hash FROM audit_sent WHERE sink = ?", (sink,))
            return number, last

    def sent(self, sink: str, entry: AuditEntry | None) -> None:
        """Note the last entry sent, and end the claim."""
        with self._database.change() as cursor:
            cursor.execute("UPDATE audit_sent SET claimed = 0 WHERE sink = ?", (sink,))
            if entry is not None:
                cursor.execute(
                    "UPDATE audit_sent SET number = ?, hash = ? WHERE sink = ? AND number < ?",
                    (entry.number, entry.hash, sink, entry.number),
                )


def encode(fields: Mapping[str, Any]) -> str:
    """An event's JSON, as it is stored and hashed. PostgreSQL refuses lone surrogates."""
    try:
        content = _encode(fields).decode()
    except UnicodeEncodeError:
        content = _encode(_storable(fields)).decode()
    if len(content) > MAX_EVENT:
        kept = {name: value for name, value in fields.items() if name != "extproc"}
        content = _encode({**_storable(kept, 256), "extproc": {"cut": text(content, 512)}}).decode()
    return content


def _storable(value: Any, most: int = 4096) -> Any:
    if isinstance(value, str):
        return text(value, most)
    if isinstance(value, Mapping):
        return {text(str(name)): _storable(each, most) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [_storable(each, most) for each in value]
    return value


def _head(cursor: Cursor) -> tuple[int, str]:
    """The number and hash of the last entry."""
    found = cursor.rows("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
    return found[0] if found else (0, BEGIN)
