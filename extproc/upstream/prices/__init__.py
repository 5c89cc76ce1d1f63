"""Prices of models, costs, and the catalogue: context windows and prices that the settings leave out.

Prices become integers when the settings are read: femto-USD (1e-15 USD) for a token, which is exact to nine decimals of
USD per million tokens. The cost of a request is in whole nano-USD, rounded up once.

Source of the catalogue: the snapshot in the genai-prices package, whose entries carry their own sources and dates.
Where a price depends on the hour of the day, the dearest one counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from importlib import metadata
from typing import Annotated, Any

from pydantic import Field

from extproc.upstream.prices import _data
from extproc.upstream.prices._data import types
from extproc.upstream.prices.fees import CHECKED, known_fees, known_image
from extproc.words.exchange import Kinds, Price, Usage
from extproc.words.values import ModelName, Pattern, Section

NANO = 10**9
"""Nano-USD in a USD. Money is counted in nano-USD."""
MOST = 1 << 56
"""Nano-USD, 72 million USD: no request is held or charged more, so that every sum of them can be counted."""

_PER_TOKEN = 10**9  # USD per million tokens -> femto-USD per token
_PER_REQUEST = 10**15  # USD -> femto-USD
CALLS = ("searches", "file_searches", "fetches", "maps", "sessions")
"""Kinds that count calls of tools which the provider runs itself."""
_SCALES: Mapping[str, int] = {"seconds": 10**15 // 3600, "images": _PER_REQUEST, "pages": _PER_REQUEST}
"""Factors from a price in the settings to femto-USD a unit, for kinds that are not priced per million units. Seconds of
audio are priced in USD an hour, images and pages in USD each.
"""
_FEMTO = 10**6  # femto-USD in a nano-USD
_DEAREST = 1_000_000

_Rate = float | Decimal
_PRICED = (
    *("audio_input", "audio_cached", "audio_output", "image_input", "image_output", "cache_write_1h"),
    *("seconds", "characters", "images", "pages"),
)
"""Kinds that settings can price."""


def _rate(description: str, alias: str | None = None) -> Any:
    return Field(None, ge=0, le=_DEAREST, alias=alias, description=description)


class PriceSettings(Section):
    """The price of a model. It wins over the bundled catalogue."""

    input: float = Field(ge=0, le=_DEAREST, description="Price of input tokens, in USD per million.")
    output: float = Field(ge=0, le=_DEAREST, description="Price of output tokens, in USD per million.")
    cached_input: float | None = _rate(
        "Price of input tokens read from a prompt cache, in USD per million. Default: `input`."
    )
    cache_write: float | None = _rate(
        "Price of input tokens written to a prompt cache, in USD per million. Default: `input`."
    )
    reasoning: float | None = _rate("Price of reasoning tokens, in USD per million. Default: `output`.")
    audio_input: float | None = _rate("Price of audio in the input, in USD per million tokens. Default: `input`.")
    audio_cached: float | None = _rate(
        "Price of audio read from a prompt cache, in USD per million tokens. Default: `cached_input`."
    )
    audio_output: float | None = _rate("Price of audio that is answered, in USD per million. Default: `output`.")
    image_input: float | None = _rate("Price of images in the input, in USD per million. Default: `input`.")
    image_output: float | None = _rate("Price of images that are answered, in USD per million. Default: `output`.")
    cache_write_1h: float | None = _rate(
        "Price of input tokens that a prompt cache keeps for an hour, in USD per million. Default: `cache_write`."
    )
    seconds: float | None = _rate(
        "Price of an hour of audio in the input, in USD, in addition to its tokens. For transcriptions.", "audio_hour"
    )
    characters: float | None = _rate(
        "Price of characters in the input, in USD per million, in addition to its tokens. For speech."
    )
    images: float | None = _rate("Price of an image that is answered, in USD, in addition to its tokens.", "image")
    image_sizes: dict[str, Annotated[float, Field(ge=0, le=_DEAREST)]] = Field(
        {},
        description="Prices of an image that is answered, in USD, by its size, its quality or both, as requests name "
        "them: `1024x1024`, `hd`, `hd/1024x1792`. Both go before the size, the size before the quality, all before "
        "`image`.",
    )
    pages: float | None = _rate("Price of a page of a document that is read, in USD. For `/v1/ocr`.", "page")
    annotated_page: float | None = _rate("Price of a page that is read and annotated, in USD. Default: `page`.")
    searches: float | None = _rate(
        "Price of a search of the web that the provider runs, in USD. Default: the catalogue's.", "search"
    )
    file_searches: float | None = _rate(
        "Price of a search of files that the provider keeps, in USD. Default: the catalogue's.", "file_search"
    )
    fetches: float | None = _rate(
        "Price of a page of the web that the provider reads, in USD. Default: the catalogue's.", "fetch"
    )
    maps: float | None = _rate("Price of an answer grounded in maps, in USD. Default: the catalogue's.", "map")
    sessions: float | None = _rate(
        "Price of a container in which the provider runs code, in USD; at OpenAI of each gigabyte of it. Default: the "
        "catalogue's.",
        "session",
    )
    per_request: float = Field(
        0, ge=0, le=_DEAREST, description="Price of each request, in USD, in addition to its tokens."
    )

    @property
    def price(self) -> Price:
        found = price(
            self.input,
            self.output,
            cached_input=self.cached_input,
            cache_write=self.cache_write,
            reasoning=self.reasoning,
            per_request=self.per_request,
            version=self.version,
            kinds={name: value for name in _PRICED if (value := getattr(self, name)) is not None},
            fees={name: value for name in CALLS if (value := getattr(self, name)) is not None},
        )
        sizes = {f"{option}={size}": usd for size, usd in self.image_sizes.items() for option in _SIZED["/" in size]}
        annotated = {} if self.annotated_page is None else {"pages=annotated": self.annotated_page}
        return with_units(found, images=sizes, pages=annotated)

    @property
    def version(self) -> str:
        """Origin of a price, as the ledger records it."""
        return "settings"


def setting_of(kind: str) -> str:
    """The name of the setting that has the price of a field of `Kinds`."""
    return PriceSettings.model_fields[kind].alias or kind


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
    kinds: Mapping[str, _Rate] | None = None,
    fees: Mapping[str, _Rate] | None = None,
) -> Price:
    """A price, compiled from USD per million tokens (`per_request` and `fees` from USD). `kinds` and `fees` hold prices
    by the fields of `Kinds`.
    """
    found = Price(
        _whole(input, _PER_TOKEN),
        _whole(output, _PER_TOKEN),
        _whole(input if cached_input is None else cached_input, _PER_TOKEN),
        _whole(input if cache_write is None else cache_write, _PER_TOKEN),
        _whole(output if reasoning is None else reasoning, _PER_TOKEN),
        _whole(per_request, _PER_REQUEST),
        version,
        fees={name: _whole(rate, _PER_REQUEST) for name, rate in (fees or {}).items()},
    )
    return replace(found, kinds=_kinds(found, kinds, cached=cached_input is not None)) if kinds else found


def _kinds(price: Price, given: Mapping[str, _Rate], *, cached: bool) -> Kinds:
    """The prices of all kinds. A kind without a price costs as much as text. `cached` False: the cache has no price, so
    a cached kind costs as much as the uncached one.
    """
    rates = {name: _whole(rate, _SCALES.get(name, _PER_TOKEN)) for name, rate in given.items()}
    fallback = {"input": price.input, "cached": price.cached_input, "output": price.output, "1h": price.cache_write}
    for name in (*_INPUT_KINDS, *_OUTPUT_KINDS):
        kind, _, part = name.rpartition("_")
        alike = f"{kind}_input" if part == "cached" and not cached else ""
        rates.setdefault(name, rates.get(alike, fallback[part]))
    return Kinds(**rates)


_SIZED = (("quality", "size"), ("image",))
"""Options of an image by a part of them, and by both."""


def with_units(found: Price, **units: Mapping[str, _Rate]) -> Price:
    """A price with prices of units such as images: USD by field of `Kinds`, and by `option=value` or "" for the usual
    one.
    """
    variants = dict(found.variants)
    for unit, given in units.items():
        for option, usd in sorted(given.items()):  # the usual one first
            kinds = replace(found.kinds or _kinds(found, {}, cached=True), **{unit: _whole(usd, _SCALES[unit])})
            if option:
                variants[option] = replace(found, kinds=kinds)
            else:
                found = replace(found, kinds=kinds)
    return replace(found, variants=variants)


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
    if usage.kinds is not None:
        if rates.kinds is not None:
            femto += _difference(usage.kinds, rates, usage.input_tokens - written - cached, written)
        if price.fees:
            femto += sum([getattr(usage.kinds, name) * fee for name, fee in price.fees.items()])
    return min(-(-femto // _FEMTO), MOST)


def prompt_cache(price: Price, usage: Usage) -> tuple[int, int]:
    """Nano-USD saved by tokens read from the provider's prompt cache against plain input, and extra nano-USD for tokens
    written to it. Only text counts, because other kinds have their own discounts.
    """
    rates = at(price, usage.input_tokens)
    saved = usage.cached_tokens * max(0, rates.input - rates.cached_input)
    extra = usage.cache_write_tokens * max(0, rates.cache_write - rates.input)
    return saved // _FEMTO, -(-extra // _FEMTO)


def _difference(tokens: Kinds, rates: Price, plain: int, written: int) -> int:
    """The extra cost of `tokens` above the price of text. `plain` are the tokens of input that no cache read
    or wrote.
    """
    kinds = rates.kinds
    assert kinds is not None, "asked before"
    femto = tokens.seconds * kinds.seconds + tokens.characters * kinds.characters
    femto += tokens.images * kinds.images + tokens.pages * kinds.pages
    for of_input, of_cached, rate, cached_rate in (
        (tokens.audio_input, tokens.audio_cached, kinds.audio_input, kinds.audio_cached),
        (tokens.image_input, tokens.image_cached, kinds.image_input, kinds.image_cached),
        (tokens.video_input, 0, kinds.video_input, 0),
    ):
        fresh = min(max(0, of_input - of_cached), plain)
        plain -= fresh
        femto += fresh * (rate - rates.input) + of_cached * (cached_rate - rates.cached_input)
    femto += min(tokens.cache_write_1h, written) * (kinds.cache_write_1h - rates.cache_write)
    femto += tokens.audio_output * (kinds.audio_output - rates.output)
    femto += tokens.image_output * (kinds.image_output - rates.output)
    return femto + tokens.video_output * (kinds.video_output - rates.output)


_INPUT_KINDS = ("audio_input", "audio_cached", "image_input", "image_cached", "video_input", "cache_write_1h")
_OUTPUT_KINDS = ("audio_output", "image_output", "video_output")
ALL_KINDS = frozenset((*_INPUT_KINDS, *_OUTPUT_KINDS))


NO_UNITS: Mapping[str, int] = {}
NO_OPTIONS: Mapping[str, str] = {}


def bound(
    price: Price,
    input_tokens: int,
    output_tokens: int,
    possible: Collection[str] = ALL_KINDS,
    units: Mapping[str, int] = NO_UNITS,
) -> int:
    """Most nano-USD of a request with at most these tokens, of any kind: text, thinking, read from or written to a
    cache, and those of `Kinds` that are `possible`. `units` are upper bounds of units that are not tokens.
    """
    most = 0
    for rates in (price, *[tier for start, tier in price.tiers if start < input_tokens]):
        input_rate = max(rates.input, rates.cached_input, rates.cache_write)
        output_rate = max(rates.output, rates.reasoning)
        if (kinds := rates.kinds) is not None:
            input_rate = max(input_rate, *[getattr(kinds, name) for name in _INPUT_KINDS if name in possible], 0)
            output_rate = max(output_rate, *[getattr(kinds, name) for name in _OUTPUT_KINDS if name in possible], 0)
        beside = sum(count * _fee(price, rates, name) for name, count in units.items())
        most = max(most, input_tokens * input_rate + output_tokens * output_rate + rates.per_request + beside)
    return min(-(-most // _FEMTO), MOST)


def _fee(price: Price, rates: Price, name: str) -> int:
    """Femto-USD of one unit that is not a token."""
    fee: int = price.fees.get(name, 0) or getattr(rates.kinds, name, 0)
    return fee


def at(price: Price, input_tokens: int) -> Price:
    """The price for a request, by its number of input tokens."""
    rates = price
    for start, tier in price.tiers:
        if input_tokens <= start:
            break
        rates = tier
    return rates


def decimal(nano: int) -> str:
    """Nano-USD as a plain decimal number of USD, exactly: `0.0125`, `3`."""
    whole, part = divmod(abs(nano), NANO)
    return f"{'-' * (nano < 0)}{whole}.{part:09d}".rstrip("0").rstrip(".")


def per_million(price: Price) -> Mapping[str, float]:
    """USD per million tokens by kind, in the first tier."""
    kinds = {"input": price.input, "cached_input": price.cached_input, "output": price.output}
    return {kind: rate / _PER_TOKEN for kind, rate in kinds.items()}


def is_priced(price: Price, option: str, value: str) -> bool:
    """True when a request with that option has a price of its own."""
    name = f"{option}={value}"
    return name in price.variants or name in price.factors


def with_options(price: Price, options: Mapping[str, str]) -> Price:
    """The price of a request with these options, as far as the options have prices."""
    names = [f"{option}={value}" for option, value in options.items()]
    found, factor = price, _WHOLE
    for name in names:
        if name in price.factors:
            factor = -(-factor * price.factors[name] // _WHOLE)
        else:
            found = price.variants.get(name, found)
    if found is not price and price.fees:
        found = replace(found, fees=price.fees)
    return found if factor == _WHOLE else _scaled(found, factor)


def _scaled(price: Price, factor: int) -> Price:
    rates = {name: -(-getattr(price, name) * factor // _WHOLE) for name in _RATES}
    kinds = price.kinds and Kinds(*[-(-rate * factor // _WHOLE) for rate in astuple(price.kinds)])
    tiers = tuple([(start, _scaled(tier, factor)) for start, tier in price.tiers])
    return replace(price, **rates, kinds=kinds, tiers=tiers, variants={}, factors={})


def for_batch(price: Price, options: Mapping[str, str] = NO_OPTIONS) -> Price:
    """The price of a request in a batch, with these options as far as they have batch prices: from the settings or the
    catalogue, else half of the plain price, as OpenAI, Azure, Anthropic, Google and Amazon bill it.

    Sources: https://developers.openai.com/api/docs/guides/batch,
    https://learn.microsoft.com/en-us/azure/ai-foundry/openai/how-to/batch,
    https://platform.claude.com/docs/en/build-with-claude/batch-processing,
    https://ai.google.dev/gemini-api/docs/batch-api, https://aws.amazon.com/bedrock/pricing/
    """
    if is_priced(price, _PROCESSING, _BATCH):
        return with_options(price, {**options, _PROCESSING: _BATCH})
    return _scaled(with_options(price, options), _WHOLE // 2)


_PROCESSING, _BATCH = "processing", "batch"
_WHOLE = 1000
_RATES = ("input", "output", "cached_input", "cache_write", "reasoning")


class PriceBook:
    """Finds the price of a model at a provider on one day, UTC. `surcharges` are factors by option, `field=value`."""

    def __init__(
        self,
        dated: Sequence[DatedPriceSettings] = (),
        today: date | None = None,
        surcharges: Mapping[str, float] | None = None,
    ) -> None:
        self._factors = {option: round(factor * _WHOLE) for option, factor in (surcharges or {}).items()}
        self.today = today or datetime.now(UTC).date()
        begun = [entry for entry in dated if entry.since <= self.today]
        begun.sort(key=lambda entry: (entry.since, len(entry.model)), reverse=True)  # in a day the most specific first
        self._dated = [(Pattern(entry.model), entry.provider, entry.price) for entry in begun]

    def find(self, name: str, provider: str, model: str, own: PriceSettings | None, known: Known) -> Price | None:
        """The price of the entry `name` of `models`, which is `model` at `provider`; None when unknown."""
        found = self._find(name, provider, model, own, known)
        if found is None:
            return None
        fees = {**known.fees, **found.fees}
        return replace(found, factors=self._factors, fees=fees) if self._factors or fees != found.fees else found

    def _find(self, name: str, provider: str, model: str, own: PriceSettings | None, known: Known) -> Price | None:
        for pattern, where, found in self._dated:
            if where in (None, provider) and (pattern(name) or pattern(model)):
                return found
        return known.price if own is None else own.price


@dataclass(slots=True, frozen=True)
class Known:
    """The catalogue's entry for a model."""

    context: int | None = None
    price: Price | None = None
    fees: Mapping[str, int] = field(default_factory=dict)  # like `Price.fees`; also for models without a price


def preload(names: Collection[str | None]) -> None:
    """Read the catalogue's entries of these providers together, which is faster than one by one."""
    _data.preload(names)


def known_models(provider: str | None) -> Sequence[str]:
    """The ids of the provider's models that are still offered."""
    found = _data.provider(provider)
    return [] if found is None else [model.id for model in found.models if not model.deprecated]


@lru_cache(maxsize=4096)  # the look-up is the slowest step of resolving a name
def known_model(provider: str | None, model: str, today: date) -> Known:
    """The catalogue's entry for `model` at `provider` on a day; an empty entry when either is unknown."""
    found = _data.provider(provider)
    info = found.find_model(model) if found is not None else None
    if provider == "openai" and model.startswith(FREE):
        return Known(None, replace(_NOTHING, version=_catalogue()))
    fees = {name: _whole(fee, _PER_REQUEST) for name, fee in known_fees(provider, model, today).items()}
    image, by_image = known_image(provider, model, today), None
    if image is not None:
        by_image = with_units(replace(_NOTHING, version=f"fees {CHECKED}", fees=fees), images={"": image})
    if info is None:
        return Known(price=by_image, fees=fees)
    prices = _prices(info, today)
    told = {name: getattr(prices, theirs) for name, theirs in _FEES.items()}
    fees |= {name: _whole(_base(fee) / 1000, _PER_REQUEST) for name, fee in told.items() if fee is not None}
    price = _compiled(prices)
    if price is not None:
        price = replace(price, variants={**_variants(info, today), **price.variants}, fees=fees)
    return Known(info.context_window, price or by_image, fees)


FREE = ("omni-moderation-", "text-moderation-")
"""OpenAI's models that cost nothing: https://platform.openai.com/docs/guides/moderation"""
_NOTHING = Price(0, 0, 0, 0, 0)

_NO_OPTIONS = ("route",)
"""Conditions of prices in the catalogue that are neither fields of a request nor `processing`, see `for_batch`."""


def _variants(info: types.ModelInfo, today: date) -> Mapping[str, Price]:
    """The prices of all options with a price on that day, by `option=value`."""
    noon = datetime.combine(today, time(12), UTC)
    found = {}
    for variant in info.price_variants or ():
        if len(variant.when) == 1 and (variant.constraint is None or variant.constraint.active(noon)):
            [(option, value)] = variant.when.items()
            price = _compiled(info.get_prices(noon, variant.when)) if option not in _NO_OPTIONS else None
            if price is not None:
                found[f"{option}={value}"] = price
    return found


def _prices(info: types.ModelInfo, today: date) -> types.ModelPrice:
    """The catalogue's price for that day; the dearest one if it changes with the hour."""
    found = [info.get_prices(datetime.combine(today, time(12), UTC))]
    if not isinstance(info.prices, types.ModelPrice):
        found += [part.prices for part in info.prices if isinstance(part.constraint, types.TimeOfDateConstraint)]
    return max(found, key=lambda prices: _base(prices.input_mtok) + _base(prices.output_mtok))


def _compiled(prices: types.ModelPrice) -> Price | None:
    """The compiled price; None without a price of input tokens. A model without output has no price of output."""
    kinds = {
        "input": prices.input_mtok,
        "output": prices.output_mtok or Decimal(),
        "cached_input": prices.cache_read_mtok,
        "cache_write": prices.cache_write_mtok,
        "reasoning": prices.output_reasoning_mtok,
    }
    if kinds["input"] is None:
        if all(getattr(prices, name) is None for name in (*_UNITS.values(), *_PAGES.values())):
            return None
        kinds["input"] = Decimal()
    per_request, version = _base(prices.requests_kcount) / 1000, _catalogue()
    given = {kind: value for kind, value in kinds.items() if value is not None}
    more = {
        kind: value for kind, name in {**_CATALOGUED, **_UNITS}.items() if (value := getattr(prices, name)) is not None
    }
    tiers = []
    for start in sorted({tier.start for value in (*given.values(), *more.values()) for tier in _tiers(value)}):
        rates = {kind: _at(value, start) for kind, value in given.items()}
        apart = {kind: _at(value, start) for kind, value in more.items()}
        tiers.append((start, price(**rates, per_request=per_request, version=version, kinds=apart, fees=None)))
    rates = {kind: _base(value) for kind, value in given.items()}
    apart = {kind: _base(value) for kind, value in more.items()}
    found = price(**rates, per_request=per_request, version=version, kinds=apart, fees=None)
    pages = {option: _base(usd) / 1000 for option, name in _PAGES.items() if (usd := getattr(prices, name)) is not None}
    return with_units(replace(found, tiers=tuple(tiers)), pages=pages)


_CATALOGUED: Mapping[str, str] = {
    "audio_input": "input_audio_mtok",
    "audio_cached": "cache_audio_read_mtok",
    "image_input": "input_image_mtok",
    "image_cached": "cache_image_read_mtok",
    "video_input": "input_video_mtok",
    "audio_output": "output_audio_mtok",
    "image_output": "output_image_mtok",
    "video_output": "output_video_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
"""The catalogue's name of each kind's price."""
_FEES: Mapping[str, str] = {"searches": "web_searches_kcount", "file_searches": "storage_searches_kcount"}
"""The catalogue's name of each call's fee, for a thousand calls."""
_UNITS: Mapping[str, str] = {"seconds": "input_audio_hours", "characters": "input_mchars"}
"""The catalogue's names of units whose models may have no price of tokens."""
_PAGES: Mapping[str, str] = {"": "input_document_kpages", "pages=annotated": "input_annotated_document_kpages"}
"""The catalogue's names of the price of a thousand pages, by option."""


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
