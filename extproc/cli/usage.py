"""`extproc usage`: requests, tokens and cost, from a running gateway."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import islice

from extproc.cli._admin import add_filters, add_gateway, connect, filters
from extproc.cli._export import PART, Asked, as_csv, check_account, check_format, daily, due, export, place_of
from extproc.cli._options import hours
from extproc.cli._tables import usage_table

EXAMPLES = """\
  extproc usage                                              this month, by team and consumer
  extproc usage --group-by model --resolution day            each day by model
  extproc usage --only team=search --only label.agent=triage --format csv > search.csv
  extproc usage --format focus --start 2026-11-01 --end 2026-12-01 > november.csv
  extproc usage --format focus-parquet --to s3://finops/llm --daily
"""
_FIELDS = "team,consumer"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)
    parser.add_argument(
        "--start", metavar="DATE", help="date or RFC 3339, inclusive (default: start of the month, UTC)"
    )
    parser.add_argument("--end", metavar="DATE", help="date or RFC 3339, exclusive (default: end of the month)")
    parser.add_argument(
        "--resolution",
        choices=["minute", "hour", "day", "month", "total"],
        default="total",
        help="length of a row (default: total)",
    )
    parser.add_argument(
        "--group-by", metavar="FIELDS", default=_FIELDS, help=f"comma-separated fields (default: {_FIELDS})"
    )
    add_filters(parser)
    parser.add_argument(
        "--format",
        choices=["table", "json", "csv", "focus", "focus-parquet"],
        default="table",
        help="focus: rows of FOCUS 1.2, by day (default: table)",
    )
    focus = parser.add_argument_group("with --format focus or focus-parquet")
    focus.add_argument(
        "--to", metavar="PLACE", help="folder, or s3://bucket/prefix: each day that has passed once, with a manifest"
    )
    focus.add_argument("--daily", action="store_true", help="with --to: stay, and export each day when it has passed")
    focus.add_argument(
        "--delay", type=hours, default=2.0, metavar="HOURS", help="with --to: wait after a day's end (default: 2)"
    )
    focus.add_argument("--account", default="llm-extproc", help="name of the billing account (default: llm-extproc)")
    focus.add_argument("--region", default="", help="region of the bucket (default: AWS_REGION)")
    focus.add_argument("--endpoint", default="", metavar="URL", help="store that speaks S3, in place of AWS")


def run(options: argparse.Namespace) -> int:
    """Print a report, or export one. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    if options.format.startswith("focus"):
        return _focus(options)
    if options.to or options.daily:
        raise ValueError("--to and --daily need --format focus or focus-parquet")
    given = {name: getattr(options, name) for name in ("start", "end", "resolution", "group_by")}
    parameters = [*((name, value) for name, value in given.items() if value), *filters(options)]
    gateway = connect(options)
    if options.format == "table":
        print(usage_table(gateway.json("/usage", parameters)))
    else:
        print(gateway.text("/usage", [*parameters, ("format", options.format)]).rstrip())
    return 0


def _focus(options: argparse.Namespace) -> int:
    start, end = _date(options.start, "--start"), _date(options.end, "--end")
    check_account(options.account)
    check_format(options.format)
    if options.daily and (end or not options.to):
        raise ValueError("--daily needs --to and takes no --end")
    if options.format == "focus-parquet" and not options.to:
        raise ValueError("--format focus-parquet needs --to")
    place = place_of(options.to, options.region, options.endpoint) if options.to else None
    fields = [name for name in options.group_by.split(",") if name]
    asked = Asked(connect(options), options.account, fields, filters(options))
    if place is None:
        _print_days(asked, start, end)
        return 0

    def work(now: datetime) -> None:
        for day in due(start, end, options.delay, now):
            if done := export(asked, day, options.format, place):
                print(f"{day}: {done['rows']:,} rows, {done['billed_cost']} USD", flush=True)
            elif not options.daily:
                print(f"{day}: exported before")

    if options.daily:
        daily(work, lambda text: print(text, file=sys.stderr))
    work(datetime.now(UTC))
    return 0


def _print_days(asked: Asked, start: date | None, end: date | None) -> None:
    """One CSV file of all days, on standard output. The default is this month up to now."""
    today = datetime.now(UTC).date()
    start, end = start or today.replace(day=1), end or today + timedelta(days=1)
    sys.stdout.write(as_csv([]).decode())
    for number in range((end - start).days):
        rows = asked.rows(start + timedelta(days=number))
        while part := list(islice(rows, PART)):
            sys.stdout.write(as_csv(part, head=False).decode())


def _date(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} is a date with this format: 2026-11-01") from None
