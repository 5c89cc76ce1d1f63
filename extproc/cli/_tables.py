"""Tables for the terminal: usage reports and budgets.

Text in them comes from clients, so it must never steer the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

_WIDEST = 60  # most characters of a cell
_SUMS = ("requests", "refused", "errors", "input_tokens", "output_tokens")


def usage_table(report: Mapping[str, Any]) -> str:
    """The table of a usage report: a line for each group and time, then the total."""
    fields, timed = report["group_by"], report["resolution"] != "total"
    heads = [*(["from (UTC)"] if timed else []), *fields, *_SUMS, "usd"]
    short = {"minute": 16, "hour": 16, "day": 10, "month": 7}.get(report["resolution"], 0)
    places = max(len(row["cost_usd"].partition(".")[2]) for row in (*report["data"], report["total"]))
    rows = [
        [
            *([row["start"][:short].replace("T", " ")] if timed else []),
            *(_named(row["group"].get(name)) for name in fields),
            *_numbers(row, places),
        ]
        for row in report["data"]
    ]
    before = len(heads) - len(_SUMS) - 1
    foot = [*(["total"] if before else []), *[""] * (before - 1), *_numbers(report["total"], places)]
    lines = [table(heads, rows, foot, right=range(before, len(heads)))]
    if unpriced := report["total"]["unpriced"]:
        lines.append(f"{unpriced} requests have no known price and are not in the USD; see `prices` in the settings.")
    for count, usd, what in (
        ("cache_hits", "saved_usd", "saved"),
        ("shadow_hits", "would_save_usd", "would have saved"),
    ):
        if report["total"][count]:
            lines.append(f"Kept answers {what} {report['total'][usd]} USD ({report['total'][count]:,} requests).")
    for provider, each in report.get("capacity", {}).items():
        used = f"{each['used_usd']} used by requests, {each['idle_usd']} idle"
        lines.append(f"{safe(provider)}: {each['usd']} USD of own hardware, {used}.")
    if report["truncated"]:
        lines.append("There are more rows than are shown: ask for less, or for fewer groups.")
    return "\n".join(lines)


def _numbers(row: Mapping[str, Any], places: int) -> Sequence[str]:
    return [*(f"{row[name]:,}" for name in _SUMS), money(row["cost_usd"], places)]


def budgets_table(answer: Mapping[str, Any]) -> str:
    """The table of budgets: a line for each count, the fullest count of each budget first."""
    heads = ["budget", "of", "unit", "window", "limit", "spent", "held", "granted", "left", "used", "resets (UTC)"]
    rows = []
    for budget in answer["data"]:
        window = (budget["window"] or "at once") + (" (shadow)" if budget["mode"] == "shadow" else "")
        resets = (budget["resets_at"] or "never")[:16].replace("T", " ")
        limit = money(budget["limit"])
        for scope in budget["scopes"]:
            amounts = [money(scope[name]) for name in ("settled", "reserved", "granted", "remaining")]
            rows.append(
                [
                    budget["name"],
                    count_of(scope),
                    budget["unit"],
                    window,
                    limit,
                    *amounts,
                    f"{scope['used']:.1%}",
                    resets,
                ]
            )
        if not budget["scopes"]:
            rows.append([budget["name"], "-", budget["unit"], window, limit, "0", "0", "0", limit, "0.0%", resets])
    if not rows:
        return "No budget is set, so nothing is limited: see `budgets` in the settings."
    return table(heads, rows, right=range(4, 10))


def questions_table(answer: Mapping[str, Any]) -> str:
    """The table of requests and calls of tools that wait for a person, the latest first."""
    heads = ["question", "asked (UTC)", "state", "consumer", "team", "budget or tool", "of", "at most", "unit", "model"]
    rows = [
        [
            *(one["id"], one["asked_at"][:16].replace("T", " "), one["state"]),
            *(one["consumer"] or "(none)", one["team"]),
            *(one["budget"], count_of(one), money(one["amount"]), one["unit"], one["model"] or one["operation"]),
        ]
        if one["call"] is None
        else [
            *(one["id"], one["asked_at"][:16].replace("T", " "), one["state"]),
            *(one["consumer"] or "(none)", one["team"]),
            *(f"{one['call']['server']}/{one['call']['tool']}", one["call"]["arguments"], "1", "call", one["model"]),
        ]
        for one in answer["data"]
    ]
    return table(heads, rows, right=[7]) if rows else "No request waits for a person."


def count_of(scope: Mapping[str, Any]) -> str:
    """The column `of` of a count: its fields, or `all`."""
    return ", ".join(f"{name}={_named(value)}" for name, value in scope["fields"].items()) or "all"


def money(text: str, places: int = 0) -> str:
    """An exact amount with separated thousands and at least `places` decimals; if it has decimals, at least two."""
    whole, _, decimals = f"{Decimal(text):f}".partition(".")
    sign = "-" if whole.startswith("-") else ""
    return f"{sign}{int(whole.lstrip('-')):,}" + (f".{decimals:0<{max(2, places)}}" if decimals or places else "")


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] = (), right: Sequence[int] = ()
) -> str:
    """Aligned columns, two spaces apart; columns in `right` are aligned to the right. A line separates `foot`."""
    cells = [[safe(cell) for cell in row] for row in (heads, *rows, *([foot] if foot else []))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1 : len(rows) + 1], *([rule, lines[-1]] if foot else [])])


def aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[int] = ()) -> str:
    """A line of a table whose widths are known before its rows. The last cell is never cut to a width."""
    lined = [
        safe(cell, width).rjust(width) if index in right else safe(cell, width).ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=False))
    ]
    return "  ".join([*lined, *map(safe, cells[len(widths) :])]).rstrip()


_PAINT = {"good": 32, "doubtful": 33, "bad": 31}
"""Colours of ECMA-48."""


def painted(text: str, colour: str) -> str:
    """`text` in a colour where standard output is a terminal that shows colours and NO_COLOR is not set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[{_PAINT[colour]}m{text}\x1b[0m"


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that rewrites a line on standard error, if that is a terminal. The line is removed at the end."""
    shows = sys.stderr.isatty()

    def say(text: str) -> None:
        if shows:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        say("")


def safe(text: str, most: int = _WIDEST) -> str:
    """`text` for a terminal: characters that are not printable are shown as ?, and long text is cut."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _named(value: object) -> str:
    return "(none)" if value is None or value == "" else str(value)
