"""The brake stops agents that go in circles. A request shows each step since the user's last turn.

    the same tool, the same arguments, the same result        repeatedly, with or without other calls between
    answers of the model without a call                       in a row: the prompt grows, and nothing new comes in

A call with a different result is progress: a test run after each change, the next page, a job under way. Only the
latest step counts, so a loop that the agent has left does not count.

A request that continues an answer kept by its provider holds only tool results. Their digest is remembered for each run
of a consumer, in this process only: a run that several workers serve is stopped later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from extproc.tools.brake.settings import BrakeSettings
from extproc.words.dialect import Step
from extproc.words.errors import RUN_LOOPING, Refusal
from extproc.words.exchange import Exchange
from extproc.words.runs import run_of

__all__ = ["MOST_RUNS", "Brake", "BrakeSettings", "Runs", "repeated"]

MOST_RUNS = 20_000
"""Most runs whose latest results a process remembers. The run that was silent for longest is forgotten first."""
_encode = msgspec.json.Encoder(order="sorted").encode


class Runs:
    """The latest results of runs that continue kept answers, and how often they came in a row."""

    def __init__(self, most: int = MOST_RUNS) -> None:
        self._most = most
        self._known: dict[tuple[str, str], tuple[bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def count(self, run: tuple[str, str], results: bytes) -> int:
        """The number of times in a row that the run had these results, this time included. Empty results end
        the row.
        """
        before, times = self._known.pop(run, (b"", 0))
        if not results:
            return 0
        times = times + 1 if results == before else 1
        self._known[run] = results, times
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]
        return times


class Brake:
    """Refuses requests of looping runs: 429, with the evidence."""

    def __init__(self, settings: BrakeSettings, runs: Runs) -> None:
        self._most = settings.repeats
        self._runs = runs

    def __call__(self, exchange: Exchange) -> None:
        steps = exchange.request.dialect.offers.tools.steps(exchange.request.json)
        tool, times = repeated(steps)
        if all(step.tool is None for step in steps):  # also true right after the user has spoken
            times = self._count(exchange, [step.result for step in steps])
        if times >= self._most:
            raise Refusal(RUN_LOOPING, _message(tool, times, self._most))

    def _count(self, exchange: Exchange, results: Sequence[Any]) -> int:
        if not (run := run_of(exchange)):
            return 0
        digest = hashlib.blake2b(_encode(results), digest_size=16).digest() if results else b""
        return self._runs.count((exchange.consumer.name, run), digest)


def _message(tool: str | None, times: int, most: int) -> str:
    if tool is None:
        evidence = f"{times} requests in a row brought the same results of tools"
    elif not tool:
        evidence = f"the model answered {times} times in a row without a call"
    else:
        evidence = f"tool {tool[:_LONGEST]!r} was called {times} times with the same arguments and gave the same result"
    return (
        f"The run goes in circles: since the user's last turn, {evidence}. Change its course, or end it: the gateway "
        f"refuses it from {most} times on (brake.repeats)."
    )


_LONGEST = 64  # most characters of a tool's name in a message


def repeated(steps: Iterable[Step]) -> tuple[str | None, int]:
    """The tool of the latest step, and the number of times that step came. Answers without a call have no tool."""
    calls: dict[tuple[str, Any], tuple[Any, int]] = {}
    tool, times, silent = None, 0, 0
    for step in steps:
        tool = step.tool
        if not tool:
            times = silent = silent + 1 if tool == "" else 0
            continue
        silent = 0
        key = tool, step.arguments if isinstance(step.arguments, str) else _encode(step.arguments)
        result, before = calls.get(key, (None, 0))
        times = before + 1 if before and result == step.result else 1
        calls[key] = step.result, times
    return tool, times
