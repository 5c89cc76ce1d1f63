"""What several workers bring: requests per second, CPU per request and how evenly they share.

    python -m bench.workers 1 2                                         with SQLite
    python -m bench.workers 1 2 --counters 'redis://127.0.0.1:6379/0'
    python -m bench.workers 1 2 --rate 200                              at the same rate
    python -m bench.workers 1 2 --rate 200 --each                       200 for each worker

Without a rate one worker is full, and saves work by doing much at each turn of its loop. The workers of every arm have
the same cores: one for each of the most workers, and Envoy, the provider and the client share the others; or all share
all, where there are too few. Requests per second mean something where two cores and more are left, on a quiet machine;
CPU per request and shares do on any.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import load
from bench.arms import Arm, pin, staged

IN_FLIGHT = 128


def layout(workers: int) -> tuple[set[int], set[int]]:
    """The cores of the workers, and of everything around them; all for both where there are too few."""
    cores = list(range(os.cpu_count() or 1))
    if len(cores) < workers + 2:
        return set(cores), set(cores)
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
    parser.add_argument("--each", action="store_true", help="--rate is that of each worker")
    options = parser.parse_args()
    cores, around = layout(max(options.workers))
    pin(around)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, staged(Path(folder)) as stage:
        arms: list[tuple[Arm, float]] = []  # and its rate
        for count in options.workers:
            name, more = f"{count} workers", f", workers: {count}"
            arm = stage.gateway(name, processor=more, counters=options.counters, cores=cores, around=around)
            arms.append((arm, options.rate * (count if options.each else 1)))
        found: dict[str, list[tuple[float, float, float]]] = {arm.name: [] for arm, _ in arms}
        for arm, rate in arms:
            once(arm, max(options.requests // 5, 200), rate)  # warm
        for number in range(options.rounds):
            for arm, rate in arms if number % 2 == 0 else reversed(arms):
                found[arm.name].append(once(arm, options.requests, rate))
        report(found, [arm for arm, _ in arms])


def report(found: Mapping[str, Sequence[tuple[float, float, float]]], arms: Iterable[Arm]) -> None:
    """Print the medians of each arm, and its ratios to the first one."""
    first: tuple[float, float] | None = None
    for arm in arms:
        rate, processor, envoy = (statistics.median(column) for column in zip(*found[arm.name], strict=True))
        first = first or (rate, processor + envoy)
        split = "/".join(f"{share:.0%}" for share in shares(arm))
        print(
            f"{arm.name}: {rate:.0f} requests/s ({rate / first[0]:.2f}x), {processor + envoy:.0f} µs a request "
            f"({(processor + envoy) / first[1]:.3f}x: processor {processor:.0f}, Envoy {envoy:.0f}), shares {split}, "
            f"{arm.errors} errors",
            flush=True,
        )


if __name__ == "__main__":
    main()
