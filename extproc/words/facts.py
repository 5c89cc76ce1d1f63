"""Facts of a model at its provider, which policies ask for and lists of models tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime

NOTICES = (7, 30, 60)
"""Days before a retirement at which it is told with more weight."""


@dataclass(slots=True, frozen=True)
class Facts:
    """Where a model runs, how long its provider keeps prompts, its licence, and the end of its life. Empty or None:
    unknown.
    """

    region: str = ""
    retention: float | None = None  # seconds
    licence: str = ""
    deprecated: date | None = None  # day of the announcement
    retires: date | None = None  # first day without the model
    successor: str = ""

    def headers(self) -> Mapping[str, str]:
        """The headers of an answer by the model: `deprecation` (RFC 9745) and `sunset` (RFC 8594)."""
        told = {}
        if self.deprecated is not None:
            told["deprecation"] = f"@{int(midnight(self.deprecated).timestamp())}"
        if self.retires is not None:
            told["sunset"] = format_datetime(midnight(self.retires), usegmt=True)
        return told

    def notice(self, today: date) -> int | None:
        """The least of `NOTICES` that the days left do not exceed; None: the end is further away, or unknown."""
        left = None if self.retires is None else (self.retires - today).days
        return None if left is None else next((days for days in NOTICES if left <= days), None)


def midnight(day: date) -> datetime:
    """The beginning of a day, in UTC."""
    return datetime.combine(day, time(), UTC)
