"""Rows in the form for a database: no value that a client put into an exchange is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import quote, unquote

import msgspec

from extproc.money.ledger import Row
from extproc.words.tries import FailedTry

MAX_TEXT = 256  # bytes of UTF-8
MAX_LABELS = 32
MAX_VERDICTS = 32
MAX_TRIES = 16
MAX_CHARGES = 256  # most scopes of one exchange
MAX_SCOPE = 8192  # most bytes of a scope
MAX_COUNT = (1 << 32) - 1  # most tokens, attempts or milliseconds: 2,000 million such rows sum up in 64 bits
MAX_AMOUNT = (1 << 63) - 1  # most nano-USD, and the highest charge of a scope
MAX_SAVED = 1_000_000_000_000  # most nano-USD saved in one exchange: nine million such rows sum up in 64 bits
MAX_TIME = 253_402_300_799  # the last second of the year 9999

COLUMNS = Row.__struct_fields__

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_encode = msgspec.json.Encoder().encode


def text(value: str, most: int = MAX_TEXT) -> str:
    """The text, cut to `most` bytes. NUL and lone surrogates, which PostgreSQL refuses, become U+FFFD."""
    if len(value) <= most and value.isascii() and "\0" not in value:
        return value
    return _UNSTORABLE.sub("\ufffd", value[:most]).encode()[:most].decode(errors="ignore")


_name = lru_cache(maxsize=4096)(text)
"""`text` for values that many rows share: they come from the settings or from a fixed set."""


def label_key(name: str) -> str:
    """A label's name in the database: percent-quoted, so that it can stand in the JSON path of any database."""
    return quote(text(name), safe="")


def label_name(key: str) -> str:
    return unquote(key)


def labels_json(labels: Mapping[str, str]) -> str:
    if not labels:
        return "{}"
    kept = list(labels.items())[:MAX_LABELS]
    return _encode({label_key(name): text(value) for name, value in kept if name}).decode()


def micros(seconds: float) -> int:
    """Microseconds since the epoch, 1970 to 9999."""
    return int(min(max(0.0, seconds), MAX_TIME) * 1_000_000)


def values(row: Row) -> tuple[object, ...]:
    """A value for each of COLUMNS. Raises TypeError, ValueError or AttributeError on a row of the wrong types."""
    return (
        text(row.id),
        micros(row.time),
        text(row.request_id),
        text(row.consumer),
        text(row.team),
        text(row.key),
        labels_json(row.labels),
        _name(row.operation),
        text(row.model),
        _name(row.target),
        _name(row.provider),
        _name(row.provider_model),
        _count(row.attempts),
        _count(row.status),
        _name(row.error),
        _name(row.outcome),
        bool(row.stream),
        bool(row.complete),
        _count(row.input_tokens),
        _count(row.output_tokens),
        _count(row.cached_tokens),
        _count(row.cache_write_tokens),
        _count(row.reasoning_tokens),
        _name(row.usage_source),
        None if row.cost is None else _amount(row.cost),
        _name(row.price_version),
        _count(row.duration_ms),
        None if row.first_token_ms is None else _count(row.first_token_ms),
        _encode([text(verdict) for verdict in row.guardrails[:MAX_VERDICTS]]).decode() if row.guardrails else "[]",
        _name(row.denied_by),
        None if row.charges is None else _charges(row.charges),
        _name(row.cache),
        min(max(0, row.saved), MAX_SAVED),
        _tries(row.tries) if row.tries else None,
        min(max(0, row.prompt_saved), MAX_SAVED),
        min(max(0, row.prompt_extra), MAX_SAVED),
        text(row.run),
        text(row.endpoint),
        _levels(row.levels) if row.levels else None,
        None if row.traits is None else _encode(row.traits).decode(),
    )


def _count(value: int) -> int:
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    return int(min(max(0, value), MAX_COUNT))


def _amount(value: int) -> int:
    return int(min(max(0, value), MAX_AMOUNT))


def _tries(tries: Sequence[FailedTry]) -> str:
    return _encode(
        [
            {
                "target": text(try_.target),
                "provider": text(try_.provider),
                "status": _count(try_.status),
                "ms": _count(try_.ms),
                "outcome": text(try_.outcome),
            }
            for try_ in tries[:MAX_TRIES]
        ]
    ).decode()


def _charges(charges: Mapping[str, int]) -> str:
    kept = list(charges.items())[:MAX_CHARGES]
    return _encode({text(scope, MAX_SCOPE): _amount(amount) for scope, amount in kept}).decode()


def _levels(levels: Mapping[str, Sequence[int]]) -> str:
    kept = list(levels.items())[:MAX_CHARGES]
    return _encode({text(scope, MAX_SCOPE): [_amount(each) for each in level] for scope, level in kept}).decode()
