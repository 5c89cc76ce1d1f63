"""Stages that answer consumers about their spending and results."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.exchange.endpoints.quarantined import Quarantined
from extproc.exchange.endpoints.spending import Own
from extproc.exchange.services import Services
from extproc.settings.config import Settings


def own(settings: Settings, services: Services) -> Sequence[Own | Quarantined]:
    reporter, found = services.reporter, [Quarantined(services.results)] if settings.quarantines else []
    return [*([] if reporter is None else [Own(reporter, settings.budgets, settings.limits.reports)]), *found]
