"""The cost of accounting for each request: `python -m bench.spending` (`profile`: where it goes; `envoy`: latency too).

The stages alone, as the pipeline runs them: Reserve, Settle and Enter (its row into the ledger's queue), with three
budgets: requests, tokens, USD. With `envoy` also the latency at 200 requests per second through Envoy, with and without
another process that writes 2,000 rows per second into the same ledger.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import load
from bench.__main__ import row
from bench.harness import KEY, Bench, bench
from bench.ledger import rows
from extproc.exchange import pipeline
from extproc.exchange.services import Services
from extproc.money.accounting.books import Books
from extproc.money.ledger import open_ledger
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings import config
from extproc.stores import Counters, open_counters
from extproc.words.dialect import Report
from extproc.words.exchange import ClientRequest, Exchange, RequestHead, Usage

_BUDGETS = """
budgets:
  - {name: rate, per: [consumer], unit: requests, limit: 1000000000, window: minute}
  - {name: tokens, per: [consumer], unit: tokens, limit: 1000000000000, window: hour}
  - {name: month, per: [team], unit: usd, limit: 1000000, window: month}
"""
_SETTINGS = """
providers: {sandbox: {kind: mock}}
models: {stub: {provider: sandbox, price: {input: 3, output: 15}}}
consumers: [{name: bench, team: bench, keys: [{env: BENCH_KEY}]}]
teams: {bench: {}}
telemetry: {access_log: "off"}
"""
_BODY = json.dumps(
    {"model": "stub", "messages": [{"role": "user", "content": "word " * 20}], "max_tokens": 100}
).encode()
_ROUNDS = 10
_REQUESTS = 1000
_KEPT = 500  # requests between two reports to the store of written rows, as once a second at 500 requests per second

RATE = 200  # requests per second
SECONDS = 15
ROWS = 2000  # rows per second


class Stages:
    """Runs the accounting stages, and no others, for one request after another."""

    def __init__(self, text: str, counters: Counters) -> None:
        os.environ["BENCH_KEY"] = KEY
        settings = config.parse(text)
        self.ledger = open_ledger("memory:").writer  # never started: rows are queued and dropped here
        self.books = Books(counters, self.ledger)
        self._counters = counters
        services = Services(counters, Telemetry(settings))
        services.books = self.books
        build = pipeline.build(settings, services)
        self._before = build.on_headers, build.on_request
        stages = {type(stage).__name__: stage for stage, *_ in (*build.on_request._stages, *build.on_end._stages)}  # noqa: SLF001
        self._reserve, self._settle, self._enter = (stages[name] for name in ("Reserve", "Settle", "Enter"))
        self._number = 0

    async def exchange(self) -> Exchange:
        """A request at the moment Reserve begins, made once."""
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        made = Exchange("0" * 32, ClientRequest(RequestHead("POST", "/v1/chat/completions", headers)))
        on_headers, on_request = self._before
        await on_headers(made)
        made.request.body = _BODY
        await on_request(made)
        made.route.forwarded, answer = True, made.answer
        answer.status, answer.target, answer.attempts = 200, made.route.targets[0], 1
        answer.report = Report(usage=Usage(20, 7))
        made.end(whole=True)
        return made

    async def run(self, made: Exchange, count: int) -> None:
        for _ in range(count):
            self._number += 1
            made.id = f"{self._number:032x}"
            await self._reserve(made)
            await self._settle(made)
            self._enter(made)
            if self._number % _KEPT == 0:
                await self._written()

    async def _written(self) -> None:
        """The work that the ledger's thread and the processor's housekeeping do once a second."""
        queue = self.ledger._writer._queue  # noqa: SLF001
        self.ledger.on_written([entry.id for entry in queue])
        queue.clear()
        await self.books.turn({}, {})

    def close(self) -> None:
        self.ledger.close()


async def cost(text: str, counters: Counters, profile: bool) -> float:
    """Microseconds of CPU per request, in the best of some rounds."""
    stages = Stages(text, counters)
    made = await stages.exchange()
    await stages.run(made, 200)
    if profile:
        with cProfile.Profile() as found:
            await stages.run(made, _REQUESTS)
        pstats.Stats(found).sort_stats("tottime").print_stats(25)
    times = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        await stages.run(made, _REQUESTS)
        times.append((time.process_time() - start) / _REQUESTS * 1e6)
    stages.close()
    return min(times)


def stages(profile: bool) -> None:
    row("Reserve + Settle + Enter, CPU µs a request", "no budget", "three budgets", "bar")
    for name, bar in (("memory", 60), ("sqlite", 120)):
        with tempfile.TemporaryDirectory() as folder:
            url = "memory:" if name == "memory" else f"sqlite:{folder}/c.db"
            found = []
            for text in (_SETTINGS, _SETTINGS + _BUDGETS):
                counters = open_counters(url)
                found.append(asyncio.run(cost(text, counters, profile and text != _SETTINGS)))
                asyncio.run(counters.close())
            row(f"  {name}", *(f"{one:.1f}" for one in found), bar)


# --- through Envoy


def _gateway(folder: str) -> str:
    """The filter YAML for `bench()`."""
    lines = """
listener: <address: 127.0.0.1, port: {listener}>
status: <address: 127.0.0.1, port: {status}>
admin: <address: 127.0.0.1, port: {admin}>
providers: <sandbox: <kind: mock, base_url: "http://127.0.0.1:{mock}/v1", max_requests: 10000>>
models: <stub: <provider: sandbox, price: <input: 3, output: 15>>>
consumers: [<name: bench, team: bench, keys: [<env: BENCH_KEY>]>]
teams: <bench: <>>
telemetry: <access_log: "off">
"""
    budgets = _BUDGETS.replace("{", "{{").replace("}", "}}")
    stores = f'stores: {{{{counters: "{{counters}}", ledger: "sqlite:{folder}/ledger.db"}}}}\n'
    return lines.replace("<", "{{").replace(">", "}}") + stores + budgets


@contextmanager
def feeding(url: str) -> Iterator[Callable[[], float]]:
    """A process that writes ROWS rows per second into the ledger. Yields a function for the number written."""
    import subprocess

    command = [sys.executable, "-m", "bench.spending", "feed", url]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    written = [0.0]
    try:
        yield lambda: written[0]
    finally:
        child.terminate()
        said, _ = child.communicate(timeout=30)
        written[0] = float(said)


def feed(url: str) -> None:
    """Write until SIGTERM, then print the rows written per second."""
    import signal
    import threading

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ledger = open_ledger(url)
    ledger.writer.start()
    source, begun, added = rows(10**8), time.perf_counter(), 0
    while not stop.wait(0.02):
        while added < (time.perf_counter() - begun) * ROWS:
            added += ledger.writer.add(next(source))
    took = time.perf_counter() - begun
    ledger.writer.stop()
    print(ledger.writer.written / took)


async def paced(what: Bench) -> list[float]:
    """Seconds of each request at a fixed rate, whether or not the last ones were answered."""
    message, found, idle = load.request("stub"), load.Result(), []

    async def one() -> None:
        line = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", what.gateway)
        await load.exchange(*line, message, found)
        idle.append(line)

    tasks = []
    begun = time.perf_counter()
    for number in range(RATE * SECONDS):
        await asyncio.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()
    assert not found.errors, found.errors
    return found.latencies


def latency() -> None:
    row(f"{RATE} requests a second, ms", "p50", "p99", "rows a second")
    with tempfile.TemporaryDirectory() as folder, bench("sqlite:{dir}/c.db", settings=_gateway(folder)) as what:
        asyncio.run(load.run(what.gateway, load.request("stub"), total=500, concurrency=8))  # warm up
        for _ in range(3):
            for name in ("  its own rows only", f"  and {ROWS} rows a second of others"):
                if name.startswith("  its"):
                    times, speed = asyncio.run(paced(what)), float(RATE)
                else:
                    with feeding(f"sqlite:{Path(folder)}/ledger.db") as written:
                        time.sleep(2)
                        times = asyncio.run(paced(what))
                    speed = written() + RATE
                late = statistics.quantiles(times, n=100)[98]
                row(name, f"{statistics.median(times) * 1000:.2f}", f"{late * 1000:.1f}", f"{speed:.0f}")


def main() -> None:
    if sys.argv[1:2] == ["feed"]:
        feed(sys.argv[2])
        return
    stages("profile" in sys.argv)
    if "envoy" in sys.argv:
        latency()


if __name__ == "__main__":
    main()
