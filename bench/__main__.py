"""What the gateway costs: `make bench`. Ratios in one run, Envoy alone beside it; about three minutes.

With the processor: authentication, one budget in memory, routing, usage and metrics are on. The mock provider and this
client are not counted. CPU is what the scheduler counted for the processes, in microseconds; `least` of several rounds
is the one that other work on the machine disturbed least.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from bench import load
from bench.harness import Bench, Process, bench

ROUNDS = 5


class Sent:
    """How many requests the gateway was sent, to compare with what it counted."""

    total = 0


def drive(what: Bench, port: int, message: bytes, *, total: int, concurrency: int) -> load.Result:
    if port == what.gateway:
        Sent.total += total
    result = asyncio.run(load.run(port, message, total=total, concurrency=concurrency))
    if result.errors:
        raise SystemExit(f"{len(result.errors)} errors, the first: {result.errors[0]}")
    return result


def cpu_of(processes: list[Process], what: Bench, port: int, message: bytes, **how: int) -> tuple[list[float], int]:
    """Microseconds of CPU that each process used, and the events that came."""
    before = [process.cpu() for process in processes]
    result = drive(what, port, message, **how)
    return [(process.cpu() - start) * 1e6 for process, start in zip(processes, before, strict=True)], result.events


def row(name: str, *values: object) -> None:
    print(f"{name:<46}" + "".join(f"{value!s:>14}" for value in values), flush=True)


def plain(what: Bench, requests: int) -> None:
    message = load.request("stub")
    both = [what.envoy, what.processor]
    drive(what, what.gateway, message, total=500, concurrency=8)  # warm
    drive(what, what.alone, message, total=500, concurrency=8)
    rounds: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        (alone,), _ = cpu_of([what.envoy_alone], what, what.alone, message, total=requests, concurrency=8)
        (envoy, ours), _ = cpu_of(both, what, what.gateway, message, total=requests, concurrency=8)
        rounds.append((alone / requests, envoy / requests, ours / requests))
    row("CPU per plain request, µs", "Envoy alone", "Envoy", "processor", "both")
    for name, (alone, envoy, ours) in (
        ("  least", min(rounds, key=lambda r: r[1] + r[2])),
        ("  median", sorted(rounds, key=lambda r: r[1] + r[2])[ROUNDS // 2]),
    ):
        row(name, f"{alone:.0f}", f"{envoy:.0f}", f"{ours:.0f}", f"{envoy + ours:.0f}")


def streams(what: Bench, count: int) -> None:
    message = load.request("stub+pace=20ms+words=100", stream=True)
    rounds = []
    for _ in range(ROUNDS):
        how = {"total": count, "concurrency": count}
        (alone,), events = cpu_of([what.envoy_alone], what, what.alone, message, **how)
        (envoy, ours), events = cpu_of([what.envoy, what.processor], what, what.gateway, message, **how)
        rounds.append((alone / events, envoy / events, ours / events))
    row(f"CPU per event, {count} streams paced at 20 ms, µs", "Envoy alone", "Envoy", "processor", "both")
    for name, (alone, envoy, ours) in (
        ("  least", min(rounds, key=lambda r: r[1] + r[2])),
        ("  median", sorted(rounds, key=lambda r: r[1] + r[2])[ROUNDS // 2]),
    ):
        row(name, f"{alone:.0f}", f"{envoy:.0f}", f"{ours:.0f}", f"{envoy + ours:.0f}")


def latency(what: Bench, requests: int) -> None:
    row("One client, ms", "Envoy alone", "gateway", "difference")
    for name, message, attribute in (
        ("  p50 of plain requests", load.request("stub"), "latencies"),
        ("  p50 to the first byte of a stream", load.request("stub", stream=True), "first_bytes"),
    ):
        took = []
        for port in (what.alone, what.gateway):
            result = drive(what, port, message, total=requests, concurrency=1)
            took.append(statistics.median(getattr(result, attribute)) * 1000)
        row(name, f"{took[0]:.2f}", f"{took[1]:.2f}", f"{took[1] - took[0]:.2f}")


def many(what: Bench, count: int, seconds: int) -> None:
    before, envoy_before = what.processor.memory(), what.envoy.memory()
    message = load.request(f"stub+pace=1000ms+words={seconds}", stream=True)
    peak = [0, 0]

    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], what.processor.memory())
            peak[1] = max(peak[1], what.envoy.memory())
            await asyncio.sleep(0.5)

    async def both() -> load.Result:
        watching = asyncio.create_task(watch())
        try:
            return await load.run(what.gateway, message, total=count, concurrency=count)
        finally:
            watching.cancel()

    Sent.total += count
    result = asyncio.run(both())
    row(f"{count} streams at one event a second", "errors", "events", "KB processor", "KB Envoy")
    row(
        "  per stream",
        len(result.errors),
        result.events,
        f"{(peak[0] - before) / count / 1000:.0f}",
        f"{(peak[1] - envoy_before) / count / 1000:.0f}",
    )


def memory(what: Bench, idle: int, requests: int) -> None:
    message = load.request("stub")
    drive(what, what.gateway, message, total=requests // 4, concurrency=16)
    warm = what.processor.memory()
    drive(what, what.gateway, message, total=requests, concurrency=16)
    row("Memory of the processor, MB", "idle", "warm", f"+{requests} req.")
    row("  resident", f"{idle / 1e6:.0f}", f"{warm / 1e6:.1f}", f"{what.processor.memory() / 1e6:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--counters", default="memory:", help="memory: (default) or sqlite:{dir}/counters.db")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    with bench(options.counters) as what:
        time.sleep(1)
        idle = what.processor.memory()
        plain(what, 4000 // scale)
        streams(what, 50 // scale)
        latency(what, 1000 // scale)
        memory(what, idle, 10000 // scale)
        many(what, 1000 // scale, 20)
        time.sleep(0.5)
        row("Requests sent and counted", Sent.total, what.counted())
        if what.counted() != Sent.total:
            raise SystemExit("the gateway did not count every request")


if __name__ == "__main__":
    main()
