"""Bills of providers, a file each. The module's name is the argument on the command line: `extproc reconcile openai`.

A `Table` gives the meaning of a file's columns. `Pages` are an API whose answers come page by page; a file with a page
on each line is read in the same way.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, ClassVar
from urllib.parse import urlencode

from extproc.money.reconcile import BillError, Line, kind_of
from extproc.money.reconcile.files import Row

Columns = tuple[str, ...]
"""Possible names of a column, in lower case; the first name in a row counts. `a.b` is `b` in the object `a`,
or `a_b`.
"""
_SCALE = re.compile(r"\b(\d+)\s*([KM]?)\b", re.IGNORECASE)
_FACTORS = {"": 1, "K": 1_000, "M": 1_000_000}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A bill with a row for each charge. `patterns` find `model` in a row's names, and the words of its `kind`; a row
    without a match is a fee without a model. `only` are columns with patterns: rows without a match are left out. `usd`
    is the cost in USD, which wins over `cost` in the row's currency; `per_usd` is the amount of that currency for one
    USD.
    """

    api: ClassVar[None] = None
    source: str
    kinds: Sequence[str]  # kinds of providers in the settings
    day: Columns
    keys: Sequence[Columns]
    name: Sequence[Columns]
    patterns: Sequence[re.Pattern[str]]
    cost: Columns
    quantity: Columns
    unit: Columns
    currency: Columns = ()
    usd: Columns = ()
    per_usd: Columns = ()
    only: Mapping[Columns, re.Pattern[str]] = field(default_factory=dict)

    def lines(self, rows: Iterable[Row]) -> Iterator[Line]:
        """The bill's lines. Raises BillError for a row without day or cost, or in a currency other than USD."""
        for row in rows:
            if all(pattern.search(_text(row, columns)) for columns, pattern in self.only.items()):
                yield self._line(row)

    def _line(self, row: Row) -> Line:
        day, keys = day_of(_text(row, self.day)), tuple(_text(row, columns) for columns in self.keys)
        names = [_text(row, columns) for columns in self.name]
        matches = (pattern.search(name) for name in names for pattern in self.patterns)
        match = next(filter(None, matches), None)
        if match is None:
            return Line(day, keys, "", "fee", self._cost(row))
        kind = kind_of(match["kind"])
        if kind == "fee":
            kind = kind_of(names[0])
        return Line(day, keys, match["model"], kind, self._cost(row), self._quantity(row) if kind != "fee" else None)

    def _cost(self, row: Row) -> Decimal:
        if (usd := _number(row, self.usd)) is not None:
            return usd
        cost, currency = _number(row, self.cost), _text(row, self.currency)
        if cost is None:
            raise BillError(f"a row has no {' or '.join(self.cost)}")
        if currency in ("", "USD"):
            return cost
        if not (per_usd := _number(row, self.per_usd)):
            raise BillError(f"the bill is in {currency[:16]}; the ledger is in USD")
        return cost / per_usd

    def _quantity(self, row: Row) -> Decimal | None:
        quantity, unit = _number(row, self.quantity), _text(row, self.unit)
        scale = _SCALE.search(unit)
        if quantity is None or not self.unit or scale is None:
            return quantity if not self.unit or "token" in unit.lower() else None
        return quantity * int(scale[1]) * _FACTORS[scale[2].upper()]


@dataclass(frozen=True, kw_only=True)
class API:
    """The bill of an API: GET requests, each answered with pages of `{has_more, next_page}`. Each of `calls` gives path
    and parameters for a start and an end. `headers` carry the admin key.
    """

    base_url: str
    calls: Sequence[Callable[[datetime, datetime], tuple[str, Sequence[tuple[str, str]]]]]
    headers: Callable[[str], Mapping[str, str]]

    def targets(self, start: datetime, end: datetime) -> Iterator[str]:
        """Path and query of each call's first page."""
        for call in self.calls:
            path, parameters = call(start, end)
            yield f"{path}?{urlencode(parameters)}"

    def following(self, target: str, page: Row) -> str | None:
        """The target of the page after `page`; None after the last page. `target` is that of the first page."""
        if not page.get("has_more"):
            return None
        if not (mark := page.get("next_page")):
            raise BillError("the provider's report has more pages, and does not say which")
        return f"{target}&{urlencode({'page': mark})}"


@dataclass(frozen=True, kw_only=True)
class Pages:
    """A bill of pages. `read` gives the lines of one page."""

    source: str
    kinds: Sequence[str]
    api: API
    read: Callable[[Row], Iterator[Line]]

    def lines(self, rows: Iterable[Row]) -> Iterator[Line]:
        """The bill's lines. Raises BillError for a page of another form."""
        for row in rows:
            try:
                yield from self.read(row)
            except (KeyError, TypeError, AttributeError, InvalidOperation) as error:
                raise BillError(f"this is no page of {self.source}: {type(error).__name__} {error}") from None


Bill = Table | Pages


@cache
def bills() -> Mapping[str, Bill]:
    """All bills, by their names on the command line."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").BILL for name in names}


def day_of(text: str) -> str:
    """The date of `2026-11-01T09:00:00Z` or `11/01/2026`. Raises BillError."""
    try:
        if text[2:3] == "/":
            return datetime.strptime(text[:10], "%m/%d/%Y").strftime("%Y-%m-%d")  # noqa: DTZ007 - a date alone
        return datetime.fromisoformat(text[:10]).strftime("%Y-%m-%d")
    except ValueError:
        raise BillError(f"{text[:40]!r} is no day") from None


def _value(row: Row, columns: Columns) -> Any:
    for name in columns:
        if (found := row.get(name)) not in (None, ""):
            return found
        head, dot, rest = name.partition(".")
        if dot and isinstance(inner := row.get(head), Mapping) and inner.get(rest) not in (None, ""):
            return inner[rest]
        if dot and (found := row.get(name.replace(".", "_"))) not in (None, ""):
            return found
    return None


def _text(row: Row, columns: Columns) -> str:
    found = _value(row, columns)
    return found.isoformat() if isinstance(found, datetime) else "" if found is None else str(found)


def _number(row: Row, columns: Columns) -> Decimal | None:
    found = _value(row, columns)
    return None if found is None else number(found)


def number(value: Any) -> Decimal:
    """Raises BillError for a text that is no number."""
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise BillError(f"{str(value)[:40]!r} is no number") from None
    if not found.is_finite():
        raise BillError(f"{str(value)[:40]!r} is no number")
    return found
