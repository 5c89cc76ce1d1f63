"""Ways to order the targets of a virtual model. A file each: its module name is the `strategy` in the filter YAML.

A strategy gets the choices that could serve this request, in the order of the settings, and gives the order of the
tries. A choice is one target, or, where virtual models are nested, the targets of the inner one in the order it
decided.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import Field, field_validator

from extproc.access.auth.facts import check_fact
from extproc.words.values import PositiveDuration, Section


class StickySettings(Section):
    """Stickiness: requests with the same value of one field go to the same target while it can serve."""

    by: str = Field(
        description="Field that requests of a session share: `label.<name>`, `key`, `consumer`, `team`, or `prefix`: "
        "tools, system prompt and first turn, so that a conversation stays where its prompt is cached. A request "
        "without it goes by weight alone."
    )
    ttl: PositiveDuration | None = Field(
        None, description="Time for which a session keeps its target. Default: until the settings change."
    )

    @field_validator("by")
    @classmethod
    def _fact(cls, value: str) -> str:
        return check_fact(value, "key", "prefix")


@cache
def strategies() -> Mapping[str, type[Any]]:
    """The classes of all strategies in this package, by the names of their modules. A constructor gets the virtual
    model's name, its `sticky` settings, and the history of tries; an instance is a `Strategy`.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    found: dict[str, Any] = {name: importlib.import_module(f"{__name__}.{name}").STRATEGY for name in names}
    return found
