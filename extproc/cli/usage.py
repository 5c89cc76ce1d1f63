"""`extproc usage`: requests, tokens and cost, from a running gateway."""

from __future__ import annotations

import argparse

from extproc.cli._admin import add_filters, add_gateway, connect, filters
from extproc.cli._tables import usage_table

EXAMPLES = """\
  extproc usage                                              this month, by team and consumer
  extproc usage --group-by model --resolution day            each day by model
  extproc usage --only team=search --only label.agent=triage --format csv > search.csv
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)
    parser.add_argument(
        "--start", metavar="DATE", help="date or RFC 3339, inclusive (default: start of the month, UTC)"
    )
    parser.add_argument("--end", metavar="DATE", help="date or RFC 3339, exclusive (default: end of the month)")
    parser.add_argument(
        "--resolution",
        choices=["hour", "day", "month", "total"],
        default="total",
        help="length of a row (default: total)",
    )
    parser.add_argument(
        "--group-by", metavar="FIELDS", default="team,consumer", help="comma-separated fields (default: team,consumer)"
    )
    add_filters(parser)
    parser.add_argument("--format", choices=["table", "json", "csv"], default="table", help="(default: table)")


def run(options: argparse.Namespace) -> int:
    """Print a report. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    given = {name: getattr(options, name) for name in ("start", "end", "resolution", "group_by")}
    parameters = [*((name, value) for name, value in given.items() if value), *filters(options)]
    gateway = connect(options)
    if options.format == "table":
        print(usage_table(gateway.json("/usage", parameters)))
    else:
        print(gateway.text("/usage", [*parameters, ("format", options.format)]).rstrip())
    return 0
