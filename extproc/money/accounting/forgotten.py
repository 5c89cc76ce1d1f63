"""Consumers that an operator has forgotten: every process drops its remembered exchanges of these consumers.

A process that forgets puts a note on the counters store's board, without the name. Each process reads the board every
few seconds. At the first sight of a note it drops the consumer's exchanges.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from extproc.stores import Counters, read_notes

BOARD = "forgotten"
STAYS = 600.0
"""Seconds for which a note stays. If the store is away for longer, other processes keep the exchanges that they
remember.
"""

_encode = msgspec.msgpack.Encoder().encode


class _Note(msgspec.Struct, array_like=True, frozen=True):
    id: str
    consumer: str  # digest of the consumer's name


_decode = msgspec.msgpack.Decoder(_Note).decode


class Forgotten:
    """Forgets consumers. `drop` forgets matching exchanges, as `Recent.drop` does. Used on the event loop."""

    def __init__(self, counters: Counters, drop: Callable[[Callable[[Mapping[str, Any]], bool]], None]) -> None:
        self._counters = counters
        self._drop = drop
        self._seen: set[str] = set()  # ids of the notes on the board

    async def add(self, consumer: str) -> None:
        """Forget a consumer in this process, and within seconds in all others. Raises StoreError: then no other process
        forgets it.
        """
        note = _Note(uuid.uuid4().hex, _digest(consumer))
        self._forget({note.consumer})
        await self._counters.share(BOARD, note.id, _encode(note), STAYS)

    async def refresh(self) -> None:
        """Read the board. Raises StoreError."""
        notes = list(read_notes(await self._counters.share(BOARD, "", b"", 1.0), _decode))
        if new := {note.consumer for note in notes if note.id not in self._seen}:
            self._forget(new)
        self._seen = {note.id for note in notes}

    def _forget(self, digests: set[str]) -> None:
        self._drop(lambda entry: bool(name := entry.get("consumer")) and _digest(str(name)) in digests)


def _digest(consumer: str) -> str:
    return hashlib.blake2b(consumer.encode(errors="replace"), digest_size=16).hexdigest()
