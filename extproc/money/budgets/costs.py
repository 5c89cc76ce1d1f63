"""The cost of an answer: the cost that its provider reports, else the price of the model that answered.

A router may serve another model than the requested one, at that model's price. Some providers report the cost, with
fees and discounts that no table of prices has.
"""

from __future__ import annotations

from collections.abc import Callable

from extproc.dialects._models import searches
from extproc.money.budgets.options import charged_options
from extproc.upstream import prices
from extproc.words.exchange import Exchange, Price, Target, Usage

TOLD = "provider"
"""The origin of a cost that the provider reported, in place of a price's version."""
_DEAREST_INPUT, _DEAREST_OUTPUT = 150_000, 600_000
"""Nano-USD of a token at the dearest model that was ever sold by the token: o1-pro, 150 and 600 USD per million.
Source: https://platform.openai.com/docs/pricing
"""
_FEE = prices.NANO // 20
"""Most that a provider charges for a request beside its tokens, such as one search."""
_HOSTED_FEE = prices.NANO
"""Most nano-USD that a provider charges for each image it draws, and for all searches and code that it runs in one
answer.
"""


def charged(exchange: Exchange) -> Price | None:
    """The price to charge: of the model that answered, at the target that served, with the options applied. None:
    unknown.
    """
    target, report = exchange.answer.target, exchange.answer.report
    if target is None:
        return None
    price = target.price if report is None else price_of_answer(target, report.model)
    return _with_options(price, exchange, target)


def price_of_answer(target: Target, model: str) -> Price | None:
    """The price of an answer at `target` that names this model. An agreed price of the target is kept."""
    return target.price if target.price is not None and target.price.is_from_settings else price_of(target, model)


def _with_options(price: Price | None, exchange: Exchange, target: Target) -> Price | None:
    if price is not None and exchange.request.ask.batch:
        return prices.for_batch(price)
    if price is None or not (options := charged_options(exchange, target, exchange.answer.report)):
        return price
    return prices.with_options(price, options)


def cost_of(exchange: Exchange, usage: Usage) -> tuple[int | None, str]:
    """Nano-USD of an answer with that usage, None when the price is unknown; and the amount's origin, the price's
    version or `TOLD`.
    """
    cost = _reported_cost(exchange, usage)
    if cost is not None and cost <= _most(exchange, usage):
        return cost, TOLD
    target, price = exchange.answer.target, charged(exchange)
    if price is None or target is None:
        return None, ""
    cost = sum_of(usage, price, lambda model: _with_options(price_of(target, model), exchange, target))
    return cost, price.version


def sum_of(usage: Usage, price: Price, of_share: Callable[[str], Price | None]) -> int:
    """Nano-USD of a usage: at the price of the model that answered, with the shares of further models at their own
    prices.
    """
    cost = prices.cost(price, usage.own)
    for model, part in (usage.shares or {}).items():
        cost += prices.cost(of_share(model) or price, part)
    return min(cost, prices.MOST)


def price_of(target: Target, model: str) -> Price | None:
    """The price of a further model that answers beside `target`, or draws for it; if unknown, the price of `target`."""
    if model in ("", target.model) or target.price_as is None:
        return target.price
    return target.price_as(model) or target.price


def is_beyond_belief(exchange: Exchange, usage: Usage) -> bool:
    """True where the provider reported a cost that no answer with that usage can have caused."""
    cost = _reported_cost(exchange, usage)
    return cost is not None and cost > _most(exchange, usage)


def is_by_the_picture(exchange: Exchange) -> bool:
    """True where the provider reports the cost of its pictures in place of their tokens, as xAI does."""
    target = exchange.answer.target
    return bool(target is not None and target.tells_cost and "images" in exchange.request.ask.units)


def is_of_other(exchange: Exchange) -> bool:
    """True for an exchange that was charged at the price of another model than the target's."""
    target, version = exchange.answer.target, exchange.money.price_version
    own = target.price.version if target is not None and target.price is not None else ""
    return version not in ("", TOLD, own)


def _reported_cost(exchange: Exchange, usage: Usage) -> int | None:
    """The cost that the provider reported beside its own counts; None without such a field."""
    target = exchange.answer.target
    return usage.cost if target is not None and target.tells_cost and usage.source == "provider" else None


def _most(exchange: Exchange, usage: Usage) -> int:
    """The most nano-USD that an answer with that usage can have caused, whichever model a router chose."""
    ask, target = exchange.request.ask, exchange.answer.target
    hosted = bool(ask.hosted) or (target is not None and searches(target.model))
    drawn = ask.units.get("images", 0) + (usage.kinds is not None and bool(usage.kinds.image_output))
    fees = _FEE + _HOSTED_FEE * (hosted + drawn)
    return usage.input_tokens * _DEAREST_INPUT + usage.output_tokens * _DEAREST_OUTPUT + fees
