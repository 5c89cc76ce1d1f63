"""Objectives of a virtual model: how fast and how cheap its targets should be. Targets that miss one come last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field, model_validator

from extproc.routing.history import History
from extproc.routing.strategies.cost import cost, sizes
from extproc.words.exchange import Exchange, Target
from extproc.words.values import PositiveDuration, Section, show_duration


class ObjectiveSettings(Section):
    """Objectives of a virtual model. A target of which nothing is known yet meets those of speed."""

    ttft_p95: PositiveDuration | None = Field(
        None, description="Longest time in which 95 of 100 streamed answers begin, for requests of that size."
    )
    rate: float | None = Field(
        None, gt=0, le=1_000_000, description="Fewest output tokens a second of streamed answers."
    )
    cost: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Highest cost of the request in USD per million of its tokens, input and output together. A "
        "target of unknown price misses it.",
    )

    @model_validator(mode="after")
    def _some(self) -> ObjectiveSettings:
        if self.ttft_p95 is None and self.rate is None and self.cost is None:
            raise ValueError("objectives name at least one of ttft_p95, rate and cost")
        return self

    @property
    def measures(self) -> bool:
        """True if an objective is about measurements of the running gateway."""
        return self.ttft_p95 is not None or self.rate is not None


@dataclass(slots=True, frozen=True)
class Objectives:
    """Judges targets by `settings`, from their price and the history of their tries."""

    settings: ObjectiveSettings
    history: History

    def missed(self, target: Target, exchange: Exchange) -> list[str]:
        """The objectives that the target misses for this request, for people."""
        slow = self._slow(target, exchange) if self.settings.measures else ()
        return [*slow, *self._dear(target, exchange)]

    def _slow(self, target: Target, exchange: Exchange) -> Iterator[str]:
        most, least = self.settings.ttft_p95, self.settings.rate
        speed = self.history.streaming(target.deployment, len(exchange.request.body))
        if speed is None:
            return
        if most is not None and speed.p95 > most:
            yield f"misses ttft_p95 {show_duration(most)}: {speed.p95:.3f} s"
        if least is not None and 0 < speed.rate < least:
            yield f"misses rate {least:g}: {speed.rate:.1f} tokens/s"

    def _dear(self, target: Target, exchange: Exchange) -> Iterator[str]:
        if (most := self.settings.cost) is not None:
            per_million = cost(target, exchange) / sum(sizes(exchange)) * 1e6
            if per_million > most:
                yield f"misses cost {most:g}: {per_million:.3g} USD per million tokens"
