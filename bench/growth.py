"""The cost of a request as settings and traffic grow: `python -m bench.growth` (rows: names of rows).

A row multiplies one thing that grows with tenants, while the request stays the same; it names what stands last in the
settings, so a search from the front finds it at the end. The last column is the cost at the largest size in multiples
of the cost at the smallest. The sizes take turns, so other work on the machine affects all of them.

Budgets that hold the request and guardrails that read it are work of its own: the last column of these rows is the
cost of each.

`open streams` also gives the longest pause of the event loop, with the collections of garbage that the processor does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.core import conversation, headers
from extproc.envoy.server import collector
from extproc.envoy.server.wire import converse
from extproc.exchange import pipeline
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.services import Services
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings import config
from extproc.stores import open_counters
from extproc.wire.pb import extproc_pb2 as pb

ROUNDS = 9
REQUESTS = 100
KEY = "sk-gw-bench"

_HEAD = """
providers: {sandbox: {kind: mock}}
telemetry: {access_log: "off"}
"""
_MODELS = "models: {stub: {provider: sandbox}}\n"
_CONSUMER = "consumers: [{name: bench, keys: [{env: BENCH_KEY}]}]\n"
_ROOM = "limits: {consumer_share: 1}\n"
_PLAIN = _HEAD + _MODELS + _CONSUMER
_WORDS = tuple(f"codename-{i:04}" for i in range(1000))


@dataclass(frozen=True)
class Row:
    """One thing that grows: its settings at each size. `own`: the request's own work grows with it."""

    name: str
    settings: Callable[[int], str]
    sizes: Sequence[int] = (1, 10, 100, 1000)
    own: bool = False


def _others(count: int) -> str:
    return "".join(f"  - {{name: c{i}, keys: [{{env: BENCH_OTHER_{i}}}]}}\n" for i in range(count))


def _consumers(count: int) -> str:
    return f"{_HEAD}{_MODELS}consumers:\n{_others(count)}  - {{name: bench, keys: [{{env: BENCH_KEY}}]}}\n"


def _budget(name: str, match: str) -> str:
    return f"  - {{name: {name}, per: [consumer], unit: tokens, limit: 1000000000, window: hour, match: {match}}}\n"


def _budgets_of_others(count: int) -> str:
    rows = "".join(_budget(f"b{i}-{j}", f"{{consumer: c{i}}}") for i in range(count) for j in range(5))
    return f"{_PLAIN}budgets:\n{rows}{_budget('own', '{consumer: bench}')}"


def _budgets_that_hold(count: int) -> str:
    return f"{_PLAIN}budgets:\n" + "".join(_budget(f"b{i}", "{consumer: bench}") for i in range(count))


def _budgets_by_label(count: int) -> str:
    return f"{_PLAIN}budgets:\n" + "".join(_budget(f"b{i}", f"{{label.team: t{i}}}") for i in range(count))


def _models(count: int) -> str:
    rows = "".join(f"  m{i}: {{provider: sandbox}}\n" for i in range(count))
    return f"{_HEAD}models:\n{rows}  stub: {{provider: sandbox}}\n{_CONSUMER}"


def _granted(count: int) -> str:
    names = ", ".join(f"m{i}" for i in range(count))
    models = "".join(f"  m{i}: {{provider: sandbox}}\n" for i in range(count))
    consumer = f"consumers: [{{name: bench, models: [{names}, stub], keys: [{{env: BENCH_KEY}}]}}]\n"
    return f"{_HEAD}models:\n{models}  stub: {{provider: sandbox}}\n{consumer}"


def _providers(count: int) -> str:
    rows = "".join(f"  p{i}: {{kind: mock}}\n" for i in range(count))
    models = "".join(f"  m{i}: {{provider: p{i}}}\n" for i in range(count))
    return (
        f"providers:\n{rows}  sandbox: {{kind: mock}}\nmodels:\n{models}  stub: {{provider: sandbox}}\n{_CONSUMER}"
        'telemetry: {access_log: "off"}\n'
    )


def _rules(count: int) -> str:
    patterns = "\n".join(f'      r{i}: "{word}"' for i, word in enumerate(_WORDS[:count]))
    words = "guardrails:\n  - name: words\n    kind: regex\n    on: [input]\n    action: block\n    patterns:\n"
    return f"{_PLAIN}{words}{patterns}\n"


def _guardrails_that_read(count: int) -> str:
    rows = "".join(
        f"  - {{name: g{i}, kind: regex, on: [input], action: block, patterns: {{word: '{_WORDS[i]}'}}}}\n"
        for i in range(count)
    )
    return f"{_PLAIN}guardrails:\n{rows}"


def _guardrails_of_others(count: int) -> str:
    rows = "".join(
        f"  - {{name: g{i}, kind: regex, on: [input], action: block, patterns: {{word: '{_WORDS[i]}'}},"
        f" applies_to: {{consumers: [c{i}]}}}}\n"
        for i in range(count)
    )
    return f"{_PLAIN}guardrails:\n{rows}"


ROWS = (
    Row("consumers", _consumers),
    Row("5 budgets of each other consumer", _budgets_of_others),
    Row("budgets of other labels", _budgets_by_label),
    Row("budgets that hold the request", _budgets_that_hold, (1, 10, 100), own=True),
    Row("models", _models),
    Row("models granted by name", _granted),
    Row("providers", _providers, (1, 10, 100)),
    Row("rules of a regex guardrail", _rules, (1, 16, 256), own=True),
    Row("guardrails of other consumers", _guardrails_of_others),
    Row("guardrails that read the request", _guardrails_that_read, (1, 10, 100), own=True),
)


class Gateway:
    """A pipeline of one size, and what a request costs in it."""

    def __init__(self, text: str) -> None:
        settings = config.parse(text)
        self.build = pipeline.build(settings, Services(open_counters("memory:"), Telemetry(settings)))
        self._messages = conversation()
        self.best = float("inf")

    async def requests(self, count: int) -> None:
        """So many plain requests, one after another. Raises AssertionError where one was refused."""
        for _ in range(count):
            stream = GatewayStream(self.build)
            for message in self._messages:
                for answer in await converse(stream, message):
                    refused = pb.ProcessingResponse.FromString(answer).WhichOneof("response") == "immediate_response"
                    assert not refused, answer
            await stream.on_end()

    def round(self) -> None:
        """One round; `best` becomes the least disturbed of them, in seconds of CPU a request."""
        begun = time.process_time()
        asyncio.run(self.requests(REQUESTS))
        self.best = min(self.best, (time.process_time() - begun) / REQUESTS)


def measured(row: Row) -> list[float]:
    """Microseconds of CPU a request at each size of `row`."""
    gateways = [Gateway(row.settings(size)) for size in row.sizes]
    gc.collect()
    for _ in range(ROUNDS):
        for gateway in gateways:
            gateway.round()
    return [gateway.best * 1e6 for gateway in gateways]


async def _open(build: pipeline.Pipeline) -> GatewayStream:
    """A stream whose answer has begun and not ended."""
    head, body, *_ = conversation()
    sse = headers(
        "response_headers",
        {":status": "200", "content-type": "text/event-stream"},
        {"upstream.request_attempt_count": 1},
    )
    stream = GatewayStream(build)
    for message in (head, body, sse):
        await converse(stream, message)
    return stream


class Pauses:
    """Seconds between two turns of the event loop, were each `turn` one of them."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.longest = 0.0

    def turn(self) -> None:
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now


async def _with_streams(count: int) -> tuple[float, float, float]:
    """Microseconds of CPU a request beside `count` open streams; milliseconds of a full collection, and of the longest
    pause of the loop while they open, 2,000 requests pass, and the processor looks whether to collect.
    """
    gateway = Gateway(_PLAIN + _ROOM)
    collector.only_when_told()
    looks = collector.Collector(lambda: count)
    pauses = Pauses()
    streams = []
    for _ in range(count):
        streams.append(await _open(gateway.build))
        pauses.turn()
    await looks.look()
    pauses.turn()
    start = time.process_time()
    for _ in range(2000):
        await gateway.requests(1)
        pauses.turn()
    cost = (time.process_time() - start) / 2000 * 1e6
    await looks.look()
    pauses.turn()
    begun = time.perf_counter()
    gc.collect()
    full = (time.perf_counter() - begun) * 1e3
    for stream in streams:
        await stream.on_end()
    return cost, full, pauses.longest * 1e3


def main() -> None:
    os.environ.update({"BENCH_KEY": KEY, **{f"BENCH_OTHER_{i}": f"sk-gw-other-{i}" for i in range(1000)}})
    named = sys.argv[1:]
    print(f"{'µs of CPU a request':36}{'sizes':24}{'cost':36}largest / smallest")
    for row in ROWS:
        if named and row.name not in named:
            continue
        costs = measured(row)
        more = costs[-1] - costs[0]
        last = f"{more / (row.sizes[-1] - row.sizes[0]):.1f} µs each" if row.own else f"{costs[-1] / costs[0]:.2f}"
        print(
            f"{row.name:36}{' '.join(map(str, row.sizes)):24}{' '.join(f'{cost:.0f}' for cost in costs):36}{last}",
            flush=True,
        )
    if not named or "open streams" in named:
        for count in (1, 100, 1000, 5000):
            cost, full, longest = asyncio.run(_with_streams(count))
            told = f"{cost:.0f} µs, longest pause {longest:.1f} ms; a full collection {full:.1f} ms"
            print(f"{f'{count} open streams':36}{told}", flush=True)


if __name__ == "__main__":
    main()
