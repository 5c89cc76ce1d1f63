"""`extproc runs`: runs of agents, from a running gateway."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from extproc.cli._admin import add_gateway, connect
from extproc.cli._tables import money, safe, table

EXAMPLES = """\
  extproc runs                             those of the last 24 hours
  extproc runs --consumer ci --hours 168   of one consumer, of a week
  extproc runs show nightly-7              one with its model and tool calls, cost, cache share, refusals
"""
_HEADS = ("requests", "refused", "failed", "input", "cached", "output", "usd")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("act", nargs="?", choices=["list", "show"], default="list", help="list or show (default: list)")
    parser.add_argument("id", nargs="?", metavar="ID", help="with show: name of the run, a label or a trace")
    add_gateway(parser)
    parser.add_argument("--consumer", metavar="NAME", help="only of this consumer")
    parser.add_argument("--hours", type=int, default=24, metavar="N", help="with list: of so many hours (default: 24)")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="json: one object a line")


def run(options: argparse.Namespace) -> int:
    """Print runs. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    if (options.act == "show") != (options.id is not None):
        raise ValueError("extproc runs show ID: the name of a run belongs to show")
    parameters = [("consumer", options.consumer)] if options.consumer else []
    if options.id is None:
        path, parameters = "/runs", [*parameters, ("hours", str(options.hours))]
    else:
        path = f"/runs/{quote(options.id, safe='')}"
    found = connect(options).json(path, parameters)["data"]
    if options.format == "json":
        for one in found:
            print(msgspec.json.encode(one).decode())
    elif options.id is None:
        rows = [[_time(one["latest"]), one["id"], one["consumer"], *_sums(one)] for one in found]
        print(table(["latest (UTC)", "run", "consumer", *_HEADS], rows, right=range(3, 10)) if rows else "No run.")
    else:
        print("\n\n".join("\n".join(_whole(one)) for one in found))
    return 0


def _whole(one: Mapping[str, Any]) -> Iterator[str]:
    yield safe(f"run {one['id']} of {one['consumer']}" + (f", team {one['team']}" if one["team"] else ""), 400)
    yield f"{_time(one['start'])} to {_time(one['latest'])} UTC"
    rows = [
        [each["operation"], each["model"] or each["provider_model"], each["provider"], *_sums(each)]
        for each in one["calls"]
    ]
    yield ""
    yield table(["operation", "model or tool", "by", *_HEADS], rows, ["total", "", "", *_sums(one)], range(3, 10))
    if one["unpriced"]:
        yield f"{one['unpriced']} requests have no known price and are not in the USD."
    if one["problems"]:
        rows = [
            [each["error"], each["outcome"], f"{each['requests']:,}", _time(each["latest"])] for each in one["problems"]
        ]
        yield ""
        yield table(["refusal or failure", "outcome", "requests", "latest (UTC)"], rows, right=(2,))


def _sums(one: Mapping[str, Any]) -> Sequence[str]:
    counts = [f"{one[name]:,}" for name in ("requests", "refused", "errors", "input_tokens")]
    return [*counts, f"{one['cache_share']:.0%}", f"{one['output_tokens']:,}", money(one["cost_usd"])]


def _time(text: str) -> str:
    return text[:19].replace("T", " ")
