"""Requests that ask for variety: the same answer to all of them would not be what their clients mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def varies(body: Mapping[str, Any]) -> bool:
    """True for a temperature above 0 without a seed, for several choices, and where tools are offered. Never raises.

    A request that states no temperature leaves it to its provider.
    """
    temperature = body.get("temperature")
    if temperature is not None and temperature != 0 and body.get("seed") is None:
        return True
    if any(body.get(name) not in (None, 1) for name in ("n", "best_of")):
        return True
    return bool(body.get("tools") or body.get("functions"))
