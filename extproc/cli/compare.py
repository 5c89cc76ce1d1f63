"""`extproc compare`: whether one target can replace another, from the ledger of a running gateway."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from extproc.cli._admin import add_gateway, connect, door_of
from extproc.cli._judge import Judge, judged
from extproc.cli._options import read_secret
from extproc.cli._tables import safe, table
from extproc.money.texts import PAIRED

EXAMPLES = """\
  extproc compare stable canary                    exchanges of the last week, in which either was asked first
  extproc compare stable canary --model assistant  of requests for one virtual model, which splits them at random
  extproc compare stable canary --since 2026-11-20 since the canary began: look as often as you like
  extproc compare stable canary --label agent      a class for each agent, too
  extproc compare --shadow assistant               a virtual model's answers and its shadow's, in pairs
  extproc compare --replay luna-1                  a replay's answers and the first ones, in pairs
  extproc compare --replay luna-1 --judge gpt-6.1-sol --key env:JUDGE_KEY    a model reads recorded pairs, too
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", nargs="?", help="entry of models that you trust")
    parser.add_argument("b", metavar="B", nargs="?", help="entry of models that shall replace it")
    parser.add_argument("--shadow", metavar="NAME", help="in place of A and B: a virtual model and its shadow")
    parser.add_argument("--replay", metavar="NAME", help="in place of A and B: a replay and what it repeats")
    add_gateway(parser)
    parser.add_argument(
        "--since", metavar="TIME", help="since a date or RFC 3339 time, such as that of the canary's start"
    )
    parser.add_argument("--hours", type=int, default=168, metavar="N", help="of so many hours (default: 168)")
    parser.add_argument("--model", metavar="NAME", help="only requests for this model, as clients name it")
    parser.add_argument("--label", metavar="NAME", help="a class for each value of this label, too")
    parser.add_argument("--judge", metavar="MODEL", help="model of the gateway that judges recorded pairs, too")
    parser.add_argument("--key", metavar="env:NAME|file:PATH", help="gateway key that asks the judge")
    parser.add_argument("--door", metavar="URL", help="address of the listener for clients (default: beside --url)")
    parser.add_argument("--most", type=int, default=50, metavar="N", help="most pairs that are judged (default: 50)")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="json: the whole answer")


def run(options: argparse.Namespace) -> int:
    """Print the comparison. Raises OSError when the gateway does not answer, ValueError when it refuses."""
    if options.a is not None and options.a == options.b:
        raise ValueError("extproc compare A B: A and B are the same target")
    parameters = [("hours", str(options.hours))]
    parameters += [("start", options.since)] if options.since is not None else []
    of = next((name for name in PAIRED if getattr(options, name) is not None), None)
    if of is not None:
        parameters += [("of", of), ("name", getattr(options, of))]
    if (options.b is None) is (of is None):
        raise ValueError("extproc compare needs A and B, or --shadow, or --replay")
    names = ("a", "b", "model", "label")
    parameters += [(name, value) for name in names if (value := getattr(options, name)) is not None]
    if options.judge is not None and (of is None or options.key is None or options.format == "json"):
        raise ValueError("--judge needs --shadow or --replay, a --key, and the table")
    gateway = connect(options)
    found = gateway.json("/comparison" if of is None else "/comparison/pairs", parameters)
    if options.format == "json":
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(_lines(found)))
    if options.judge is not None and of is not None:
        door = (options.door or door_of(gateway, options.url)).rstrip("/")
        judge = Judge(door, read_secret(options.key, "--key"), options.judge)
        print("\n".join(judged(gateway, judge, (of, getattr(options, of)), options.most)))
    return 0


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield safe(found["sentence"], 1000)
    heads = ["requests", "measure", "A", "B", "difference", "margin", "is"]
    rows = [
        [each["name"], one["name"], _rate(one["bad_a"], one["of_a"]), _rate(one["bad_b"], one["of_b"]), *_bounds(one)]
        for each in found["classes"]
        for one in each["measures"]
    ]
    yield ""
    yield table(heads, rows, right=range(2, 6))
    rows = [
        [each["name"], arm.upper(), f"{numbers['exchanges']:,}", *_numbers(numbers)]
        for each in found["classes"]
        for arm in ("a", "b")
        if (numbers := each[arm])
    ]
    yield ""
    yield table(
        ["requests", "of", "exchanges", "p50 ms", "p95 ms", "p50 usd", "p95 usd", "mean usd"], rows, right=range(2, 8)
    )
    yield from _calls(found)
    worse = [one for one in found["classes"][0]["measures"] if one["state"] == "worse"]
    for one in worse:
        yield f"\n{one['name']}, the latest of B: {', '.join(one['examples'])}"
    if worse:
        yield "extproc exchanges ID tells one of them, with --texts its texts where they are recorded"


def _calls(found: Mapping[str, Any]) -> Iterator[str]:
    for each in found["classes"]:
        if calls := each.get("calls"):
            told = (f"{calls[name] / calls['with_tools']:.1%}" for name in ("same_tools", "same_calls"))
            of = f"{safe(each['name'])}: of {calls['with_tools']:,} pairs"
            yield "\n{} {} call the same tools, {} with the same arguments".format(of, *told)


def _rate(bad: int, of: int) -> str:
    return f"{bad:,}/{of:,}"


def _bounds(one: Mapping[str, Any]) -> list[str]:
    more = f", {one['more']:,} more" if one["more"] else ""
    return [f"{one['low']:+.1%} to {one['high']:+.1%}", f"{one['margin']:.0%}", one["state"] + more]


def _numbers(numbers: Mapping[str, Any]) -> list[str]:
    names = ("p50_ms", "p95_ms", "p50_usd", "p95_usd", "mean_usd")
    return ["" if numbers[name] is None else str(numbers[name]) for name in names]
