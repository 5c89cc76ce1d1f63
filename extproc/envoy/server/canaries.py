"""Looks at the canaries of the settings, and tells operators of one that stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from extproc.envoy.server.periodic import BEAT
from extproc.exchange.services import Services
from extproc.money.ledger.comparing import CompareQuery
from extproc.operate.telemetry import audit
from extproc.routing.canary import CanarySettings, Trial

if TYPE_CHECKING:
    from extproc.money.ledger.ledger import Ledger
    from extproc.settings.config import Settings

_SELDOM = 10.0  # seconds
EVERY = 5.0
"""Seconds between two looks at the evidence."""
log = logging.getLogger(__name__)


class CanaryKeeper:
    """Keeps the trials of the canaries in `settings`, with the rows of `ledger` as evidence."""

    def __init__(self, services: Services, settings: Callable[[], Settings], ledger: Ledger) -> None:
        self._services = services
        self._settings = settings
        self._ledger = ledger

    def every(self) -> float:
        """Seconds between two refreshes: seldom where nothing is on trial."""
        return BEAT if self._wanted() else _SELDOM

    async def refresh(self) -> None:
        """Learn what other processes stopped. Raises StoreError."""
        if self._wanted():
            await self._services.canaries.refresh()

    async def turn(self) -> None:
        """Stop canaries that are worse than what they are compared with. Raises StoreError, LedgerError."""
        if wanted := self._wanted():
            await self._services.canaries.look(wanted, self._compare, told=self._tell)

    def _wanted(self) -> Mapping[str, CanarySettings]:
        virtual_models = self._settings().virtual_models.items()
        return {name: virtual.canary for name, virtual in virtual_models if virtual.canary is not None}

    async def _compare(self, trial: Trial) -> Mapping[str, Any]:
        start, end = (datetime.fromtimestamp(at, UTC) for at in (trial.begun, self._services.now()))
        query = CompareQuery(trial.against, trial.target, start, end, filters={"model": [trial.model]})
        return await asyncio.to_thread(self._ledger.compare, query)

    def _tell(self, trial: Trial) -> None:
        detail = {"model": trial.model, "target": trial.target, "trial": trial.number, "reason": trial.reason}
        self._services.telemetry.canaries_stopped(trial.model, trial.target)
        self._services.audit_events.add(audit.act("gateway", "gateway", "stop_canary", detail, trial.stopped))
        log.warning("canary %s of %s has stopped: %s", trial.target, trial.model, trial.reason)
