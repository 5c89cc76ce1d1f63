"""The tables as SQLAlchemy knows them, for reports. `schema.py` creates them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from extproc.money.ledger.measures import MEASURES
from extproc.money.ledger.query import FIELDS
from extproc.money.ledger.rows import COLUMNS

_NUMBERS = {
    *("time", "attempts", "status", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"),
    *(
        "reasoning_tokens",
        "cost",
        "duration_ms",
        "first_token_ms",
        "saved",
        "prompt_saved",
        "prompt_extra",
        "start",
        "claimed",
        *MEASURES,
    ),
}
_JSON = JSON().with_variant(JSONB(), "postgresql")


def _column(name: str) -> Column[object]:
    if name in _NUMBERS:
        return Column(name, BigInteger)
    if name in ("stream", "complete"):
        return Column(name, Boolean)
    return Column(name, _JSON if name in ("labels", "guardrails", "charges", "tries") else Text)


EXCHANGES = Table("exchanges", MetaData(), *[_column(name) for name in COLUMNS])
ROLLUPS = Table("rollups", MetaData(), *map(_column, ("cube", "start", "value", *FIELDS, *MEASURES)))
UNITS = Table("rollup_units", MetaData(), *map(_column, ("start", "cube", "state", "claimed")))
