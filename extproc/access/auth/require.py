"""Requirements: facts that a target must have before a request may reach it.

Virtual models, consumers and teams state them. A fact that is unknown does not meet a requirement. `Authorize` drops
targets that do not meet them, so no later stage, no failover and no downgrade sees such a target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from extproc.upstream.prices import per_million
from extproc.words.dialect import ABILITIES
from extproc.words.exchange import Exchange, Requirement, Target
from extproc.words.values import Duration, Patterns, Section, show_duration

_Texts = Annotated[
    Sequence[Annotated[str, StringConstraints(min_length=1, max_length=256)]], Field(min_length=1, max_length=100)
]


class MaxPriceSettings(Section):
    """The highest price of a target, in USD per million tokens."""

    input: float | None = Field(None, ge=0, le=1_000_000, description="Highest price of input tokens.")
    output: float | None = Field(None, ge=0, le=1_000_000, description="Highest price of output tokens.")


class RequireSettings(Section):
    """Facts that each target must have. A target whose fact is unknown is skipped."""

    providers: _Texts | None = Field(None, description="Patterns of the providers that may be asked.")
    regions: _Texts | None = Field(None, description="Patterns of the regions where the model may run: `eu-*`.")
    retention: Duration | None = Field(
        None, description="Longest time for which the provider may keep prompts and answers. `0s`: not at all."
    )
    licences: _Texts | None = Field(None, description="Patterns of the licences that the model may have.")
    supports: Sequence[str] = Field(
        (),
        max_length=len(ABILITIES),
        description="Abilities that the model must have, whatever a request needs. The model has to state them in its "
        "`supports`.",
    )
    context: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Smallest context window of the model, in tokens."
    )
    max_price: MaxPriceSettings | None = Field(
        None, description="Highest price of the model, of its first tier where the price depends on the length."
    )
    guardrails: _Texts | None = Field(
        None,
        description="Patterns of the guardrails that may send the text to a service. Default: none may. A request that "
        "another such guardrail has to check is refused. For consumers and teams.",
    )

    @field_validator("supports")
    @classmethod
    def _known(cls, value: Sequence[str]) -> Sequence[str]:
        for ability in value:
            if ability not in ABILITIES:
                raise ValueError(f"{ability!r} is not one of {', '.join(ABILITIES)}")
        return value

    @cached_property
    def _patterns(self) -> tuple[Patterns, ...]:
        return tuple(Patterns(one or ("*",)) for one in (self.providers, self.regions, self.licences))

    @cached_property
    def _services(self) -> Patterns:
        return Patterns(self.guardrails or ())

    def unmet(self, target: Target) -> str:
        """The first requirement that the target does not meet, for people; empty if it meets all."""
        return next(self._unmet(target), "")

    def may_ask(self, guardrail: str) -> bool:
        """True if the guardrail may send the request's text to its service."""
        return self._services(guardrail)

    def _unmet(self, target: Target) -> Iterator[str]:
        providers, regions, licences = self._patterns
        facts = target.facts
        if not providers(target.provider):
            yield f"provider {target.provider} is not allowed"
        if self.regions is not None and not (facts.region and regions(facts.region)):
            yield f"its region {facts.region or 'is unknown, and'} is not allowed"
        if self.retention is not None and (facts.retention is None or facts.retention > self.retention):
            kept = "an unknown time" if facts.retention is None else show_duration(facts.retention)
            yield f"its provider keeps prompts for {kept}"
        if self.licences is not None and not (facts.licence and licences(facts.licence)):
            yield f"its licence {facts.licence or 'is unknown, and'} is not allowed"
        if lacking := [one for one in self.supports if one not in (target.supports or ())]:
            yield f"its `supports` does not state {', '.join(lacking)}"
        if self.context is not None and (target.context or 0) < self.context:
            yield f"its context of {target.context or 'unknown'} tokens is too small"
        if self.max_price is not None:
            yield from _too_dear(self.max_price, target)


def _too_dear(most: MaxPriceSettings, target: Target) -> Iterator[str]:
    if target.price is None:
        yield "its price is unknown"
        return
    rates = per_million(target.price)
    for kind, limit in (("input", most.input), ("output", most.output)):
        if limit is not None and rates[kind] > limit:
            yield f"its price of {rates[kind]:g} USD per million {kind} tokens is too high"


def unmet(exchange: Exchange, target: Target) -> str:
    """The first requirement of the request that the target does not meet; empty if it meets all."""
    return unmet_of((*exchange.consumer.require, *exchange.route.require, *target.require), target)


def unmet_of(required: Iterable[Requirement], target: Target) -> str:
    """The first of these requirements that the target does not meet; empty if it meets all."""
    return next(filter(None, (require.unmet(target) for require in required)), "")
