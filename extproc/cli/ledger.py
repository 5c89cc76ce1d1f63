"""`extproc ledger`: a consumer's rows, their end, and the sums that reports read."""

from __future__ import annotations

import argparse
import sys

import msgspec

from extproc.cli._admin import add_gateway, connect
from extproc.cli._tables import progress

EXAMPLES = """\
  extproc ledger export --consumer ada > ada.jsonl     all rows of a consumer, one JSON object a line
  extproc ledger forget --consumer ada                 its rows stay for their cost, without its name
  extproc ledger forget --consumer ada --delete        its rows are deleted
  extproc ledger rebuild                               make the sums of hours and days anew
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["export", "forget", "rebuild"], help="what to do")
    parser.add_argument("--consumer", help="name of the consumer")
    parser.add_argument("--delete", action="store_true", help="with forget: delete the rows")
    add_gateway(parser)


def run(options: argparse.Namespace) -> int:
    """Raises OSError when the gateway does not answer, ValueError when it refuses."""
    if (options.what == "rebuild") is (options.consumer is not None):
        raise ValueError("export and forget need --consumer NAME; rebuild takes none")
    if options.delete and options.what != "forget":
        raise ValueError("--delete belongs to forget")
    gateway = connect(options)
    if options.what == "rebuild":
        gateway.text("/ledger/rebuild", body={})
        print("the sums are made anew within some minutes; reports show the earlier sums until then")
        return 0
    if options.what == "forget":
        body = {"consumer": options.consumer, "delete": options.delete}
        done = gateway.json("/ledger/forget", body=body)
        verb = "deleted" if options.delete else "anonymised"
        print(f"{done['rows']:,} rows {verb}, {done['answers']:,} kept answers deleted")
        return 0
    parameters = [("consumer", options.consumer)]
    rows = 0
    with progress() as said:
        while page := gateway.text("/ledger/export", parameters):
            sys.stdout.write(page)
            lines = page.splitlines()
            rows += len(lines)
            said(f"{rows:,} rows")
            parameters = [("consumer", options.consumer), ("before", str(msgspec.json.decode(lines[-1])["id"]))]
    return 0
