"""`extproc budgets`: the room left in each budget, and grants beyond a limit."""

from __future__ import annotations

import argparse

from extproc.cli._admin import Gateway, add_gateway, connect
from extproc.cli._tables import budgets_table, count_of, safe

EXAMPLES = """\
  extproc budgets                                                  each budget, its fullest counts first
  extproc budgets --grant team-month team=search 25                25 USD more until the window ends
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)
    parser.add_argument("--format", choices=["table", "json"], default="table", help="(default: table)")
    parser.add_argument(
        "--grant",
        nargs=3,
        metavar=("BUDGET", "OF", "AMOUNT"),
        help="allow one count this much beyond its limit, in the budget's unit, until the window ends; OF names the "
        "count as the table does, or by its `scope`",
    )


def run(options: argparse.Namespace) -> int:
    """Print budgets, or give a grant. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    gateway = connect(options)
    if options.grant is not None:
        budget, of, amount = options.grant
        given = gateway.json("/grants", body={"budget": budget, "scope": _scope(gateway, budget, of), "amount": amount})
        print(safe(f"granted {given['amount']} to {given['scope']} until {given['expires_at']} ({given['id']})", 4096))
    elif options.format == "json":
        print(gateway.text("/budgets"))
    else:
        print(budgets_table(gateway.json("/budgets")))
    return 0


def _scope(gateway: Gateway, name: str, of: str) -> str:
    """The scope of the count that the table calls `of`; `of` itself where it has no such count."""
    if of.partition(":")[0] == name:
        return of
    scopes = [
        scope for budget in gateway.json("/budgets")["data"] if budget["name"] == name for scope in budget["scopes"]
    ]
    return next((str(scope["scope"]) for scope in scopes if count_of(scope) == of), of)
