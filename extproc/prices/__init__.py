"""Prices of models, costs, and the catalogue: context windows and prices that the settings leave out.

Prices become integers when the settings are read: femto-USD (1e-15 USD) for a token, which is exact to nine decimals of
USD per million tokens. The cost of a request is in whole nano-USD, rounded up once.

Source of the catalogue: the snapshot in the genai-prices package, whose entries carry their own sources and dates.
Where a price depends on the hour of the day, the dearest one counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from importlib import metadata

from pydantic import Field

from extproc.prices import _data
from extproc.prices._data import types
from extproc.words.exchange import Price, Usage
from extproc.words.values import ModelName, Pattern, Section

NANO = 10**9
"""Nano-USD in a USD: the unit that money is counted in."""
MOST = 1 << 56
"""Nano-USD, 72 million USD: no request is held or charged more, so that every sum of them can be counted."""

_PER_TOKEN = 10**9  # USD per million tokens -> femto-USD per token
_PER_REQUEST = 10**15  # USD -> femto-USD
_FEMTO = 10**6  # femto-USD in a nano-USD
_DEAREST = 1_000_000

_Rate = float | Decimal


class PriceSettings(Section):
    """The price of a model. It wins over the bundled catalogue."""

    input: float = Field(ge=0, le=_DEAREST, description="Price of input tokens, in USD per million.")
    output: float = Field(ge=0, le=_DEAREST, description="Price of output tokens, in USD per million.")
    cached_input: float | None = Field(
        None,
        ge=0,
        le=_DEAREST,
        description="Price of input tokens read from a prompt cache, in USD per million. Default: `input`.",
    )
    cache_write: float | None = Field(
        None,
        ge=0,
        le=_DEAREST,
        description="Price of input tokens written to a prompt cache, in USD per million. Default: `input`.",
    )
    reasoning: float | None = Field(
        None, ge=0, le=_DEAREST, description="Price of reasoning tokens, in USD per million. Default: `output`."
    )
    per_request: float = Field(
        0, ge=0, le=_DEAREST, description="Price of each request, in USD, in addition to its tokens."
    )

    @property
    def price(self) -> Price:
        return price(
            self.input,
            self.output,
            cached_input=self.cached_input,
            cache_write=self.cache_write,
            reasoning=self.reasoning,
            per_request=self.per_request,
            version=self.version,
        )

    @property
    def version(self) -> str:
        """Origin of a price, as the ledger records it."""
        return "settings"


class DatedPriceSettings(PriceSettings):
    """The price of a model from a day on."""

    model: ModelName = Field(
        description="Pattern of the models: keys of `models`, or names of models at their providers."
    )
    provider: str | None = Field(
        None, description="Provider that the price applies to: a key of `providers`. Default: all."
    )
    since: date = Field(date.min, alias="from", description="First day of the price, in UTC. Default: always.")

    @property
    def version(self) -> str:
        return "settings" if self.since == date.min else f"settings {self.since}"


def price(
    input: _Rate,
    output: _Rate,
    *,
    cached_input: _Rate | None = None,
    cache_write: _Rate | None = None,
    reasoning: _Rate | None = None,
    per_request: _Rate = 0,
    version: str = "",
) -> Price:
    """A price in USD per million tokens (`per_request`: USD), compiled."""
    return Price(
        _whole(input, _PER_TOKEN),
        _whole(output, _PER_TOKEN),
        _whole(input if cached_input is None else cached_input, _PER_TOKEN),
        _whole(input if cache_write is None else cache_write, _PER_TOKEN),
        _whole(output if reasoning is None else reasoning, _PER_TOKEN),
        _whole(per_request, _PER_REQUEST),
        version,
    )


def _whole(value: _Rate, scale: int) -> int:
    return int((Decimal(str(value)) * scale).to_integral_value())


def cost(price: Price, usage: Usage) -> int:
    """Nano-USD, rounded up. Beyond a tier's start all tokens cost that tier's price."""
    rates = at(price, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens)
    cached = min(usage.cached_tokens, usage.input_tokens - written)
    reasoning = min(usage.reasoning_tokens, usage.output_tokens)
    femto = (
        (usage.input_tokens - written - cached) * rates.input
        + cached * rates.cached_input
        + written * rates.cache_write
        + (usage.output_tokens - reasoning) * rates.output
        + reasoning * rates.reasoning
        + rates.per_request
    )
    return min(-(-femto // _FEMTO), MOST)


def bound(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Most nano-USD of a request within these tokens, whatever kind they turn out to be."""
    most = 0
    for rates in (price, *[tier for start, tier in price.tiers if start < input_tokens]):
        input_rate = max(rates.input, rates.cached_input, rates.cache_write)
        output_rate = max(rates.output, rates.reasoning)
        most = max(most, input_tokens * input_rate + output_tokens * output_rate + rates.per_request)
    return min(-(-most // _FEMTO), MOST)


def at(price: Price, input_tokens: int) -> Price:
    """The price for a request of so many input tokens."""
    rates = price
    for start, tier in price.tiers:
        if input_tokens <= start:
            break
        rates = tier
    return rates


def decimal(nano: int) -> str:
    """Nano-USD as a plain decimal number of USD, exactly: `0.0125`, `3`."""
    whole, part = divmod(nano, NANO)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def per_million(price: Price) -> Mapping[str, float]:
    """USD per million tokens by kind, of the first tier."""
    kinds = {"input": price.input, "cached_input": price.cached_input, "output": price.output}
    return {kind: rate / _PER_TOKEN for kind, rate in kinds.items()}


class PriceBook:
    """Finds the price of a model at a provider on one day, UTC."""

    def __init__(self, dated: Sequence[DatedPriceSettings] = (), today: date | None = None) -> None:
        self.today = today or datetime.now(UTC).date()
        begun = [entry for entry in dated if entry.since <= self.today]
        begun.sort(key=lambda entry: (entry.since, len(entry.model)), reverse=True)  # the most specific of one day
        self._dated = [(Pattern(entry.model), entry.provider, entry.price) for entry in begun]

    def find(self, name: str, provider: str, model: str, own: PriceSettings | None, known: Known) -> Price | None:
        """The price of the entry `name` of `models`, which is `model` at `provider`; None when it is unknown."""
        for pattern, where, found in self._dated:
            if where in (None, provider) and (pattern(name) or pattern(model)):
                return found
        return known.price if own is None else own.price


@dataclass(slots=True, frozen=True)
class Known:
    """The catalogue's entry for a model."""

    context: int | None = None
    price: Price | None = None


def hold(names: Collection[str | None]) -> None:
    """Read the entries of these providers of the catalogue at once, which takes less time than one by one."""
    _data.hold(names)


def known_models(provider: str | None) -> Sequence[str]:
    """The ids of the provider's models that are still offered."""
    found = _data.provider(provider)
    return [] if found is None else [model.id for model in found.models if not model.deprecated]


@lru_cache(maxsize=4096)  # a look-up takes longer than everything else about a name
def known_model(provider: str | None, model: str, today: date) -> Known:
    """The catalogue's entry for `model` at `provider` on a day; an empty one when either is unknown."""
    found = _data.provider(provider)
    info = found.find_model(model) if found is not None else None
    return Known() if info is None else Known(info.context_window, _compiled(_prices(info, today)))


def _prices(info: types.ModelInfo, today: date) -> types.ModelPrice:
    """The catalogue's price for that day; the dearest where it changes with the hour."""
    found = [info.get_prices(datetime.combine(today, time(12), UTC))]
    if not isinstance(info.prices, types.ModelPrice):
        found += [part.prices for part in info.prices if isinstance(part.constraint, types.TimeOfDateConstraint)]
    return max(found, key=lambda prices: _base(prices.input_mtok) + _base(prices.output_mtok))


def _compiled(prices: types.ModelPrice) -> Price | None:
    """The compiled price. None without a price of input tokens. Models without output have no price of it."""
    kinds = {
        "input": prices.input_mtok,
        "output": prices.output_mtok or Decimal(),
        "cached_input": prices.cache_read_mtok,
        "cache_write": prices.cache_write_mtok,
        "reasoning": prices.output_reasoning_mtok,
    }
    if kinds["input"] is None:
        return None
    per_request, version = _base(prices.requests_kcount) / 1000, _catalogue()
    given = {kind: value for kind, value in kinds.items() if value is not None}
    tiers = []
    for start in sorted({tier.start for value in given.values() for tier in _tiers(value)}):
        rates = {kind: _at(value, start) for kind, value in given.items()}
        tiers.append((start, price(**rates, per_request=per_request, version=version)))
    rates = {kind: _base(value) for kind, value in given.items()}
    return replace(price(**rates, per_request=per_request, version=version), tiers=tuple(tiers))


@cache
def _catalogue() -> str:
    return f"genai-prices {metadata.version('genai-prices')}"


_CataloguePrice = Decimal | types.TieredPrices | None


def _base(value: _CataloguePrice) -> Decimal:
    """The price of the first tier."""
    return value.base if isinstance(value, types.TieredPrices) else value or Decimal()


def _tiers(value: _CataloguePrice) -> Sequence[types.Tier]:
    return value.tiers if isinstance(value, types.TieredPrices) else ()


def _at(value: _CataloguePrice, start: int) -> Decimal:
    """The price just beyond `start` tokens."""
    return next((tier.price for tier in reversed(_tiers(value)) if tier.start <= start), _base(value))
