"""What several workers bring: requests per second, CPU per request and how evenly they share.

    python -m bench.workers 1 2                                         with SQLite
    python -m bench.workers 1 2 --counters 'redis://127.0.0.1:6379/0'
    python -m bench.workers 1 2 --rate 200                              at the same rate

Without a rate one worker is full, and saves work by doing much at each turn of its loop. Each worker has a core. Envoy,
the provider and the client share the others. Requests per second mean something where two cores and more are left for
these, on a quiet machine; CPU per request and shares do on any.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from bench import load
from bench.arms import Arm, Stage, pin, staged

IN_FLIGHT = 128


def layout(workers: int) -> tuple[set[int], set[int]]:
    """The cores of the workers, and of everything around them; all for both where there are too few."""
    cores = list(range(os.cpu_count() or 1))
    if len(cores) < workers + 2:
        return set(cores[:workers]) or {0}, set(cores)
    return set(cores[:workers]), set(cores[workers:])


def shares(arm: Arm) -> list[float]:
    """The part of the requests that each worker had."""
    with urllib.request.urlopen(arm.status, timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("extproc_requests_total{")]
    counts: dict[str, float] = {}
    for line in lines:
        worker = line.partition('worker="')[2].partition('"')[0]
        counts[worker] = counts.get(worker, 0.0) + float(line.split()[-1])
    return [count / sum(counts.values()) for _, count in sorted(counts.items())]


def once(arm: Arm, total: int, rate: float) -> tuple[float, float, float]:
    """Requests per second, and CPU in µs per request of the processor and of Envoy."""
    before = arm.cpu()
    result = asyncio.run(load.run(arm.port, load.request("stub"), total=total, concurrency=IN_FLIGHT, rate=rate))
    arm.errors += len(result.errors)
    time.sleep(0.3)  # the ledger and Envoy's access log come behind
    spent = {name: seconds - before[name] for name, seconds in arm.cpu().items()}
    return total / result.seconds, spent["processor"] / total * 1e6, spent["Envoy"] / total * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--counters", default="sqlite:{dir}/counters.db", help="stores.counters")
    parser.add_argument("--requests", type=int, default=5000, help="of a round (default: 5000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second (default: as many as it can)")
    options = parser.parse_args()
    most = max(options.workers)
    _, around = layout(most)
    pin(around)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, staged(Path(folder)) as stage:
        arms = [arm_of(stage, count, most, options.counters) for count in options.workers]
        found: dict[str, list[tuple[float, float, float]]] = {arm.name: [] for arm in arms}
        for arm in arms:
            once(arm, max(options.requests // 5, 200), options.rate)  # warm
        for number in range(options.rounds):
            for arm in arms if number % 2 == 0 else reversed(arms):
                found[arm.name].append(once(arm, options.requests, options.rate))
        first = None
        for arm in arms:
            rate, processor, envoy = (statistics.median(column) for column in zip(*found[arm.name], strict=True))
            first = first or rate
            split = "/".join(f"{share:.0%}" for share in shares(arm))
            print(
                f"{arm.name}: {rate:.0f} requests/s ({rate / first:.2f}x), processor {processor:.0f} µs and Envoy "
                f"{envoy:.0f} µs a request, shares {split}, {arm.errors} errors",
                flush=True,
            )


def arm_of(stage: Stage, count: int, most: int, counters: str) -> Arm:
    cores, _ = layout(count)
    _, around = layout(most)
    name, more = f"{count} workers", f", workers: {count}"
    return stage.gateway(name, processor=more, counters=counters, cores=cores, around=around)


if __name__ == "__main__":
    main()
