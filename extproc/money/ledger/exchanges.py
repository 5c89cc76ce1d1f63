"""Single exchanges, as JSON: the latest, one by its id; and the sums of their charges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, literal, literal_column, select, tuple_
from sqlalchemy import text as sql

from extproc.money.ledger.cover import ROWS
from extproc.money.ledger.query import ExchangeQuery
from extproc.money.ledger.rows import MAX_SCOPE, label_name, micros, text
from extproc.money.ledger.table import EXCHANGES
from extproc.money.ledger.usage import from_micros, rfc3339, to_micros
from extproc.upstream.prices import decimal

_c = EXCHANGES.c

# SQLite's sums are of 64 bits, so there are two halves.
_WHERE = "WHERE time >= :since AND (each.key = :prefix OR substr(each.key, 1, :length) = :start) GROUP BY each.key"
_CHARGES = {
    "sqlite": sql(
        "SELECT each.key, sum(each.value & 4294967295), sum(each.value >> 32) "  # noqa: S608
        f"FROM exchanges, json_each(exchanges.charges) AS each {_WHERE}"
    ),
    "postgresql": sql(
        "SELECT each.key, sum(CAST(each.value AS numeric)), 0 "  # noqa: S608
        f"FROM exchanges, jsonb_each_text(exchanges.charges) AS each {_WHERE}"
    ),
}


def latest(connection: Connection, query: ExchangeQuery) -> Sequence[Mapping[str, Any]]:
    """The exchanges that a query selects, the latest first."""
    wanted: list[ColumnElement[bool]] = [ROWS.matching(query.filters, connection.dialect.name)]
    if query.start is not None:
        wanted.append(_c.time >= to_micros(query.start))
    if query.end is not None:
        wanted.append(_c.time < to_micros(query.end))
    if query.findings:
        wanted.append(literal_column("guardrails <> '[]'"))  # as the index has it
    if query.before is not None:
        time = connection.execute(select(_c.time).where(_c.id == text(query.before))).scalar()
        if time is None:
            return []
        wanted.append(tuple_(_c.time, _c.id) < tuple_(literal(time), literal(text(query.before))))
    rows = connection.execute(
        select(EXCHANGES).where(*wanted).order_by(_c.time.desc(), _c.id.desc()).limit(query.limit)
    )
    return [_json(row) for row in rows.mappings()]


def one(connection: Connection, id: str) -> Mapping[str, Any] | None:
    """The exchange of that id; else the latest whose `request_id` it is."""
    for column in (_c.id, _c.request_id):
        wanted = select(EXCHANGES).where(column == text(id)).order_by(_c.time.desc()).limit(1)
        found = connection.execute(wanted).mappings().first()
        if found is not None:
            return _json(found)
    return None


def charges(connection: Connection, prefix: str, since: float) -> Mapping[str, int]:
    """Sums of charges by scope, exact: scopes equal to `prefix` or that go on with a colon; `since` in epoch
    seconds.
    """
    prefix = text(prefix, MAX_SCOPE)
    start = f"{prefix}:"
    wanted = {"since": micros(since), "prefix": prefix, "length": len(start), "start": start}
    rows = connection.execute(_CHARGES[connection.dialect.name], wanted)
    return {scope: int(low) + (int(high) << 32) for scope, low, high in rows}


def _json(row: RowMapping) -> Mapping[str, Any]:
    shown = {str(name): value for name, value in row.items()}  # SQLAlchemy's names are a subclass of str
    cost = shown.pop("cost")
    savings = {f"{name}_usd": decimal(shown.pop(name)) for name in ("saved", "prompt_saved", "prompt_extra")}
    return {
        **shown,
        "time": rfc3339(from_micros(row["time"])),
        "labels": {label_name(key): value for key, value in row["labels"].items()},
        "cost_usd": None if cost is None else decimal(cost),
        **savings,
        "tries": row["tries"] or [],
    }
