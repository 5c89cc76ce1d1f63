"""Facts of a request's sender, as the settings name them: `consumer`, `team`, `label.<name>`.

Budgets count by these facts, targets match on them, sticky sessions go by them.
"""

from __future__ import annotations

from extproc.words.exchange import Consumer, Exchange

_LABEL = "label."


def check_fact(value: str, *more: str) -> str:
    """Returns `value` if it names a fact, or is one of `more`. Raises ValueError otherwise."""
    known = ("consumer", "team", *more)
    if value in known or (value.startswith(_LABEL) and value != _LABEL):
        return value
    raise ValueError(f"{value!r} is not one of {', '.join(known)}, label.<name>")


def fact(name: str, exchange: Exchange) -> str:
    """The fact of that name; empty when the request has no such label."""
    if name == "consumer":
        return exchange.consumer.name
    if name == "team":
        return exchange.consumer.team
    return exchange.money.labels.get(name.removeprefix(_LABEL), "")


def earlier_fact(name: str, before: Consumer, exchange: Exchange) -> str:
    """The fact of that name, with the consumer's team and labels from before a change of the settings."""
    if name == "team":
        return before.team
    return before.labels.get(name.removeprefix(_LABEL)) or fact(name, exchange)
