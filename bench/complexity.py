"""The decisions of the `complexity` strategy on labelled requests: `python -m bench.complexity`.

`complexity.jsonl` holds one case per line: `label` simple or hard, `set` tune or held_out, `request` the body without
its model. Weights and words were chosen with the cases of `tune` only. A third of the cases was drawn by lot and held
out before that. Four cases in other languages were added to it, because the lot had left none. The held-out cases show
the accuracy to expect of new requests.

The cases and the heuristic have one author, so expect a lower accuracy on your own traffic. Label some of it and run
`python -m bench.complexity mine.jsonl`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from extproc.dialects import by_path
from extproc.routing.strategies.complexity import Complexity, complexity
from extproc.words.chain import Candidate
from extproc.words.exchange import ClientRequest, Exchange, RequestHead, Target

if TYPE_CHECKING:
    from extproc.routing.history import History

CASES = Path(__file__).with_suffix(".jsonl")
THRESHOLD = 0.5
_PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Case:
    """A labelled request."""

    id: str
    label: str  # simple | hard
    set: str  # tune | held_out
    about: str
    exchange: Exchange


@dataclass(frozen=True)
class Share:
    """The number of simple requests that went to the cheap target, and of hard requests that went to the strong one."""

    simple: int
    simple_of: int
    hard: int
    hard_of: int

    @property
    def accuracy(self) -> float:
        return (self.simple + self.hard) / (self.simple_of + self.hard_of)


def exchange_of(request: dict[str, Any]) -> Exchange:
    """An exchange at the moment its targets are put in order."""
    exchange = Exchange("bench", ClientRequest(RequestHead("POST", _PATH, {})))
    exchange.request.dialect = by_path()[_PATH]
    exchange.request.json = {"model": "auto", **request}
    exchange.request.body = json.dumps(exchange.request.json, ensure_ascii=False).encode()
    exchange.request.ask = exchange.request.dialect.read(exchange.request.json)
    return exchange


def load(path: Path = CASES) -> list[Case]:
    cases = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        about, part = row.get("about", ""), row.get("set", "held_out")
        cases.append(Case(row["id"], row["label"], part, about, exchange_of(row["request"])))
    return cases


def goes_to(exchange: Exchange, threshold: float) -> str:
    """The first of two targets for a request: `cheap` up to the threshold, `strong` above it."""
    choices = [
        Candidate([Target(name, "p", name)], max_complexity=most, index=index)
        for index, (name, most) in enumerate((("cheap", threshold), ("strong", 1.0)))
    ]
    strategy = Complexity("auto", None, cast("History", None))
    return strategy.order(choices, exchange)[0].targets[0].name


def is_right(case: Case, threshold: float = THRESHOLD) -> bool:
    return goes_to(case.exchange, threshold) == ("cheap" if case.label == "simple" else "strong")


def share(cases: Sequence[Case], threshold: float = THRESHOLD) -> Share:
    simple = [is_right(case, threshold) for case in cases if case.label == "simple"]
    hard = [is_right(case, threshold) for case in cases if case.label == "hard"]
    return Share(sum(simple), len(simple), sum(hard), len(hard))


def cost(exchange: Exchange, rounds: int = 15, count: int = 400) -> float:
    """Microseconds of CPU for one decision, in the least disturbed round."""
    strategy = Complexity("auto", None, cast("History", None))
    choices = [Candidate([Target("a", "p", "a")], max_complexity=0.5), Candidate([Target("b", "p", "b")], index=1)]

    def decide() -> None:
        strategy.why(strategy.order(choices, exchange)[0], exchange)

    return min(_timed(decide, count) for _ in range(rounds)) * 1e6


def _timed(work: Callable[[], None], count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - start) / count


def _message(size: int) -> dict[str, Any]:
    words = "The queue is drained by one worker, so a slow message holds up the others and the order is kept. "
    text = "Compare two ways to shorten this. " + words * (size // len(words))
    return {
        "messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": text}]
    }


def _conversation(size: int) -> dict[str, Any]:
    turn = [{"role": "user", "content": "And then? " * 10}, {"role": "assistant", "content": "Then we wait. " * 10}]
    return {"messages": [*(turn * (size // 300)), {"role": "user", "content": "Thanks."}]}


def main() -> None:
    cases = load(Path(sys.argv[1])) if len(sys.argv) > 1 else load()
    sets = {part: found for part in ("tune", "held_out") if (found := [case for case in cases if case.set == part])}
    print(f"threshold {THRESHOLD}           simple to the cheap    hard to the strong    right")
    for part, found in sets.items():
        got = share(found)
        simple, hard = f"{got.simple} of {got.simple_of}", f"{got.hard} of {got.hard_of}"
        print(f"  {part:<22}{simple:>18}{hard:>22}{got.accuracy:>9.0%}")
    print("\nthreshold" + "".join(f"{part:>33}" for part in sets))
    print("         " + f"{'simple to cheap, hard to strong':>33}" * len(sets))
    for threshold in (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7):
        row = ""
        for found in sets.values():
            got = share(found, threshold)
            row += f"{got.simple / max(got.simple_of, 1):>22.0%}{got.hard / max(got.hard_of, 1):>11.0%}"
        print(f"  {threshold:<7.2f}{row}")
    for part, found in sets.items():
        print(f"\nwrong at {THRESHOLD}, {part}:")
        for case in found:
            if not is_right(case):
                print(f"  {complexity(case.exchange):.2f}  {case.label:<7} {case.id}: {case.about}")
    print("\nCPU of one decision, µs")
    median = sorted(cost(case.exchange, 3, 50) for case in cases)[len(cases) // 2]
    print(f"  {'the cases, median':<34}{median:>6.0f}")
    for name, request in (
        ("4 KiB, one message", _message(4 << 10)),
        ("20 MiB, one message", _message(20 << 20)),
        ("20 MiB, many messages", _conversation(20 << 20)),
    ):
        print(f"  {name:<34}{cost(exchange_of(request)):>6.0f}")


if __name__ == "__main__":
    main()
