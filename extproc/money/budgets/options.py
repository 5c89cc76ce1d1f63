"""Options of a request that change its price, such as a service tier: `Fields.options` names their fields.

An option with its own price, in the catalogue or in the settings, is held and charged at that price. An option without
one is removed from requests under a budget in USD, so that no hold is below the cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from extproc.dialects import FREE_OPTIONS
from extproc.routing.parameters import apply
from extproc.upstream import prices
from extproc.words.dialect import Report
from extproc.words.exchange import Exchange, Kinds, Price, Target

_CAPITAL = re.compile(r"([A-Z])")


def asked(exchange: Exchange, target: Target) -> Mapping[str, str]:
    """The options of the request for `target`, without options that never raise the price."""
    names = exchange.request.dialect.fields.options
    if not names:
        return {}
    body = exchange.request.json
    found = {name: body[name] for name in names if name in body and name not in exchange.request.ignored}
    if target.changes:
        fields, removed = apply(target.changes, body, None)
        found = {name: value for name, value in {**found, **fields}.items() if name in names and name not in removed}
    return {name: str(value) for name, value in found.items() if value is not None and str(value) not in FREE_OPTIONS}


def _options(exchange: Exchange, target: Target) -> Mapping[str, str]:
    """The options `asked`, renamed as prices name them, and those of units such as images."""
    found = {_option(name): value for name, value in asked(exchange, target).items()}
    return {**found, **exchange.request.ask.unit_options}


def _option(field: str) -> str:
    """The name of an option in prices: the field's in OpenAI's spelling."""
    return _CAPITAL.sub(r"_\1", field).lower()


def unpriced(exchange: Exchange, target: Target) -> Sequence[str]:
    """The fields of the client's options that have no price at `target`."""
    price = target.price
    if price is None:
        return ()
    options = asked(exchange, target).items()
    return [name for name, value in options if not prices.is_priced(price, _option(name), value)]


def dearest(exchange: Exchange, target: Target) -> Price | None:
    """The price to hold: the higher of the prices with and without the options."""
    price = target.price
    if price is not None and exchange.request.ask.batch:
        return prices.for_batch(price)
    if price is None or not (options := _options(exchange, target)):
        return price
    found = prices.with_options(price, options)
    return max(price, found, key=_height)


def _height(price: Price) -> tuple[int, int]:
    kinds = price.kinds or Kinds()
    return price.input + price.output, kinds.images + kinds.pages


def charged_options(exchange: Exchange, target: Target, report: Report | None) -> Mapping[str, str]:
    """The options to charge. The answer's value of an option wins over the request's; only the answer can lower the
    price.
    """
    told = {} if report is None else report.options
    request = exchange.request
    if not (told or request.ask.unit_options) and not (request.dialect.fields.options and request.json):
        return {}
    return {**_options(exchange, target), **told}
