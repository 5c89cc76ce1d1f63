"""`extproc budgets`: the room left in each budget, and grants beyond a limit."""

from __future__ import annotations

import argparse

from extproc.cli._admin import add_gateway, connect
from extproc.cli._tables import budgets_table, safe

EXAMPLES = """\
  extproc budgets                                                  each budget, its fullest counts first
  extproc budgets --grant team-month team-month:team=search 25     25 USD more until the window ends
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)
    parser.add_argument("--format", choices=["table", "json"], default="table", help="(default: table)")
    parser.add_argument(
        "--grant",
        nargs=3,
        metavar=("BUDGET", "SCOPE", "AMOUNT"),
        help="allow one count this much beyond its limit, in the budget's unit, until the window ends",
    )


def run(options: argparse.Namespace) -> int:
    """Print budgets, or give a grant. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    gateway = connect(options)
    if options.grant is not None:
        given = gateway.json("/grants", body=dict(zip(("budget", "scope", "amount"), options.grant, strict=True)))
        print(safe(f"granted {given['amount']} to {given['scope']} until {given['expires_at']} ({given['id']})", 4096))
    elif options.format == "json":
        print(gateway.text("/budgets"))
    else:
        print(budgets_table(gateway.json("/budgets")))
    return 0
