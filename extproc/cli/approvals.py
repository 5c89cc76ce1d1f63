"""`extproc approvals`: requests and calls of tools that wait for a person."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from extproc.cli._admin import add_gateway, connect
from extproc.cli._tables import questions_table, safe

EXAMPLES = """\
  extproc approvals                                                what waits, the latest first
  extproc approvals --approve 5c1f0a --reason "demo on Friday"     one of them may be sent, once
  extproc approvals --deny 5c1f0a --reason "not on a Friday"       the client is told the reason
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)
    parser.add_argument("--format", choices=["table", "json"], default="table", help="(default: table)")
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--approve", metavar="QUESTION", help="allow the request of a question to be sent, once")
    act.add_argument("--deny", metavar="QUESTION", help="refuse it")
    parser.add_argument("--reason", default="", help="the reason of --approve or --deny, which the client is told")


def run(options: argparse.Namespace) -> int:
    """Print questions, or answer one. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    gateway = connect(options)
    id = options.approve or options.deny
    if options.reason and not id:
        raise ValueError("--reason is that of --approve or --deny")
    if id is None:
        print(gateway.text("/questions") if options.format == "json" else questions_table(gateway.json("/questions")))
        return 0
    decision = {"decision": "approve" if options.approve else "deny", "reason": options.reason}
    done = gateway.json(f"/questions/{quote(id, safe='')}", body=decision)
    called, what = done["call"], f"{done['amount']} of {done['scope']}"
    if called is not None:
        what = f"a call of {called['server']}/{called['tool']}"
    print(safe(f"{done['state']}: {what} for {done['consumer'] or 'anonymous'}"))
    return 0
