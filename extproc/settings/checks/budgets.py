"""Contradictions and lints of the budgets. See `checks`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from extproc.budgets.bounds import USUAL
from extproc.budgets.budget import compile_budget
from extproc.budgets.settings import USD, BudgetSettings
from extproc.routing.catalog import Catalog
from extproc.words.exchange import Target
from extproc.words.values import Pattern, is_private

if TYPE_CHECKING:
    from extproc.settings.config import Settings

_Doubt = tuple[tuple[str | int, ...], str]


def contradictions(settings: Settings) -> Iterator[_Doubt]:
    """Contradictions: `downgrade_to` names a model that does not exist."""
    known = Catalog({}, settings.models, {})
    for index, budget in enumerate(settings.budgets):
        model = budget.downgrade_to
        if model is not None and model not in settings.virtual_models and known.target(model) is None:
            yield ("budgets", index, "downgrade_to"), f"there is no model {model!r} in models or virtual_models"


def doubts(settings: Settings, catalog: Catalog, consumers: Collection[str] | None) -> Iterator[_Doubt]:
    """Lints: budgets that limit nothing, or less than they seem to. `consumers`: all possible ones; None: unknown."""
    targets = [target for name in settings.models if "*" not in name and (target := catalog.target(name)) is not None]
    wild = any("*" in name for name in settings.models)
    known: Mapping[str, Collection[str] | None] = {
        "consumer": consumers,
        "team": ("", *settings.teams),
        "provider": settings.providers,
        "model": None if wild else [target.name for target in targets],
    }
    for index, budget in enumerate(settings.budgets):
        for field, pattern in budget.match.items():
            names = known.get(field)
            if names is not None and not any(map(Pattern(pattern), names)):
                yield ("budgets", index, "match", field), f"there is no {field} {pattern!r}: this budget never applies"
        if budget.store_failure == "allow":
            yield ("budgets", index, "store_failure"), "while the store is down this budget limits nothing"
        url = urlsplit(budget.alert_webhook or "")
        if url.scheme == "http" and not is_private(url.hostname or ""):
            yield (
                ("budgets", index, "alert_webhook"),
                "http:// is not encrypted: others on the network can read the alerts",
            )
        if settings.limits.output_tokens is None and (unlimited := _unlimited(budget, targets)):
            message = (
                f"the longest answer of {', '.join(map(repr, unlimited[:3]))} is unknown, so requests without a limit "
                f"are capped at {USUAL} tokens: give a `max_output_tokens`"
            )
            yield ("budgets", index, "reserve"), message
        if budget.unit == USD and not compile_budget(budget).of_tools and (unknown := _unpriced(budget, targets)):
            then = "its requests count as free" if settings.unknown_price == "warn" else "it is skipped"
            message = f"the price of {', '.join(map(repr, unknown[:3]))} is unknown, so {then}: give a `price`"
            yield ("budgets", index), message


def _unlimited(budget: BudgetSettings, targets: Collection[Target]) -> list[str]:
    """Models whose longest answer is unknown, under a budget that holds the worst."""
    compiled = compile_budget(budget)
    if budget.reserve != "worst" or not (compiled.counts_tokens and compiled.enforced):
        return []
    return [
        target.name
        for target in _covered(budget, targets)
        if not (target.max_output_tokens or target.known_output or target.context)
    ]


def _unpriced(budget: BudgetSettings, targets: Collection[Target]) -> list[str]:
    """Models of unknown price under a budget in USD. Models behind a wildcard are too many to check."""
    return [target.name for target in _covered(budget, targets) if target.price is None]


def _covered(budget: BudgetSettings, targets: Collection[Target]) -> Iterator[Target]:
    """Models that a budget can apply to."""
    model, provider = (Pattern(budget.match.get(field, "*")) for field in ("model", "provider"))
    for target in targets:
        if not target.disabled and model(target.name) and provider(target.provider):
            yield target
