"""Queries of a ledger, read from the parameters of a URL and checked. Needs no database.

   start=2026-11-01&end=2026-12-01&resolution=day&group_by=team,label.agent&consumer=ci-bot&consumer=alice

Any field of FIELDS, or `label.` and a name, groups and filters. A filter that is repeated means any of its values; a
label that an exchange does not have counts as the empty text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Self, get_args

from extproc.words.exchange import OUTCOMES

FIELDS = (
    *("consumer", "team", "key", "operation", "model", "target", "provider", "provider_model"),
    *("status", "error", "outcome", "stream", "usage_source", "cache"),
)
Resolution = Literal["minute", "hour", "day", "month", "total"]
RESOLUTIONS: tuple[Resolution, ...] = get_args(Resolution)
MAX_GROUPS = 8
MOST_MINUTES = timedelta(days=1)  # longest time of a report by minute, which reads every row of it
MAX_FILTER_VALUES = 200
MAX_LIMIT = 1000
"""Most exchanges in one answer."""

_LABEL = "label."
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

Filters = Mapping[str, Sequence[str]]
"""Field -> its allowed values. Without values nothing is found."""


@dataclass(slots=True, frozen=True)
class Query:
    """A usage report: `start` inclusive, `end` exclusive."""

    start: datetime
    end: datetime
    resolution: str = "total"
    group_by: tuple[str, ...] = ()
    filters: Filters = field(default_factory=dict)

    @classmethod
    def parse(cls, parameters: Iterable[tuple[str, str]], now: datetime) -> Self:
        """Read names and values, in order. `now` is aware. Raises ValueError, whose text is for the caller."""
        own, filters = _split(parameters, {"start", "end", "resolution", "group_by"}, {"group_by"})
        start, end = _range(own, now)
        names = [name for value in own.get("group_by", ()) for name in value.split(",") if name]
        for name in names:
            _check_field("group_by", name)
        if len(set(names)) < len(names) or len(names) > MAX_GROUPS:
            raise ValueError(f"group_by takes at most {MAX_GROUPS} fields, each once")
        resolution = _one_of("resolution", own, RESOLUTIONS, "total")
        if resolution == "minute" and end - start > MOST_MINUTES:
            raise ValueError("the resolution minute takes at most a day: start and end are further apart")
        return cls(start, end, resolution, tuple(names), filters)

    def only(self, name: str, value: str) -> Self:
        """The same query, limited to exchanges whose field is `value`."""
        return replace(self, filters={**self.filters, name: _narrow(self.filters, name, value)})


@dataclass(slots=True, frozen=True)
class ExchangeQuery:
    """A query for the latest exchanges: at most `limit`, with `before` (an id) only exchanges before that one."""

    start: datetime | None = None
    end: datetime | None = None
    filters: Filters = field(default_factory=dict)
    before: str | None = None
    limit: int = 100
    findings: bool = False  # True: only exchanges in which guardrails found something
    run: str | None = None

    @classmethod
    def parse(cls, parameters: Iterable[tuple[str, str]]) -> Self:
        """Read names and values. Raises ValueError, whose text is for the caller."""
        own, filters = _split(parameters, {"start", "end", "before", "limit", "findings", "run"}, set())
        _one_of("findings", own, ("true", "false"), "false")
        limit = own.get("limit", ["100"])[0]
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= MAX_LIMIT):
            raise ValueError(f"limit must be a number from 1 to {MAX_LIMIT}")
        return cls(
            instant("start", own["start"][0]) if "start" in own else None,
            instant("end", own["end"][0]) if "end" in own else None,
            filters,
            own["before"][0] if "before" in own else None,
            int(limit),
            own.get("findings") == ["true"],
            own["run"][0] if "run" in own else None,
        )


def label_of(name: str) -> str | None:
    """The label's name in `label.NAME`; None for another field."""
    return name.removeprefix(_LABEL) if name.startswith(_LABEL) else None


def month_of(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(moment: datetime) -> datetime:
    """The beginning of the month after that of `moment`."""
    return month_of(month_of(moment) + timedelta(days=31))


def _split(
    parameters: Iterable[tuple[str, str]], known: set[str], repeatable: set[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    own: dict[str, list[str]] = {}
    filters: dict[str, list[str]] = {}
    for name, value in parameters:
        if name in known:
            if name in own and name not in repeatable:
                raise ValueError(f"{name} stands here twice")
            own.setdefault(name, []).append(value)
        else:
            _check_field("a filter", name)
            _check_value(name, value)
            filters.setdefault(name, []).append(value)
    if sum(map(len, filters.values())) > MAX_FILTER_VALUES:
        raise ValueError(f"filters have at most {MAX_FILTER_VALUES} values")
    return own, filters


def _check_field(what: str, name: str) -> None:
    if name not in FIELDS and not label_of(name):
        raise ValueError(f"{what} must be one of {', '.join(FIELDS)} or label.NAME, not {name[:64]!r}")


def _check_value(name: str, value: str) -> None:
    if name == "status" and not (value.isascii() and value.isdecimal() and len(value) <= 3):
        raise ValueError("status must be a number of up to three digits")
    if name == "stream" and value not in ("true", "false"):
        raise ValueError("stream must be true or false")
    if name == "outcome" and value not in OUTCOMES:
        raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}")


def _one_of(name: str, own: Mapping[str, Sequence[str]], allowed: Sequence[str], default: str) -> str:
    value = own.get(name, [default])[0]
    if value not in allowed and name in own:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}")
    return value


def _range(own: Mapping[str, Sequence[str]], now: datetime) -> tuple[datetime, datetime]:
    """The time of a query. Default: the current month. `start` alone means to the end of its month, `end` alone from
    the start of the month that it ends.
    """
    end = instant("end", own["end"][0]) if "end" in own else next_month(now.astimezone(UTC))
    if "start" in own:
        start = instant("start", own["start"][0])
    else:
        start = month_of(max(end - timedelta(microseconds=1), _EARLIEST))
    if start >= end:
        raise ValueError("start must be before end")
    return start, end


def instant(name: str, value: str) -> datetime:
    wanted = f"{name} is a date, 2026-11-01 (UTC), or a time, 2026-11-01T09:30:00Z"
    try:
        if _DATE.fullmatch(value):
            found = datetime.fromisoformat(value).replace(tzinfo=UTC)
        elif _TIME.fullmatch(value):
            found = datetime.fromisoformat(value.upper()).astimezone(UTC)
        else:
            raise ValueError(wanted)
    except (ValueError, OverflowError):
        raise ValueError(wanted) from None
    if not _EARLIEST <= found <= _LATEST:
        raise ValueError(f"{name} must be between the years 1970 and 9999")
    return found


def _narrow(filters: Filters, name: str, value: str) -> Sequence[str]:
    return (value,) if name not in filters or value in filters[name] else ()
