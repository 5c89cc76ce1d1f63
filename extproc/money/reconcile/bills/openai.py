"""OpenAI: costs by line item, with the tokens of each, and the number of requests.

https://platform.openai.com/docs/api-reference/usage/costs
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from extproc.money.reconcile import TOKENS, Line, kind_of
from extproc.money.reconcile.bills import API, Pages, number
from extproc.money.reconcile.files import Row

_COSTS = (("group_by", "project_id"), ("group_by", "api_key_id"), ("group_by", "line_item"))
_USAGE = (("group_by", "project_id"), ("group_by", "api_key_id"), ("group_by", "model"))
_UNITS = {"tokens": 1, "1000_tokens": 1000}


def _times(start: datetime, end: datetime) -> tuple[tuple[str, str], ...]:
    moments = (("start_time", str(int(start.timestamp()))), ("end_time", str(int(end.timestamp()))))
    return *moments, ("bucket_width", "1d"), ("limit", "31")


def _read(page: Row) -> Iterator[Line]:
    for bucket in page["data"]:
        day = datetime.fromtimestamp(int(bucket["start_time"]), UTC).strftime("%Y-%m-%d")
        for result in bucket["results"]:
            keys = (result.get("api_key_id") or "", result.get("project_id") or "")
            if result["object"] == "organization.costs.result":
                yield _cost(day, keys, result)
            elif result["object"] == "organization.usage.completions.result":
                yield from _usage(day, keys, result)


def _cost(day: str, keys: tuple[str, ...], result: Row) -> Line:
    """A line item is a model and a kind, `gpt-4o-2024-08-06, cached input`, or the name of a fee."""
    model, comma, words = (result.get("line_item") or "").rpartition(", ")
    kind = kind_of(words) if comma else "fee"
    quantity, scale = result.get("quantity"), _UNITS.get(result.get("quantity_unit") or "tokens")
    amount = number(result["amount"]["value"])
    tokens = None if quantity is None or scale is None else number(quantity) * scale
    return Line(day, keys, model, kind, amount, tokens if kind in TOKENS else None)


def _usage(day: str, keys: tuple[str, ...], result: Row) -> Iterator[Line]:
    model = result.get("model") or ""
    cached, written = (number(result.get(name) or 0) for name in ("input_cached_tokens", "input_cache_write_tokens"))
    plain = number(result["input_tokens"]) - cached - written
    yield Line(day, keys, model, "input", None, plain, int(result["num_model_requests"]))
    yield Line(day, keys, model, "cached", None, cached)
    yield Line(day, keys, model, "write", None, written)
    yield Line(day, keys, model, "output", None, number(result["output_tokens"]))


BILL = Pages(
    source="https://platform.openai.com/docs/api-reference/usage/costs",
    kinds=("openai",),
    api=API(
        base_url="https://api.openai.com/v1",
        calls=(
            lambda start, end: ("/organization/costs", (*_times(start, end), *_COSTS)),
            lambda start, end: ("/organization/usage/completions", (*_times(start, end), *_USAGE)),
        ),
        headers=lambda key: {"authorization": f"Bearer {key}"},
    ),
    read=_read,
)
