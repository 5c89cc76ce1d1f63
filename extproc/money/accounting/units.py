"""Units of budgets, in which all processes that share a counters store have to agree: a count of tokens that is read as
nano-USD refuses everything, or nothing.

Each process tells the others its units every few seconds, on the store's board. One that starts with another unit than
those in which others count does not start, as with any mistake in its settings.
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
    """`names` are units by budget."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._me = uuid.uuid4().hex
        self._others: Mapping[bytes, str] = {}

    async def tell(self, names: Mapping[str, str]) -> None:
        """Tell others the units that this process counts in, and read theirs. Raises StoreError."""
        note = _encode({_digest(name): unit for name, unit in names.items()}) if names else b""
        await self._share(note if len(note) <= MAX_NOTE else b"")

    def differ(self, names: Mapping[str, str]) -> Sequence[str]:
        """The budgets that other processes counted in another unit, when they were read last."""
        return [name for name, unit in names.items() if self._others.get(_digest(name), unit) != unit]

    async def leave(self) -> None:
        """Tell others none, as before the start and after the end, and read theirs. Raises StoreError."""
        await self._share(b"")

    async def _share(self, note: bytes) -> None:
        others: dict[bytes, str] = {}
        for found in read_notes(await self._counters.share(BOARD, self._me, note, STAYS), _decode):
            others |= found
        self._others = others


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest()
