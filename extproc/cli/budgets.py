"""`extproc budgets`: the room left in each budget, grants beyond a limit, questions about requests without room."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from extproc.cli._admin import AdminClient, add_gateway, connect
from extproc.cli._tables import budgets_table, count_of, questions_table, safe

EXAMPLES = """\
  extproc budgets                                                  each budget, its fullest counts first
  extproc budgets --grant team-month team=search 25                25 USD more until the window ends
  extproc budgets --questions                                      requests without room that wait for an operator
  extproc budgets --approve 5c1f0a --reason "demo on Friday"       one of them may be sent
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
    act.add_argument("--questions", action="store_true", help="list requests without room that wait for an operator")
    act.add_argument("--approve", metavar="QUESTION", help="allow the request of a question to be sent, once")
    act.add_argument("--deny", metavar="QUESTION", help="refuse it")
    parser.add_argument("--reason", default="", help="the reason of --approve or --deny, which the client is told")


def run(options: argparse.Namespace) -> int:
    """Print budgets or questions, or act on them. Raises OSError when the gateway does not answer, ValueError when it
    refuses.
    """
    gateway = connect(options)
    if options.reason and not (options.approve or options.deny):
        raise ValueError("--reason is that of --approve or --deny")
    if (done := _act(gateway, options)) is not None:
        print(safe(done, 4096))
        return 0
    path, table = ("/questions", questions_table) if options.questions else ("/budgets", budgets_table)
    print(gateway.text(path) if options.format == "json" else table(gateway.json(path)))
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
    if (id := options.approve or options.deny) is not None:
        decision = {"decision": "approve" if options.approve else "deny", "reason": options.reason}
        done = gateway.json(f"/questions/{quote(id, safe='')}", body=decision)
        return f"{done['state']}: {done['amount']} of {done['scope']} for {done['consumer'] or 'anonymous'}"
    return None


def _scope(gateway: AdminClient, name: str, of: str) -> str:
    """The scope of the count that the table calls `of`; `of` itself if the table has no such count."""
    if of.partition(":")[0] == name:
        return of
    scopes = [
        scope for budget in gateway.json("/budgets")["data"] if budget["name"] == name for scope in budget["scopes"]
    ]
    return next((str(scope["scope"]) for scope in scopes if count_of(scope) == of), of)
