"""`extproc reconcile`: a provider's bill beside the ledger, and the causes of each difference."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from extproc.cli._admin import add_gateway, connect
from extproc.cli._options import read_secret
from extproc.cli._tables import money, progress, safe, table
from extproc.money.reconcile import Billed
from extproc.money.reconcile.bills import API, Bill, bills
from extproc.money.reconcile.compare import CAUSES, Book, Difference, compare
from extproc.money.reconcile.files import Row, rows
from extproc.wire.outbound.client import AnswerError, ask_whole

EXAMPLES = """\
  extproc reconcile openai --admin-key env:OPENAI_ADMIN_KEY        this month, from the costs API
  extproc reconcile anthropic --admin-key env:ANTHROPIC_ADMIN_KEY --from 2026-11-01 --to 2026-12-01
  extproc reconcile bedrock --file cur/ --from 2026-11-01 --key 123456789012=bedrock
  extproc reconcile azure --file november.csv.gz --alias gpt-4o-0806=chat-eu --format json
"""

MAX_PAGE = 64 << 20  # most bytes of a page
MAX_PAGES = 10_000
_TIMEOUT = 120.0  # seconds to wait for a page
_TRIES = 5
_LONGEST_WAIT = 60.0  # longest pause before a page is requested again, seconds
_SHOWN = 50  # most differences in the table
_SMALLEST = Decimal("1e-9")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bill", choices=sorted(bills()), help="whose bill")
    parser.add_argument("--from", dest="start", type=_day, metavar="DATE", help="inclusive, UTC (default: the month)")
    parser.add_argument("--to", dest="end", type=_day, metavar="DATE", help="exclusive, UTC (default: today)")
    parser.add_argument(
        "--file",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="file or folder of the bill: csv, json, jsonl or parquet, with .gz or not; may be repeated",
    )
    parser.add_argument(
        "--admin-key", metavar="env:NAME|file:PATH", help="admin key for the provider's reports of costs"
    )
    parser.add_argument("--base-url", help="address of that API (default: the provider's)")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="ID=PROVIDER",
        help="API key, project, workspace, account or resource in the bill that the gateway uses for this entry of "
        "`providers`; may be repeated (default: all belong to the gateway)",
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="BILL=LEDGER",
        help="a model's name in the bill, and in the ledger; may be repeated",
    )
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME",
        help="entry of `providers`; may be repeated (default: all of the bill's kind in the settings)",
    )
    parser.add_argument(
        "--tolerance", type=_percent, default=Decimal("0.01"), metavar="PERCENT", help="(default: 0.01 of the bill)"
    )
    parser.add_argument("--format", choices=["table", "json"], default="table", help="(default: table)")
    add_gateway(parser)


def run(options: argparse.Namespace) -> int:
    """Print the comparison: 0 within the tolerance, 1 above it. Raises OSError where a file, the provider or the
    gateway does not answer, ValueError where one cannot be read or refuses.
    """
    bill = bills()[options.bill]
    start, end = _range(options.start, options.end)
    keys = _pairs(options.key, "--key")
    names = _providers(options, bill, keys)
    one = "" if keys else "+".join(names)
    billed = Billed(one, str(start), str(end), keys, _pairs(options.alias, "--alias"))
    book = Book(one)
    with progress() as say:
        for number, line in enumerate(bill.lines(_rows(options, bill, start, end))):
            billed.add(line)
            if not number % 10_000:
                say(f"{number:,} lines of the bill")
        for row in _ledger(options, names, start, end):
            book.add(row)
    differences = compare(billed, book)
    found = _summary(options, billed, differences)
    print(json.dumps(found, indent=1) if options.format == "json" else _format_report(found, options.tolerance))
    return int(Decimal(found["percent"]) > options.tolerance)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("a date is expected: 2026-11-01") from None


def _percent(text: str) -> Decimal:
    if not text.replace(".", "", 1).isdecimal() or Decimal(text) > 100:
        raise argparse.ArgumentTypeError("a number of percent, 0 to 100, is expected")
    return Decimal(text)


def _pairs(texts: Sequence[str], option: str) -> Mapping[str, str]:
    pairs = [text.rpartition("=") for text in texts]
    if not all(name and value for name, _, value in pairs):
        raise ValueError(f"{option} is given as {'ID=PROVIDER' if option == '--key' else 'BILL=LEDGER'}")
    return {name: value for name, _, value in pairs}


def _range(start: date | None, end: date | None) -> tuple[date, date]:
    end = end or datetime.now(UTC).date()
    start = start or (end - timedelta(days=1)).replace(day=1)
    if start >= end:
        raise ValueError("--from must be before --to")
    return start, end


def _providers(options: argparse.Namespace, bill: Bill, keys: Mapping[str, str]) -> Sequence[str]:
    if named := sorted({*options.provider, *keys.values()}):
        return named
    if options.url is not None:
        raise ValueError("with --url, name the entries of `providers`: --provider NAME")
    from extproc.settings import config  # noqa: PLC0415 - it would take most of the time if it is not needed

    found = [name for name, entry in config.load(options.config).providers.items() if entry.kind in bill.kinds]
    if not found:
        raise ValueError(f"the settings have no provider of the kind {' or '.join(bill.kinds)}: name one, --provider")
    return found


# --- the two sides


def _rows(options: argparse.Namespace, bill: Bill, start: date, end: date) -> Iterator[Row]:
    if options.file and options.admin_key:
        raise ValueError("give --file or --admin-key, not both")
    if options.file:
        return itertools.chain.from_iterable(rows(path) for path in options.file)
    if bill.api is None:
        raise ValueError(f"the bill of {options.bill} is read from its export's files: --file PATH")
    if options.admin_key is None:
        raise ValueError("give the bill's files, --file PATH, or the key of its API, --admin-key env:NAME")
    headers = bill.api.headers(read_secret(options.admin_key, "--admin-key"))
    base = (options.base_url or bill.api.base_url).rstrip("/")
    midnights = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (start, end)]
    targets = bill.api.targets(midnights[0], midnights[1])
    return itertools.chain.from_iterable(_pages(bill.api, base, target, headers) for target in targets)


def _pages(api: API, base: str, first: str, headers: Mapping[str, str]) -> Iterator[Row]:
    """All pages of one target. Raises OSError and ValueError as `run` does."""
    target = first
    for _ in range(MAX_PAGES):
        page = _page(base + target, headers)
        yield page
        following = api.following(first, page)
        if following is None:
            return
        if following == target:
            raise ValueError("the provider's report goes on with the same page")
        target = following
    raise ValueError(f"the bill has more than {MAX_PAGES:,} pages: compare a shorter time")


def _page(url: str, headers: Mapping[str, str]) -> Mapping[str, Any]:
    place = url.partition("?")[0]
    for tries in range(1, _TRIES + 1):
        try:
            status, said, data = ask_whole(url, None, headers, timeout=_TIMEOUT, most=MAX_PAGE)
        except (OSError, AnswerError) as error:
            raise OSError(f"{place} does not answer: {error or type(error).__name__}") from None
        if tries == _TRIES or not (status == 429 or status >= 500):
            break
        asked = said.get("retry-after", "")
        time.sleep(min(_LONGEST_WAIT, int(asked) if asked.isdecimal() and len(asked) < 5 else 2.0**tries))
    if status != 200:
        hint = ": it wants an admin key of the organization" if status in (401, 403) else ""
        raise ValueError(f"{place} refuses with status {status}{hint}")
    try:
        return msgspec.json.Decoder(dict[str, Any], float_hook=str).decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(f"{place} does not answer with a JSON object of up to {MAX_PAGE >> 20} MiB") from None


def _ledger(options: argparse.Namespace, names: Sequence[str], start: date, end: date) -> Iterator[Mapping[str, Any]]:
    """The gateway's usage report of each day, row by row."""
    gateway = connect(options)
    for number in range((end - start).days):
        day = start + timedelta(days=number)
        report = gateway.json(
            "/usage",
            [
                *(("start", str(day)), ("end", str(day + timedelta(days=1))), ("resolution", "day")),
                ("group_by", "provider,provider_model,usage_source,cache"),
                *(("provider", name) for name in names),
            ],
        )
        if report["truncated"]:
            raise ValueError(f"the ledger has more than 10,000 models on {day}: name fewer providers, --provider")
        yield from report["data"]


# --- the outcome


def _summary(options: argparse.Namespace, billed: Billed, differences: Sequence[Difference]) -> Mapping[str, Any]:
    causes: dict[str, Decimal] = {}
    cells = Counter[str]()
    for each in differences:
        for cause, usd in each.causes.items():
            causes[cause] = causes.get(cause, Decimal(0)) + usd
            cells[cause] += 1
    total = sum((each.billed for each in differences), Decimal(0))
    charged = sum((each.charged for each in differences), Decimal(0))
    size = sum((each.size for each in differences), Decimal(0))
    return {
        "object": "reconciliation",
        "bill": options.bill,
        "start": billed.start,
        "end": billed.end,
        "billed_usd": _usd(total),
        "charged_usd": _usd(charged),
        "difference_usd": _usd(total - charged),
        "percent": f"{100 * size / max(total, charged, _SMALLEST):.4f}",
        "causes": {cause: {"usd": _usd(causes[cause]), "cells": cells[cause]} for cause in CAUSES if cause in causes},
        "data": [_cell(each) for each in differences if each.causes],
        "other_keys": {key: _usd(usd) for key, usd in billed.elsewhere.items()},
    }


def _cell(each: Difference) -> Mapping[str, Any]:
    beside = {kind: int(tokens) for kind, tokens in each.surplus.items() if tokens > 0}
    return {
        "day": each.cell.day,
        "provider": each.cell.provider,
        "model": each.model,
        "billed_usd": _usd(each.billed),
        "charged_usd": _usd(each.charged),
        "causes": {cause: _usd(usd) for cause, usd in each.causes.items()},
        **({"tokens_beside": beside} if "beside_the_gateway" in each.causes else {}),
        **({"answered": each.answered} if each.answered else {}),
    }


def _usd(amount: Decimal) -> str:
    shown = f"{amount.quantize(_SMALLEST):f}".rstrip("0").rstrip(".")
    return "0" if shown in ("-0", "") else shown


def _format_report(found: Mapping[str, Any], tolerance: Decimal) -> str:
    lines = [f"{found['bill']}, {found['start']} to {found['end']} (UTC, exclusive)", ""]
    if found["causes"]:
        parts = [
            [cause, f"{part['cells']:,}", money(part["usd"], 2), CAUSES[cause]]
            for cause, part in found["causes"].items()
        ]
        lines += [table(["cause", "cells", "usd", "meaning"], parts, right=(1, 2)), ""]
    told = [each for each in found["data"] if set(each["causes"]) - {"rounding"}]
    told.sort(key=lambda each: -sum(abs(Decimal(usd)) for usd in each["causes"].values()))
    if told:
        cells = [line for each in told[:_SHOWN] for line in _cell_lines(each)]
        lines += [table(["day", "provider", "model", "billed", "charged", "cause", "usd"], cells, right=(3, 4, 6)), ""]
    if len(told) > _SHOWN:
        lines += [f"{len(told) - _SHOWN:,} more differences: --format json has all.", ""]
    for key, usd in sorted(found["other_keys"].items(), key=lambda pair: -Decimal(pair[1]))[:_SHOWN]:
        lines.append(f"Not the gateway's: {safe(key or '(no key)')}, {money(usd, 2)} USD")
    word = "above" if Decimal(found["percent"]) > tolerance else "within"
    lines.append(
        f"Billed {money(found['billed_usd'], 2)} USD, charged {money(found['charged_usd'], 2)} USD. "
        f"Differences are {found['percent']} % of the bill, {word} the tolerance of {tolerance} %."
    )
    return "\n".join(lines)


def _cell_lines(each: Mapping[str, Any]) -> Iterator[list[str]]:
    """A line for each cause; the cell's name and costs stand in the first."""
    head = [each["day"], each["provider"], each["model"], money(each["billed_usd"], 2), money(each["charged_usd"], 2)]
    for cause, usd in each["causes"].items():
        if cause == "beside_the_gateway":
            cause = f"{cause} ({sum(each['tokens_beside'].values()):,} tokens)"  # noqa: PLW2901
        elif cause == "another_model" and "answered" in each:
            cause = f"{cause}: {each['answered']}"  # noqa: PLW2901
        yield [*head, cause, money(usd, 2)]
        head = [""] * len(head)
