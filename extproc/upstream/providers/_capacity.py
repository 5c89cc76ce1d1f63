"""The cost of own hardware: what its hours cost, and what it does at full load. Both together are a price of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from extproc.words.values import Section

_MOST = 1_000_000.0


class FullLoadSettings(Section):
    """Tokens a second of one replica that is busy all the time."""

    input: float = Field(
        gt=0, le=100 * _MOST, description="Tokens of prompts that it reads in a second, those in its cache not counted."
    )
    output: float = Field(gt=0, le=100 * _MOST, description="Tokens that it writes in a second, all requests together.")


class CapacitySettings(Section):
    """Own hardware, paid by the hour. A request costs the time that its tokens take at full load; what is left of the
    hours is idle.
    """

    usd_per_hour: float = Field(ge=0, le=_MOST, description="Price of an hour of one replica, in USD.")
    replicas: Literal["scrape"] | Annotated[int, Field(ge=1, le=10_000)] = Field(
        "scrape",
        description="Replicas that are paid: their number, or `scrape` for the endpoints of the provider's `pool`.",
    )
    full_load: FullLoadSettings

    @model_validator(mode="after")
    def _priced(self) -> CapacitySettings:
        if max(self.per_million.values()) > _MOST:
            raise ValueError("full_load: so few tokens a second would cost more than 1000000 USD per million")
        return self

    @property
    def per_million(self) -> Mapping[str, float]:
        """Prices of tokens in USD per million. Those from a cache take no time."""
        second, rates = self.usd_per_hour / 3600, self.full_load
        return {"input": 1e6 * second / rates.input, "output": 1e6 * second / rates.output, "cached_input": 0.0}
