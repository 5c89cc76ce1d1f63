"""Single exchanges, as JSON: the latest, one by its id; and the sums of their charges."""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.money.ledger.cover import RowSource
from extproc.money.ledger.query import ExchangeQuery
from extproc.money.ledger.rows import COLUMNS, MAX_SCOPE, label_name, micros, text
from extproc.money.ledger.sql import Cursor
from extproc.money.ledger.usage import from_micros, rfc3339, to_micros
from extproc.upstream.prices import decimal

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM exchanges WHERE"
_LOW = (1 << 32) - 1
_LEVEL = ("before", "limit", "asked")


def latest(cursor: Cursor, query: ExchangeQuery) -> Sequence[Mapping[str, Any]]:
    """The exchanges that a query selects, the latest first."""
    where, values = RowSource(cursor.dialect).matching(query.filters)
    if query.start is not None:
        where, values = f"{where} AND time >= ?", [*values, to_micros(query.start)]
    if query.end is not None:
        where, values = f"{where} AND time < ?", [*values, to_micros(query.end)]
    if query.findings:
        where = f"{where} AND guardrails <> '[]'"  # the condition of the index
    if query.run is not None:
        where, values = f"{where} AND run = ?", [*values, text(query.run)]
        if query.run:
            where = f"{where} AND run <> ''"  # the condition of the index
    if query.before is not None:
        where = f"{where} AND (time, id) < (SELECT time, id FROM exchanges WHERE id = ?)"
        values = [*values, text(query.before)]
    return [
        _json(row)
        for row in cursor.rows(f"{_SELECT} {where} ORDER BY time DESC, id DESC LIMIT {query.limit:d}", values)
    ]


def one(cursor: Cursor, id: str) -> Mapping[str, Any] | None:
    """The exchange with that id, else the latest exchange with that `request_id`."""
    for column in ("id", "request_id"):
        for row in cursor.rows(f"{_SELECT} {column} = ? ORDER BY time DESC LIMIT 1", (text(id),)):
            return _json(row)
    return None


def charges(cursor: Cursor, prefix: str, since: float) -> Mapping[str, int]:
    """Exact sums of charges by scope, of scopes that are `prefix` or begin with `prefix` and a colon; `since` in epoch
    seconds.
    """
    prefix = text(prefix, MAX_SCOPE)
    start = f"{prefix}:"
    amount = "CAST(each.value AS BIGINT)"  # sums of SQLite are of 64 bits, so there are two halves
    rows = cursor.rows(
        f"SELECT each.key, sum({amount} & {_LOW}), sum({amount} >> 32) "
        f"FROM exchanges, {cursor.dialect.each_charge} "
        "WHERE time >= ? AND (each.key = ? OR substr(each.key, 1, ?) = ?) GROUP BY each.key",
        (micros(since), prefix, len(start), start),
    )
    return {scope: int(low) + (int(high) << 32) for scope, low, high in rows}


def _json(row: Sequence[Any]) -> Mapping[str, Any]:
    shown = dict(zip(COLUMNS, row, strict=True))
    for name in ("labels", "guardrails", "charges", "tries", "levels", "traits"):
        if isinstance(shown[name], str):  # PostgreSQL's driver has decoded the JSON already
            shown[name] = msgspec.json.decode(shown[name])
    shown |= {name: bool(shown[name]) for name in ("stream", "complete")}
    cost = shown.pop("cost")
    savings = {f"{name}_usd": decimal(shown.pop(name)) for name in ("saved", "prompt_saved", "prompt_extra")}
    return {
        **shown,
        "time": rfc3339(from_micros(shown["time"])),
        "labels": {label_name(key): value for key, value in shown["labels"].items()},
        "cost_usd": None if cost is None else decimal(cost),
        **savings,
        "tries": shown["tries"] or [],
        "levels": {scope: dict(zip(_LEVEL, level, strict=True)) for scope, level in (shown["levels"] or {}).items()},
    }
