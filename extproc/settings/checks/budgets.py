"""Contradictions and lints of the budgets. See `checks`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from extproc.money.budgets.bounds import USUAL
from extproc.money.budgets.budget import compile_budget
from extproc.money.budgets.settings import USD
from extproc.routing.catalog import Catalog
from extproc.settings.document import Found
from extproc.upstream.prices import setting_of
from extproc.upstream.prices.fees import unknown_fees
from extproc.words.exchange import Target
from extproc.words.values import Pattern, is_private

if TYPE_CHECKING:
    from extproc.settings.config import Settings


def contradictions(settings: Settings) -> Iterator[Found]:
    """Contradictions: `downgrade_to` names a model that does not exist."""
    known = Catalog({}, settings.models, {})
    for index, budget in enumerate(settings.budgets):
        model = budget.downgrade_to
        if model is not None and model not in settings.virtual_models and known.target(model) is None:
            yield ("budgets", index, "downgrade_to"), f"there is no model {model!r} in models or virtual_models"


def doubts(settings: Settings, catalog: Catalog, consumers: Collection[str] | None) -> Iterator[Found]:
    """Lints: budgets that limit nothing, or less than they seem to. `consumers` are all possible consumers; None:
    unknown.
    """
    targets = [target for name in settings.models if "*" not in name and (target := catalog.target(name)) is not None]
    wild = any("*" in name for name in settings.models)
    known: Mapping[str, Collection[str] | None] = {
        "consumer": None if consumers is None else frozenset(consumers),
        "team": {"", *settings.teams},
        "provider": settings.providers,
        "model": None if wild else {target.name for target in targets},
    }

    @cache  # thousands of budgets may have the same patterns
    def covered(model: str, provider: str) -> tuple[Sequence[str], Sequence[str], Mapping[str, str]]:
        """Models that a budget can apply to: models with an unknown longest answer, models with an unknown price, and
        by setting the first model with calls of unknown price.
        """
        found = list(_covered(Pattern(model), Pattern(provider), targets))
        unlimited = [
            target.name for target in found if not (target.max_output_tokens or target.known_output or target.context)
        ]
        unknown = {kind: target.name for target in reversed(found) for kind in _unknown_fees(settings, target, catalog)}
        return unlimited, [target.name for target in found if target.price is None], unknown

    for index, budget in enumerate(settings.budgets):
        for field, pattern in budget.match.items():
            names = known.get(field)
            if (
                names is not None
                and pattern not in names
                and not ("*" in pattern and any(map(Pattern(pattern), names)))
            ):
                yield ("budgets", index, "match", field), f"there is no {field} {pattern!r}: this budget never applies"
        if budget.store_failure == "allow":
            yield ("budgets", index, "store_failure"), "while the store is down this budget limits nothing"
        url = urlsplit(budget.alert_webhook or "")
        if url.scheme == "http" and not is_private(url.hostname or ""):
            yield (
                ("budgets", index, "alert_webhook"),
                "http:// is not encrypted: others on the network can read the alerts",
            )
        compiled = compile_budget(budget)
        unlimited, unpriced, unknown = covered(budget.match.get("model", "*"), budget.match.get("provider", "*"))
        holds_worst = budget.reserve == "worst" and compiled.counts_tokens and compiled.enforced
        if settings.limits.output_tokens is None and holds_worst and unlimited:
            message = (
                f"the longest answer of {', '.join(map(repr, unlimited[:3]))} is unknown, so requests without a limit "
                f"are capped at {USUAL} tokens: give a `max_output_tokens`"
            )
            yield ("budgets", index, "reserve"), message
        if budget.unit == USD and not compiled.of_tools and unpriced:
            then = "its requests count as free" if settings.unknown_price == "warn" else "it is skipped"
            message = f"the price of {', '.join(map(repr, unpriced[:3]))} is unknown, so {then}: give a `price`"
            yield ("budgets", index), message
        for kind, name in unknown.items() if budget.unit == USD and not compiled.of_tools else ():
            message = f"{kind.replace('_', ' ')} of {name!r} count as free, as only you know their price"
            yield ("budgets", index), f"{message}: give `{setting_of(kind)}` in its `price`"


def _unknown_fees(settings: Settings, target: Target, catalog: Catalog) -> Iterator[str]:
    """Kinds of calls that the provider of a target bills, and that have no price."""
    provider = settings.providers[target.provider].provider.catalogue
    for kind in unknown_fees(provider, target.model, catalog.prices.today):
        if target.price is not None and kind not in target.price.fees:
            yield kind


def _covered(model: Pattern, provider: Pattern, targets: Collection[Target]) -> Iterator[Target]:
    """Models that a budget can apply to. Models behind a wildcard are too many to check."""
    for target in targets:
        if not target.disabled and model(target.name) and provider(target.provider):
            yield target
