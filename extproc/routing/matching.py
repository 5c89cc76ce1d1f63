"""Conditions on a request: who sends it (`consumer`, `team`, `label.<name>`), and what it is.

A condition names a fact and has a value for it: a pattern, `true` or `false`, or a range `from-to`, of which an
end may be left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from extproc.access.auth.facts import check_fact, earlier_fact, fact
from extproc.routing.language import language
from extproc.routing.strategies.complexity import complexity
from extproc.words.chain import Conditions
from extproc.words.dialect import CHARACTERS_PER_TOKEN
from extproc.words.exchange import Consumer, Exchange
from extproc.words.values import Pattern

Matches = Callable[[str], bool]


def tokens(exchange: Exchange) -> int:
    """About how many tokens of text the request has: of its longest input, if it has several."""
    ask = exchange.request.ask
    size = ask.longest_bytes
    if size is None:
        size = len(exchange.request.body) - ask.image_bytes - ask.packed_bytes
    return size // CHARACTERS_PER_TOKEN


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _tools(exchange: Exchange) -> str:
    return _flag(exchange.request.dialect.conversation(exchange.request.json).tools > 0)


def _language(exchange: Exchange) -> str:
    return language("\n".join(exchange.request.dialect.conversation(exchange.request.json).asked)[:4096])


CONTENT: Mapping[str, Callable[[Exchange], str]] = {
    "images": lambda exchange: _flag(exchange.request.ask.images > 0),
    "tools": _tools,
    "tokens": lambda exchange: str(tokens(exchange)),
    "complexity": lambda exchange: f"{complexity(exchange):.3f}",
    "language": _language,
    "time": lambda _exchange: time.strftime("%H:%M", time.gmtime()),
}
"""Facts of what a request is, each with the function that reads it: only where a target matches on it."""


def _one(name: str, text: str) -> Matches:
    """The test of one condition. Raises ValueError."""
    if name in ("tokens", "complexity"):
        return _range(name, text)
    if name == "time":
        return _hours(text)
    if name in ("images", "tools") and text not in ("true", "false"):
        raise ValueError(f"match.{name} is true or false")
    return Pattern(text)


def _range(name: str, text: str) -> Matches:
    low, dash, high = text.partition("-")
    try:
        least, most = float(low or 0), float(high or "inf")
    except ValueError:
        dash = ""
    if not dash or not least <= most:
        raise ValueError(f"match.{name} is a range: 0-1000, 1000- or -1000")
    return lambda value: least <= float(value) < most


def _hours(text: str) -> Matches:
    try:
        begin, end = (time.strftime("%H:%M", time.strptime(part, "%H:%M")) for part in text.split("-"))
    except ValueError:
        raise ValueError("match.time is a range of UTC times: 08:00-18:00") from None
    if begin <= end:
        return lambda value: begin <= value < end
    return lambda value: value >= begin or value < end


def compiled(match: Mapping[str, str]) -> Conditions:
    """The conditions of a `match` in the settings. Raises ValueError."""
    return tuple((check_fact(name, *CONTENT), _one(name, text)) for name, text in match.items())


def mismatch(conditions: Conditions, exchange: Exchange, before: Consumer | None = None) -> tuple[str, str] | None:
    """The first fact that fails its condition, with its value; None if all hold. `before`: the consumer of earlier
    settings, whose facts count.
    """
    for name, matches in conditions:
        read = CONTENT.get(name)
        if read is not None:
            value = read(exchange)
        else:
            value = fact(name, exchange) if before is None else earlier_fact(name, before, exchange)
        if not matches(value):
            return name, value
    return None


def _plain(value: object) -> object:
    """The value as text: YAML reads `true` as no text."""
    return _flag(value) if isinstance(value, bool) else value


def _checked(match: Mapping[str, str]) -> Mapping[str, str]:
    compiled(match)
    return match


MatchSettings = Annotated[Mapping[str, Annotated[str, BeforeValidator(_plain)]], AfterValidator(_checked)]
