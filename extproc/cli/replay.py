"""`extproc replay`: recorded requests are sent to another model through the gateway, once each."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

from extproc.cli._admin import AdminClient, add_filters, add_gateway, connect, door_of, exchanges, filters, message
from extproc.cli._options import read_secret
from extproc.cli._tables import safe, table
from extproc.routing.shadow import with_model
from extproc.wire.outbound.client import AnswerError, ask
from extproc.words.errors import BUDGET_EXCEEDED, INVALID_KEY, MODEL_NOT_ALLOWED, MODEL_NOT_FOUND, RATE_LIMITED
from extproc.words.evidence import ERROR, Pairs, interval

EXAMPLES = """\
  extproc replay --to gpt-6-luna --name luna-1 --key env:REPLAY_KEY                  the latest 100 recorded requests
  extproc replay --to gpt-6-luna --name luna-1 --key env:REPLAY_KEY                  again: goes on where it was stopped
  extproc replay --to small --name s --key env:K --only team=support --limit 1000    of one team
"""

LABEL, OF = "replay", "replay-of"
"""Labels of a replayed exchange: the replay's name, and the id of the first exchange."""
_NOT_CLIENTS = (LABEL, "shadow", "judge")  # labels of requests that the gateway's own comparisons sent
_TIMEOUT = 600.0  # seconds for one answer
_MOST = 64 << 20  # most bytes of an answer
_STOPS = [kind.code for kind in (BUDGET_EXCEEDED, RATE_LIMITED, INVALID_KEY, MODEL_NOT_ALLOWED, MODEL_NOT_FOUND)]
"""Codes of refusals that would meet every further request, too."""
_MEASURES = (("ms", "duration_ms", ",.0f"), ("output tokens", "output_tokens", ",.0f"), ("USD", "cost_usd", ".6f"))
_BAR = 30


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", required=True, metavar="MODEL", help="model that gets the requests, as clients name it")
    parser.add_argument("--name", required=True, help="name of the replay: the label `replay` of its exchanges")
    parser.add_argument(
        "--key", required=True, metavar="env:NAME|file:PATH", help="gateway key that sends the requests"
    )
    parser.add_argument("--door", metavar="URL", help="address of the listener for clients (default: beside --url)")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="most requests (default: 100)")
    parser.add_argument("--concurrency", type=int, default=4, metavar="N", help="requests at once (default: 4)")
    parser.add_argument("--start", metavar="DATE", help="date or RFC 3339, inclusive")
    parser.add_argument("--end", metavar="DATE", help="date or RFC 3339, exclusive")
    add_filters(parser)
    add_gateway(parser)


def run(options: argparse.Namespace) -> int:
    """Send the requests, and print a comparison. The exit code is 1 if a refusal ended it early. Raises OSError when
    the gateway does not answer, ValueError when it refuses.
    """
    if not re.fullmatch(r"[a-z0-9._-]{1,64}", options.name):
        raise ValueError("--name has 1 to 64 lower-case letters, digits, dots, dashes or underscores")
    if not 1 <= options.concurrency <= 64:
        raise ValueError("--concurrency is 1 to 64")
    gateway, key = connect(options), read_secret(options.key, "--key")
    door = (options.door or door_of(gateway, options.url)).rstrip("/")
    given = [(name, value) for name in ("start", "end") if (value := getattr(options, name))]
    wanted = [*filters(options), *given, ("outcome", "ok")]
    mine = [(f"label.{LABEL}", options.name)]
    own = (each for each in exchanges(gateway, wanted) if not any(label in _labels(each) for label in _NOT_CLIENTS))
    first = {each["id"]: each for each in islice(own, options.limit)}
    while any(each.get("run") == _run_of(options.name) for each in gateway.json("/in-flight")["data"]):
        time.sleep(1.0)  # an earlier run was stopped: what it sent is not sent again
    done = {_of(each) for each in exchanges(gateway, mine) if each["outcome"] != "refused"}
    left = [id for id in reversed(first) if id not in done]
    replay = _Replay(gateway, door, key, options.to, options.name, len(first), len(first) - len(left))
    replay.send(left, options.concurrency)
    print("\n".join(_compared(first, list(exchanges(gateway, mine)), replay)))
    if replay.stopped:
        print(f"stopped: {replay.stopped}; the same command goes on from here", file=sys.stderr)
    return int(bool(replay.stopped))


def _run_of(name: str) -> str:
    """The run of all requests of a replay."""
    return f"replay-{name}"


def _of(exchange: Mapping[str, Any]) -> str:
    """The id of the first exchange."""
    return _labels(exchange).get(OF, "")


def _labels(exchange: Mapping[str, Any]) -> Mapping[str, str]:
    return exchange.get("labels") or {}


@dataclass(slots=True)
class _Replay:
    """The requests of one replay, and what became of them."""

    gateway: AdminClient
    door: str
    key: str
    model: str
    name: str
    whole: int
    before: int  # requests that an earlier run has sent
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("ok", "failed", "not recorded"), 0))
    stopped: str = ""

    def send(self, ids: Sequence[str], concurrency: int) -> None:
        """Send the requests, `concurrency` at once, until a refusal stops all."""
        waiting, left = set[Future[tuple[str, str]]](), iter(ids)
        with ThreadPoolExecutor(concurrency) as pool:
            while True:
                while not self.stopped and len(waiting) < concurrency and (id := next(left, None)) is not None:
                    waiting.add(pool.submit(self._one, id))
                if not waiting:
                    break
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for each in ended:
                    outcome, stop = each.result()
                    self.counts[outcome] += 1
                    self.stopped = self.stopped or stop
                self._show()
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _one(self, id: str) -> tuple[str, str]:
        """Send one request. Returns its outcome, and the reason to stop, if it is one."""
        try:
            text = self.gateway.json(f"/exchanges/{id}/texts")
            body = json.loads(text["request"])
        except ValueError:  # not recorded, or cut
            return "not recorded", ""
        path = with_model(text["path"], self.model)
        if "model" in body or path == text["path"]:
            body["model"] = self.model
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        headers |= {f"x-ai-{LABEL}": self.name, f"x-ai-{OF}": id, "x-ai-run": _run_of(self.name)}
        try:
            status, answer = ask(self.door + path, json.dumps(body).encode(), headers, timeout=_TIMEOUT, most=_MOST)
        except (OSError, AnswerError) as error:
            return "failed", f"{self.door} does not answer: {error}" if isinstance(error, ConnectionError) else ""
        if status < 300:
            return "ok", ""
        try:
            code = str(json.loads(answer)["error"].get("code"))
        except (ValueError, LookupError, TypeError, AttributeError):
            code = ""
        return "failed", f"{code}: {safe(message(answer), 300)}" if code in _STOPS else ""

    def _show(self) -> None:
        if sys.stderr.isatty():
            sent = self.before + sum(self.counts.values())
            told = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
            full = "#" * (_BAR * sent // max(1, self.whole))
            print(f"\r[{full:<{_BAR}}] {sent}/{self.whole}  {told}", end="", file=sys.stderr, flush=True)


def _compared(
    first: Mapping[str, Mapping[str, Any]], replayed: Sequence[Mapping[str, Any]], replay: _Replay
) -> Iterator[str]:
    """The replayed exchanges beside the first ones, in lines for people."""
    latest = {_of(each): each for each in reversed(replayed)}  # a refused one may have been sent again
    pairs = [(first[of], each) for of, each in latest.items() if of in first]
    told = ", ".join(f"{count} {name}" for name, count in replay.counts.items() if count) or "nothing left to send"
    yield f"{len(pairs)} of {len(first)} requests are replayed at {safe(replay.model)} ({told})."
    if not pairs:
        return
    lost = sum(each["outcome"] != "ok" for _, each in pairs)
    low, high = interval(Pairs(0, lost, len(pairs) - lost), ERROR)
    yield f"Failed: {lost / len(pairs):.1%} more than at first, {max(0.0, low):.1%} to {high:.1%} with 95% confidence."
    served = [(one, other) for one, other in pairs if other["outcome"] == "ok"]
    rows = []
    for title, name, form in _MEASURES:
        values = [_values(served, at, name) for at in (0, 1)]
        rows.append([title, *(format(median(each), form) if each else "" for each in values)])
    yield ""
    yield table(["median", "first", "replayed"], rows, right=(1, 2))
    if failed := [other for _, other in pairs if other["outcome"] != "ok"]:
        which = [f"{_of(each)} ({each.get('error') or each['status']})" for each in failed[:5]]
        yield f"\nfailed: {', '.join(which)}"


def _values(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], at: int, name: str) -> Sequence[float]:
    return [float(pair[at][name]) for pair in pairs if pair[at].get(name) is not None]
