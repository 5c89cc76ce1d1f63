"""`extproc exchanges`: recent exchanges of a running gateway."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from extproc.cli._admin import add_filters, add_gateway, connect, filters
from extproc.cli._tables import aligned, money, painted, safe

EXAMPLES = """\
  extproc exchanges                                          the latest 20
  extproc exchanges -f                                       these, and each further one as it ends
  extproc exchanges --only outcome=refused --only team=qa    filtered; label.NAME=VALUE too
  extproc exchanges 01J9ZK...                                all that is known of one, by its id or x-request-id
  extproc exchanges 01J9ZK... --texts                        its request and answer, where they are recorded
"""

_PAGE = 500  # most exchanges in an answer while following
_COLUMNS = (8, 12, 24, 14, 6, 20, 8, 15, 10)
"""Widths of columns, fixed so that later lines align with earlier ones."""
_HEADS = ("time", "consumer", "model", "provider", "status", "outcome", "ms", "tokens", "usd", "id")
_RIGHT = (6, 7, 8)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="id of one exchange, or its x-request-id")
    parser.add_argument("--texts", action="store_true", help="the recorded texts of ID, in place of its facts")
    add_gateway(parser)
    parser.add_argument("-n", "--limit", type=int, default=20, metavar="N", help="most exchanges (default: 20)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new ones, until Ctrl-C")
    add_filters(parser)
    parser.add_argument("--run", metavar="ID", help="only of this run")
    parser.add_argument("--start", metavar="DATE", help="date or RFC 3339, inclusive")
    parser.add_argument("--end", metavar="DATE", help="date or RFC 3339, exclusive")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="json: one object a line")


def run(options: argparse.Namespace) -> int:
    """Print exchanges, the latest last. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    gateway = connect(options)
    if options.texts and options.id is None:
        raise ValueError("--texts needs the ID of an exchange")
    if options.id is not None:
        found = gateway.json(f"/exchanges/{options.id}")
        if options.texts:
            found = gateway.json(f"/exchanges/{found['id']}/texts")
        print(_json(found) if options.format == "json" else "\n".join(_whole(found)))
        return 0
    given = [(name, value) for name in ("start", "end", "run") if (value := getattr(options, name))]
    show = _json if options.format == "json" else _line
    if options.format == "table":
        print(aligned(_HEADS, _COLUMNS, _RIGHT))
    parameters = [
        *filters(options),
        *given,
        ("limit", str(max(options.limit, _PAGE) if options.follow else options.limit)),
    ]
    page = gateway.json("/exchanges", parameters)["data"]
    for entry in reversed(page[: options.limit]):
        print(show(entry), flush=True)
    while options.follow:
        time.sleep(1.0)
        known = {entry["id"] for entry in page}
        page = gateway.json("/exchanges", parameters)["data"]
        fresh = [entry for entry in page if entry["id"] not in known]
        if known and len(fresh) >= _PAGE:
            print(f"more than {_PAGE} exchanges ended in a second: some are not shown", file=sys.stderr)
        for entry in reversed(fresh):
            print(show(entry), flush=True)
    return 0


def _json(entry: Mapping[str, Any]) -> str:
    return msgspec.json.encode(entry).decode()


def _line(entry: Mapping[str, Any]) -> str:
    outcome = entry.get("outcome", "")
    cost = entry.get("cost_usd")
    cells = (
        _time(entry["time"], "%H:%M:%S"),
        entry.get("consumer", ""),
        entry.get("model") or entry.get("tool", ""),
        entry.get("provider") or entry.get("mcp_server", ""),
        str(entry["status"]),
        entry["error"] or outcome,
        f"{entry['duration_ms']:,.0f}" if entry.get("duration_ms") is not None else "",
        f"{entry.get('input_tokens', 0):,}+{entry.get('output_tokens', 0):,}" if "input_tokens" in entry else "",
        "" if cost is None else money(f"{float(cost):.6f}"),
        entry["id"],
    )
    line = aligned(cells, _COLUMNS, _RIGHT)
    return line if outcome == "ok" else painted(line, "doubtful" if outcome == "refused" else "bad")


def _time(told: str | float, form: str) -> str:
    """The time of an exchange in UTC. The ledger has it as text, the gateway's memory as a number."""
    moment = datetime.fromisoformat(told) if isinstance(told, str) else datetime.fromtimestamp(told, UTC)
    return moment.astimezone(UTC).strftime(form)


def _whole(entry: Mapping[str, Any]) -> Iterator[str]:
    """All known facts of an exchange, a line for each."""
    wide = max(map(len, entry))
    for name, value in entry.items():
        if name == "tries":
            for number, told in enumerate(value, 1):
                where = f"{told['target']} at {told['provider']}"
                ended = f"{told['outcome']}, status {told['status']}, {told['ms']} ms"
                yield f"{f'try {number}':<{wide}}  {safe(f'{where}: {ended}', 500)}"
        elif value not in (None, "", [], {}):
            text = _time(value, "%Y-%m-%d %H:%M:%S UTC") if name == "time" else _plain(value)
            yield f"{name:<{wide}}  {safe(text, 2000)}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
