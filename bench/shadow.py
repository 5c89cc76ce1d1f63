"""The cost of a shadow to clients: `python -m bench.shadow`.

Four virtual models of one gateway: without a shadow; with one that is drawn for every request and not sent, because one
hangs and no more may be in flight: that is what the client's own exchange pays; with one for every request, with the
shadow's own cost: its exchange, and the traits that are read in both answers; and without one at twice the rate, which
has as many exchanges. The bars: 5 % of CPU for the client's own exchange, at this rate and at full load, where an
exchange is cheapest; and 0 ms at the 99th percentile of clients, as the median of the rounds' differences, with their
quartiles.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from operator import sub

from bench import load
from bench.__main__ import row
from bench.harness import Bench, bench

SETTINGS = """
listener: {{address: 127.0.0.1, port: {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
providers:
  old: {{kind: mock, base_url: "http://127.0.0.1:{mock}/v1", max_requests: 10000}}
  new: {{kind: mock, base_url: "http://127.0.0.1:{other}/v1", max_requests: 10000}}
models:
  stub: {{provider: old}}
  candidate: {{provider: new, model: stub}}
  hung: {{provider: new, model: stub+hang}}
virtual_models:
  alone: {{targets: [{{model: stub}}]}}
  waiting: {{targets: [{{model: stub}}], shadow: {{model: hung, consumer: bench, share: 1, at_once: 1, timeout: 1h}}}}
  shadowed: {{targets: [{{model: stub}}], shadow: {{model: candidate, consumer: bench, share: 1, at_once: 1000}}}}
consumers: [{{name: bench, team: bench, keys: [{{env: BENCH_KEY}}]}}]
teams: {{bench: {{}}}}
budgets: [{{name: tokens, per: [consumer], unit: tokens, limit: 1000000000000, window: hour}}]
stores: {{counters: "{counters}", ledger: "sqlite:{dir}/ledger.db"}}
telemetry: {{access_log: "off"}}
"""
RATE = 150  # requests per second of clients
SECONDS = 6
ROUNDS = 9
FULL = 4000  # requests of a round at full load
_ENDED = r"extproc_requests_total\{"


@dataclass
class _Arm:
    name: str
    model: str
    rate: int
    exchanges: int  # for each request of a client


ARMS = (
    _Arm("alone", "alone", RATE, 1),
    _Arm("not sent", "waiting", RATE, 1),
    _Arm("shadow", "shadowed", RATE, 2),
    _Arm("twice", "alone", 2 * RATE, 1),
)


async def measure(what: Bench, arm: _Arm) -> tuple[float, float]:
    """Microseconds of the processor's CPU for each request of RATE, and the clients' 99th percentile in ms."""
    total = arm.rate * SECONDS
    before, ended = what.processor.cpu(), what.counted(_ENDED)
    result = await load.run(what.gateway, load.request(arm.model), total=total, concurrency=32, rate=arm.rate)
    while what.counted(_ENDED) < ended + total * arm.exchanges:  # shadows end after their clients
        await asyncio.sleep(0.05)
    if result.errors:
        raise SystemExit(f"{arm.name}: {result.errors[:3]}")
    p99 = statistics.quantiles(result.latencies, n=100)[98] * 1000
    return (what.processor.cpu() - before) / (RATE * SECONDS) * 1e6, p99


def at_full_load(what: Bench, arm: _Arm) -> float:
    """Microseconds of the processor's CPU for a request, when 32 connections send one after the other."""
    before = what.processor.cpu()
    result = asyncio.run(load.run(what.gateway, load.request(arm.model), total=FULL, concurrency=32))
    if result.errors:
        raise SystemExit(f"{arm.name}: {result.errors[:3]}")
    return (what.processor.cpu() - before) / FULL * 1e6


def main() -> None:
    with bench(settings=SETTINGS, mocks=("mock", "other")) as what:
        for arm in ARMS:
            asyncio.run(load.run(what.gateway, load.request(arm.model), total=300, concurrency=8))
        time.sleep(2)
        found = {arm.name: list[tuple[float, float]]() for arm in ARMS}
        for turn in range(ROUNDS):
            for arm in ARMS[:: 1 if turn % 2 else -1]:
                found[arm.name].append(asyncio.run(measure(what, arm)))
        full = {arm.name: list[float]() for arm in ARMS[:2]}
        for turn in range(ROUNDS + 1):
            for arm in ARMS[1::-1] if turn % 2 else ARMS[:2]:
                full[arm.name].append(at_full_load(what, arm))
    cpu = {name: statistics.median(cpu for cpu, _ in each) for name, each in found.items()}
    p99 = {name: [p99 for _, p99 in each] for name, each in found.items()}
    row(f"{RATE} requests a second of clients", *(arm.name for arm in ARMS), "more", "bar")
    more = cpu["not sent"] / cpu["alone"] - 1
    row("  CPU of the processor, µs a request", *(f"{cpu[arm.name]:.0f}" for arm in ARMS), f"{more:+.1%}", "5 %")
    medians = [statistics.median(each) for each in p99.values()]
    row("  99th percentile of clients, ms", *(f"{each:.2f}" for each in medians))
    for beside in ("alone", "twice"):
        low, late, high = statistics.quantiles(map(sub, p99["shadow"], p99[beside]))
        row(f"    of shadow more than of {beside}", "", "", "", f"{low:+.2f}..{high:+.2f}", f"{late:+.2f}", "0 ms")
    load_cpu = [statistics.median(each) for each in full.values()]
    more = load_cpu[1] / load_cpu[0] - 1
    row("  CPU at full load, µs a request", *(f"{each:.0f}" for each in load_cpu), "", "", f"{more:+.1%}", "5 %")


if __name__ == "__main__":
    main()
