"""Writes recorded texts to the ledger's database, and deletes old ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from extproc.envoy.server.periodic import BEAT
from extproc.exchange.services import Services
from extproc.money.texts import TextKeys, bytes_of

if TYPE_CHECKING:
    from extproc.money.ledger.ledger import Ledger
    from extproc.settings.config import Settings

_SELDOM, _PRUNE_EVERY = 10.0, 3600.0  # seconds


class TextKeeper:
    """Keeps the texts that a process records, as `settings` say."""

    def __init__(self, services: Services, settings: Callable[[], Settings], ledger: Ledger) -> None:
        self._services = services
        self._settings = settings
        self._ledger = ledger
        self._pruned = 0.0

    def every(self) -> float:
        """Seconds between two turns: seldom where nothing is recorded."""
        return _SELDOM if self._settings().record is None else BEAT

    async def turn(self) -> None:
        """Encrypt and write the texts that wait. Those that cannot be written are dropped. Raises LedgerError."""
        record, now = self._settings().record, self._services.now()
        if taken := self._services.recorder.take():
            written = False
            try:
                if record is not None and (keys := TextKeys(record.keys)).able:
                    await asyncio.to_thread(lambda: self._ledger.texts.add([keys.seal(*one) for one in taken]))
                    written = True
            finally:
                self._services.recorder.size -= bytes_of(taken)
                for _ in taken:
                    self._services.telemetry.texts_recorded("written" if written else "dropped")
        if now - self._pruned > _PRUNE_EVERY:
            keep = 0.0 if record is None else record.keep  # where nothing is recorded any more, nothing is kept
            await asyncio.to_thread(self._ledger.texts.prune, now - keep)
            self._pruned = now
