"""Anthropic: costs by workspace, model and kind of token, in cents; tokens come from a report of their own.

https://platform.claude.com/docs/en/api/admin/cost_report/retrieve
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from extproc.money.reconcile import Line, kind_of
from extproc.money.reconcile.bills import API, Pages, day_of, number
from extproc.money.reconcile.files import Row

_COSTS = (("group_by[]", "workspace_id"), ("group_by[]", "description"))
_USAGE = (("group_by[]", "workspace_id"), ("group_by[]", "model"))
_DEFAULT = "default"
"""The key of the default workspace, which has no id."""


def _times(start: datetime, end: datetime) -> tuple[tuple[str, str], ...]:
    moments = (("starting_at", f"{start:%Y-%m-%dT%H:%M:%SZ}"), ("ending_at", f"{end:%Y-%m-%dT%H:%M:%SZ}"))
    return *moments, ("bucket_width", "1d"), ("limit", "31")


def _read(page: Row) -> Iterator[Line]:
    for bucket in page["data"]:
        day = day_of(bucket["starting_at"])
        for result in bucket["results"]:
            keys = (result.get("workspace_id") or _DEFAULT,)
            if "amount" in result:
                kind = kind_of(result.get("token_type") or "")
                yield Line(day, keys, result.get("model") or "", kind, number(result["amount"]).scaleb(-2))
            else:
                yield from _usage(day, keys, result)


def _usage(day: str, keys: tuple[str, ...], result: Row) -> Iterator[Line]:
    model = result.get("model") or ""
    written = sum(number(tokens) for tokens in (result.get("cache_creation") or {}).values())
    yield Line(day, keys, model, "input", None, number(result["uncached_input_tokens"]))
    yield Line(day, keys, model, "cached", None, number(result["cache_read_input_tokens"]))
    yield Line(day, keys, model, "write", None, number(written))
    yield Line(day, keys, model, "output", None, number(result["output_tokens"]))


BILL = Pages(
    source="https://platform.claude.com/docs/en/api/admin/cost_report/retrieve",
    kinds=("anthropic",),
    api=API(
        base_url="https://api.anthropic.com/v1",
        calls=(
            lambda start, end: ("/organizations/cost_report", (*_times(start, end), *_COSTS)),
            lambda start, end: ("/organizations/usage_report/messages", (*_times(start, end), *_USAGE)),
        ),
        headers=lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
    ),
    read=_read,
)
