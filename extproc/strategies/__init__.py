"""Ways to order the targets of a virtual model. A file each: its module name is the `strategy` in the filter YAML.

A strategy sees the choices that are left, those that could serve this request, and says in which order to try them.
The choices come in the order of the settings. A choice is one target, or, where virtual models are nested, the targets
of the inner one in the order it decided.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol, cast

from pydantic import Field, field_validator

from extproc.exchange import Exchange, Target
from extproc.facts import check_fact
from extproc.values import PositiveDuration, Section

if TYPE_CHECKING:
    from extproc.history import History


class StickySettings(Section):
    """Requests that agree in one thing go to the same target, for as long as it can serve them."""

    by: str = Field(description="label.<name>, key, consumer or team; a request without it is not sticky")
    ttl: PositiveDuration | None = Field(None, description="How long a choice lasts; absent: until the weights change")

    @field_validator("by")
    @classmethod
    def _fact(cls, value: str) -> str:
        return check_fact(value, "key")


@dataclass(slots=True, frozen=True)
class Choice:
    """One of the things a strategy orders. `targets` has at least one; the first is where a request would go."""

    targets: Sequence[Target]
    weight: int = 1
    max_complexity: float = 1.0
    index: int = 0  # in the settings


class Strategy(Protocol):
    """What a module here offers as `STRATEGY`. Built once for each virtual model that uses it."""

    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None: ...

    def order(self, choices: Sequence[Choice], exchange: Exchange) -> Sequence[Choice]:
        """Say in which order to try `choices`; called for two or more of them."""
        ...

    def why(self, choice: Choice, exchange: Exchange) -> str:
        """Say in a few words what the order was decided by, for people: `weight 95`, `complexity 0.3`."""
        ...


@cache
def strategies() -> Mapping[str, type[Strategy]]:
    """Every strategy in this package, by the name of its module."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: cast("type[Strategy]", importlib.import_module(f"{__name__}.{name}").STRATEGY) for name in names}
