"""The stage of budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extproc.exchange.services import Services
from extproc.money.budgets import Reserve
from extproc.routing.catalog import Catalog
from extproc.settings.config import Settings
from extproc.words.exchange import Exchange


def reserve(settings: Settings, services: Services, reroute: Callable[[Exchange, str], None]) -> Reserve:
    """The stage that reserves. `reroute` sends an exchange to another model, for `on_exceed: downgrade`."""
    return Reserve(
        settings.budgets,
        services.counters,
        services.leases,
        settings.limits.output_tokens,
        services.telemetry.budget,
        tools=services.tools,
        reroute=reroute,
        lease=settings.limits.lease,
        now=services.now,
    )


def downgrades(settings: Settings, catalog: Catalog) -> Sequence[str]:
    """The models that budgets downgrade to, and their targets."""
    found: list[str] = []
    for budget in settings.budgets:
        if budget.downgrade_to is not None and (chain := catalog.resolve(budget.downgrade_to)) is not None:
            found += [budget.downgrade_to, *(target.name for target in chain.targets)]
    return found
