"""Chains: targets of a requested name, and the strategies that order them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import BeforeValidator, Field

from extproc.words.exchange import Exchange, Requirement, Target
from extproc.words.values import Duration, PositiveDuration, Section

Condition = Annotated[
    Literal["connect", "reset", "timeout", "401", "403", "408", "429", "5xx"],
    BeforeValidator(lambda value: str(value) if type(value) is int else value),  # YAML reads 429 as a number
]


class RetrySettings(Section):
    """Retries and failover of Envoy, from one target to the next."""

    attempts: int = Field(3, ge=1, le=16, description="Most tries of one request, at all targets together.")
    on: Sequence[Condition] = Field(
        ("connect", "reset", "timeout", "401", "403", "408", "429", "5xx"),
        description="Failures of a try that lead to another try. Shorten the list to pass some failures to the client.",
    )
    back_off: Duration = Field(
        0.005,
        le=5,
        description="Wait before the second try in a row at one target, at most `5s`. It doubles for each further try. "
        "The move to another target has no wait.",
    )
    per_try_timeout: PositiveDuration | None = Field(
        None,
        description="Longest wait for a plain answer to begin, for each try. Lower it to fail over sooner. Default: "
        "the longest `timeout` of the targets.",
    )
    per_try_timeout_stream: PositiveDuration | None = Field(
        None,
        description="Longest wait for a streamed answer to begin, for each try. Models that reason may think for "
        "minutes before. Lower it to fail over sooner. Default: the longest `timeout` of the targets.",
    )


@dataclass(slots=True, frozen=True)
class Skip:
    """A target that a request skips. `reason` is of a fixed set, `text` is for people."""

    target: Target
    reason: str
    text: str


def passed_over(skipped: Sequence[Skip]) -> dict[str, str]:
    """Header of a failed answer with the names of targets skipped because they cool down."""
    texts = [f"{skip.target.name}: {skip.text}" for skip in skipped if skip.reason == "cooling_down"]
    return {"x-ai-skipped": "; ".join(texts)[:1000]} if texts else {}


Conditions = tuple[tuple[str, Callable[[str], bool]], ...]
"""Names of facts of a request, each with the test of its value. All must hold."""
Quality = tuple[tuple[Conditions, float], ...]
"""Numbers, 0 to 1, by class of requests: the first class that a request is of counts."""


@dataclass(slots=True, frozen=True)
class Share:
    """What the settings of a virtual model say of one entry below it, for its strategy."""

    weight: int = 1
    max_complexity: float = 1.0
    quality: Quality = ()


@dataclass(slots=True, frozen=True)
class Candidate:
    """A candidate that a strategy orders. `targets` is never empty; the first one would serve."""

    targets: Sequence[Target]
    weight: int = 1
    max_complexity: float = 1.0
    index: int = 0  # index in the settings
    quality: Quality = ()


class Strategy(Protocol):
    """The class that a module of `routing/strategies` offers as `STRATEGY`. Each virtual model builds one."""

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:
        """`choices` in the order to try. There are at least two."""
        ...

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        """A short reason for the order, for people: `weight 95`, `complexity 0.3`."""
        ...


@dataclass(slots=True, frozen=True)
class Branch:
    """A virtual model in a chain. `shares` belong to the entries `below`, one each."""

    strategy: Strategy
    below: tuple[Branch | Target, ...]
    shares: tuple[Share, ...]


@dataclass(slots=True, frozen=True)
class Chain:
    """The targets of a requested name. Grants are checked against `name`; `targets` are in the settings' order.

    `root` decides the order for a request; None: the order of `targets`. `next` is the chain of newer settings for the
    same name. Until Envoy has the providers of `next`, this chain serves.
    """

    targets: tuple[Target, ...]
    retry: RetrySettings
    name: str = ""
    root: Branch | None = None
    next: Chain | None = None
    require: tuple[Requirement, ...] = ()  # of the requested virtual model; its targets have them, too
