"""The used part of the data of genai-prices.

All data takes 4 MB, so entries of unused providers are freed. The package's own `__init__` is not run: it imports an
HTTP library (6 MB) to fetch newer prices, which the gateway never does.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Sequence
from copy import deepcopy
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["preload", "provider", "types"]

_NAME = "genai_prices"


def _module(name: str) -> ModuleType:
    """A module of the package, imported without the package's `__init__`."""
    if _NAME in sys.modules:
        return importlib.import_module(f"{_NAME}.{name}")
    found = importlib.util.find_spec(_NAME)
    if found is None:
        raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
    package = sys.modules[_NAME] = ModuleType(_NAME)  # stands in for the package during the import
    package.__path__ = list(found.submodule_search_locations or ())
    try:
        return importlib.import_module(f"{_NAME}.{name}")
    finally:
        del sys.modules[_NAME]  # so that other code imports the real package


if TYPE_CHECKING:
    from genai_prices import types
else:
    types = _module("types")

_held: dict[str, types.Provider | None] = {}


def preload(names: Collection[str | None]) -> None:
    """Read the entries of these providers: 25 ms in all, and a few ms for each. Entries already held take no time.

    Entries are copied, because the module's entries lie between unused ones, whose memory could not return to the
    system.
    """
    wanted = {name for name in names if name is not None} - _held.keys()
    if wanted:
        there = f"{_NAME}.data" in sys.modules
        everything: Sequence[types.Provider] = _module("data").providers
        found = {each.id: deepcopy(each) for each in everything if each.id in wanted}
        _held.update({name: found.get(name) for name in wanted})
        if not there:
            del sys.modules[f"{_NAME}.data"]


def provider(name: str | None) -> types.Provider | None:
    """The entry of a provider; None if the data has no such provider."""
    preload([name])
    return None if name is None else _held[name]
