"""Faults on demand: suffixes of a model name, joined with `+`, such as `gpt-4o+status=503` or `stub+words=50+cut=3`.

delay=2s        silence before the answer's headers; durations are 150s, 20ms or 1.5m
hang            never answers
status=503      an error answer in the dialect's shape (400 to 599)
retry_after=7   a Retry-After header, for use with status=429
words=500       the length of the answer's text (at most 100000)
usage=none      leaves usage out even when asked
pace=20ms       silence between the events of a stream
pause=150s      silence once, in the middle of a stream or of a plain body
cut=3           closes the connection after that many events, without the end of the body; a plain answer is cut
                in the middle
reset           TCP reset before any header; reset=3: after that many events, or in the middle of a plain answer
errorevent=3    an error event after that many events, then a clean end and no end marker
every=3         the other suffixes apply only to every third request for that model
first=2         the other suffixes apply only to the first two requests for that model
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple


class FaultError(ValueError):
    """A suffix that is not in the table, or a value it does not take."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one answer; durations are in seconds. None and False: without this fault."""

    delay: float = 0.0
    hang: bool = False
    status: int | None = None
    retry_after: int | None = None
    words: int | None = None
    usage: str | None = None
    pace: float = 0.0
    pause: float = 0.0
    cut: int | None = None
    reset: int | None = None  # 0: before any header
    errorevent: int | None = None


NONE = Faults()


def seconds(text: str) -> float:
    """Read a duration such as 150s, 20ms or 1.5m. Raises FaultError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
    if match is None:
        raise FaultError(f"{text!r} is not a duration such as 150s, 20ms or 1.5m")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[match[2]]


def one_of(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise FaultError(f"{text!r} is not one of {', '.join(values)}" if any(values) else "it takes no value")
        return text

    return read


def number(low: int = 0, high: int = 1_000_000) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= high:
            raise FaultError(f"{text!r} is not a number from {low} to {high}")
        return int(text)

    return read


# Readers of suffixes, in the order of the table above.
READERS: Mapping[str, Callable[[str], Any]] = {
    "delay": seconds,
    "hang": lambda text: one_of("")(text) == "",
    "status": number(400, 599),
    "retry_after": number(),
    "words": number(0, 100_000),
    "usage": one_of("none"),
    "pace": seconds,
    "pause": seconds,
    "cut": number(),
    "reset": lambda text: number()(text or "0"),
    "errorevent": number(),
    "every": number(1),
    "first": number(),
}


class FaultPlan(NamedTuple):
    """Requested faults, and the requests that they apply to."""

    faults: Mapping[str, Any] = MappingProxyType({})
    every: int = 1
    first: int | None = None

    @property
    def counts(self) -> bool:
        """True when the plan depends on the number of earlier requests."""
        return self.every > 1 or self.first is not None

    def due(self, nth: int) -> Mapping[str, Any]:
        """Return the faults of the nth request, counted from one."""
        applies = nth % self.every == 0 and (self.first is None or nth <= self.first)
        return self.faults if applies else {}


NO_PLAN = FaultPlan()


def read_plan(readers: Mapping[str, Callable[[str], Any]], text: str) -> FaultPlan:
    """Read suffixes without the model name: `status=503+every=3`. Raises FaultError naming the wrong one."""
    values: dict[str, Any] = {}
    for suffix in text.split("+") if text else ():
        name, _, value = suffix.partition("=")
        if name not in readers:
            raise FaultError(f"unknown fault {suffix!r}; known are {', '.join(readers)}")
        try:
            values[name] = readers[name](value)
        except FaultError as error:
            raise FaultError(f"fault {suffix!r}: {error}") from None
    every, first = values.pop("every", 1), values.pop("first", None)
    return FaultPlan(MappingProxyType(values), every, first) if text else NO_PLAN


parse = lru_cache(maxsize=1024)(partial(read_plan, READERS))


def of_model(model: str, parse: Callable[[str], FaultPlan] = parse) -> FaultPlan:
    """Read the suffixes of a model name: `gpt-4o+status=503`. Raises FaultError."""
    _, plus, suffixes = model.partition("+")
    if plus and not suffixes:
        raise FaultError(f"the model {model!r} ends with + and no fault")
    return parse(suffixes)
