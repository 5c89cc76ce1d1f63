"""What is known of models that the settings do not say: context windows and prices.

Source: the snapshot in the genai-prices package, whose entries carry their own sources and dates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache

from genai_prices import types
from genai_prices.data import providers


@dataclass(slots=True, frozen=True)
class Known:
    """What the catalogue says of a model. `price` is USD per million tokens, by kind of token."""

    context: int | None = None
    price: Mapping[str, float] = field(default_factory=dict)


def known_models(provider: str | None) -> Sequence[str]:
    """The ids of the provider's models that are still offered."""
    found = _provider(provider)
    return [] if found is None else [model.id for model in found.models if not model.deprecated]


@lru_cache(maxsize=4096)  # a look-up takes longer than all else that a name costs
def known_model(provider: str | None, model: str) -> Known:
    """What is known of `model` at `provider`; nothing when either is unknown."""
    found = _provider(provider)
    info = found.find_model(model) if found is not None else None
    if info is None:
        return Known()
    prices = info.get_prices(datetime.now(UTC))
    kinds = {"input": prices.input_mtok, "cached_input": prices.cache_read_mtok, "output": prices.output_mtok}
    return Known(info.context_window, {kind: _base(price) for kind, price in kinds.items() if price is not None})


def _base(price: object) -> float:
    """The price of the first tier."""
    return float(price.base if isinstance(price, types.TieredPrices) else price)  # type: ignore[arg-type]


@cache
def _provider(name: str | None) -> types.Provider | None:
    return next((provider for provider in providers if provider.id == name), None)
