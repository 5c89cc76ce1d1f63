"""Limits in LiteLLM's configuration, as budgets of this gateway.

Source: https://docs.litellm.ai/docs/proxy/provider_budget_routing and /docs/proxy/load_balancing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

CEILINGS = {
    "rpm": ("requests", "minute"),
    "tpm": ("tokens", "minute"),
    "max_parallel_requests": ("concurrency", ""),
    "max_budget": ("usd", "month"),
}
"""Unit and window of each limit. `budget_duration` gives the window of `max_budget`."""
PERIODS = (("budget_limit", "max_budget"), ("time_period", "budget_duration"))
"""Keys of a provider's budget, each with the key of other limits: amount and time."""
_WINDOWS = {60: "minute", 3_600: "hour", 86_400: "day", 604_800: "week", 2_678_400: "month", 7_948_800: "quarter"}
"""Windows by the longest duration, in seconds, that they stand for."""
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "mo": 2_592_000}
_NAMED = {"hourly": "1h", "daily": "24h", "weekly": "7d", "monthly": "30d"}


class Ceiling(NamedTuple):
    """A limit in a budget's form. `window` is empty for requests in flight."""

    unit: str
    limit: float
    window: str


def ceilings(params: Mapping[str, Any]) -> tuple[Mapping[str, Ceiling], Sequence[tuple[str, str]]]:
    """The limits among `params`, and notes on keys that were changed or dropped."""
    found: dict[str, Ceiling] = {}
    notes: list[tuple[str, str]] = []
    for key, (unit, usual) in CEILINGS.items():
        if params.get(key) is None:
            continue
        limit = amount(params[key]) if unit == "usd" else whole(params[key])
        if limit is None:
            notes.append((key, "left out: no number"))
            continue
        window, text = period(params.get("budget_duration")) if unit == "usd" else (usual, "")
        if text:
            notes.append(("budget_duration", text))
        found[key] = Ceiling(unit, limit, window)
    return found, notes


def period(told: Any) -> tuple[str, str]:
    """The window of a duration such as `30d` or `1mo`, and a note if the two differ. A budget without a duration is
    never reset.
    """
    if told is None:
        return "total", ""
    parts = re.fullmatch(r"(\d{1,9})(s|mo|m|h|d|w)", _NAMED.get(str(told), str(told)))
    seconds = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    if not seconds:
        return "total", f"{told!r} is no duration: the budget never begins anew"
    window = next((window for longest, window in _WINDOWS.items() if seconds <= longest), "total")
    if seconds in _WINDOWS or (parts and parts[2] == "mo" and int(parts[1]) in (1, 3)) or seconds == 30 * 86_400:
        return window, ""
    return window, f"no window here lasts {told}: the budget is for a {window}, the next longer one"


def amount(told: Any) -> float | None:
    """A number that is not negative, also as text, because YAML reads 3e-6 as text."""
    try:
        found = float(told) if isinstance(told, int | float | str) and not isinstance(told, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found >= 0 else None


def whole(told: Any) -> int | None:
    """A whole number that is not negative."""
    found = amount(told)
    return int(found) if found is not None and found == int(found) else None
