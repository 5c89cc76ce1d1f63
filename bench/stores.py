"""CPU cost of a request's counting, per store: reserve + forward + settle. `python -m bench.stores`."""

import asyncio
import tempfile
import time
from pathlib import Path

from extproc.stores import Counters, Hold
from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters

REQUESTS = 5000
ROUNDS = 5
CONSUMERS = 100


async def cost(counters: Counters, holds: int, name: str) -> tuple[float, float]:
    """Microseconds of CPU and of wall time per request, in the best of some rounds."""
    cpu, wall = [], []
    for round_ in range(ROUNDS):
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        for number in range(REQUESTS):
            id_ = f"{name}-{round_}-{number}"
            consumer = number % CONSUMERS
            wanted = [Hold(f"budget-{index}:consumer={consumer}", 60, 1 << 60, 900) for index in range(holds)]
            await counters.reserve(id_, wanted, 60.0)
            await counters.forward(id_, 60.0)
            await counters.settle(id_, [450] * holds)
        cpu.append((time.process_time() - cpu_before) / REQUESTS * 1e6)
        wall.append((time.perf_counter() - wall_before) / REQUESTS * 1e6)
    return min(cpu), min(wall)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        print(f"{'store':8} {'holds':>5} {'cpu µs':>8} {'wall µs':>8}")
        for name, counters in (("memory", MemoryCounters()), ("sqlite", SqliteCounters(Path(directory) / "c.db"))):
            for holds in (1, 2, 4):
                cpu, wall = await cost(counters, holds, f"{name}-{holds}")
                print(f"{name:8} {holds:5} {cpu:8.1f} {wall:8.1f}")
            await counters.close()


if __name__ == "__main__":
    asyncio.run(main())
