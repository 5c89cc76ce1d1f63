"""`extproc budgets`: the room left in each budget, grants beyond a limit, counts that begin anew."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from extproc.cli._admin import AdminClient, add_gateway, connect
from extproc.cli._tables import budgets_table, count_of, safe

EXAMPLES = """\
  extproc budgets                                                  each budget, its fullest counts first
  extproc budgets --grant team-month team=search 25                25 USD more until the window ends
  extproc budgets --reset per-run label.run=nightly                this count begins anew
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)
    parser.add_argument("--format", choices=["table", "json"], default="table", help="(default: table)")
    act = parser.add_mutually_exclusive_group()
    act.add_argument(
        "--grant",
        nargs=3,
        metavar=("BUDGET", "OF", "AMOUNT"),
        help="allow one count this much beyond its limit, in the budget's unit, until the window ends; OF names the "
        "count as the table does, or by its `scope`",
    )
    act.add_argument("--reset", nargs=2, metavar=("BUDGET", "OF"), help="begin one count anew in its window")


def run(options: argparse.Namespace) -> int:
    """Print budgets, or act on them. Raises OSError when the gateway does not answer, ValueError when it
    refuses.
    """
    gateway = connect(options)
    if (done := _act(gateway, options)) is not None:
        print(safe(done, 4096))
        return 0
    print(gateway.text("/budgets") if options.format == "json" else budgets_table(gateway.json("/budgets")))
    return 0


def _act(gateway: AdminClient, options: argparse.Namespace) -> str | None:
    """Perform the action of the options. Returns a text about it; None without an action."""
    if options.grant is not None:
        budget, of, amount = options.grant
        given = gateway.json("/grants", body={"budget": budget, "scope": _scope(gateway, budget, of), "amount": amount})
        return f"granted {given['amount']} to {given['scope']} until {given['expires_at']} ({given['id']})"
    if options.reset is not None:
        budget, of = options.reset
        path = f"/budgets/{quote(budget, safe='')}/reset"
        done = gateway.json(path, body={"scope": _scope(gateway, budget, of)})
        return f"{done['scope']} begins anew: {done['settled']} no longer counts"
    return None


def _scope(gateway: AdminClient, name: str, of: str) -> str:
    """The scope of the count that the table calls `of`; `of` itself if the table has no such count."""
    if of.partition(":")[0] == name:
        return of
    scopes = [
        scope for budget in gateway.json("/budgets")["data"] if budget["name"] == name for scope in budget["scopes"]
    ]
    return next((str(scope["scope"]) for scope in scopes if count_of(scope) == of), of)
