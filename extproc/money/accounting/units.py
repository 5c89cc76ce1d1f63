"""Units of budgets. All processes that share a counters store have to agree on them: a count of tokens read as nano-USD
would refuse everything, or nothing.

Each process puts its units on the store's board every few seconds. A process whose unit differs from that of the others
does not start, as with any mistake in its settings.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence

import msgspec

from extproc.stores import MAX_NOTE, Counters, read_notes

BOARD = "units"
STAYS = 10.0
"""Seconds after which a process that was killed is forgotten."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[bytes, str]).decode


class Units:
    """The units of one process. `names` are units by budget."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._me = uuid.uuid4().hex
        self._others: Mapping[bytes, str] = {}

    async def tell(self, names: Mapping[str, str]) -> None:
        """Publish the units of this process, and read those of the others. Raises StoreError."""
        note = _encode({_digest(name): unit for name, unit in names.items()}) if names else b""
        await self._share(note if len(note) <= MAX_NOTE else b"")

    def differ(self, names: Mapping[str, str]) -> Sequence[str]:
        """The budgets for which another process had another unit at the latest reading."""
        return [name for name, unit in names.items() if self._others.get(_digest(name), unit) != unit]

    async def leave(self) -> None:
        """Withdraw the units of this process, before its start and after its end, and read those of the others. Raises
        StoreError.
        """
        await self._share(b"")

    async def _share(self, note: bytes) -> None:
        others: dict[bytes, str] = {}
        for found in read_notes(await self._counters.share(BOARD, self._me, note, STAYS), _decode):
            others |= found
        self._others = others


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest()
