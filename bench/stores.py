"""The cost of counting a request, for each store, as the gateway does it: reserve and settle.

Exchanges that last are also marked as forwarded, those of `budgets.leases.PAUSE` by one call, which is not
measured here.

With a ledger, settled reservations are kept until their rows are written, and `recorded` tells the store of a batch.

`python -m bench.stores`. CPU is this process's; a Redis uses more of its own. A redis-server must be installed.
"""

import asyncio
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from extproc.stores import Counters, Hold
from extproc.stores.memory import MemoryCounters
from extproc.stores.redis import RedisURL
from extproc.stores.redis.counters import RedisCounters
from extproc.stores.sqlite import SqliteCounters

REQUESTS = 5000
ROUNDS = 5
CONSUMERS = 100
LEDGER_BATCH = 100
AT_ONCE = 50
REDIS_PORT = 16399


async def cost(counters: Counters, holds: int, name: str, at_once: int, *, keep: bool) -> tuple[float, float]:
    """Microseconds of CPU and of wall time per request, in the best of some rounds."""
    cpu, wall = [], []
    kept: list[str] = []
    settling: list[asyncio.Future[bool]] = []

    async def worker(round_: int, first: int) -> None:
        for number in range(first, REQUESTS, at_once):
            id_ = f"{name}-{round_}-{number}"
            consumer = number % CONSUMERS
            wanted = [Hold(f"budget-{index}:consumer={consumer}", 60, 1 << 60, 900) for index in range(holds)]
            await counters.reserve(id_, wanted, 60.0)
            settled = counters.settle(id_, [450] * holds, keep=keep)
            if isinstance(counters, RedisCounters):  # a client has its answer before its exchange is settled
                settling.append(asyncio.ensure_future(settled))
            else:
                await settled
            if keep:
                kept.append(id_)
                if len(kept) == LEDGER_BATCH:
                    batch = kept[:]
                    kept.clear()
                    await counters.recorded(batch)

    for round_ in range(ROUNDS):
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        await asyncio.gather(*[worker(round_, first) for first in range(at_once)])
        await asyncio.gather(*settling)
        settling.clear()
        cpu.append((time.process_time() - cpu_before) / REQUESTS * 1e6)
        wall.append((time.perf_counter() - wall_before) / REQUESTS * 1e6)
    return min(cpu), min(wall)


async def reads(port: int) -> int:
    """Pieces that the server has read: the round trips, where calls that leave together count once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"INFO stats\r\n")
    size = int((await reader.readline())[1:])
    found = (await reader.readexactly(size)).decode()
    writer.close()
    return int(found.partition("total_reads_processed:")[2].partition("\r")[0])


async def paced(port: int, rate: int) -> None:
    """Round trips of a request at a steady rate, of clients that do not wait for their settles."""
    counters = RedisCounters(RedisURL("127.0.0.1", port), timeout=5.0)
    holds, loop = [Hold("paced", 60, 1 << 60, 900)], asyncio.get_running_loop()

    async def request(number: int) -> None:
        await counters.reserve(f"paced-{rate}-{number}", holds, 60.0)
        await asyncio.sleep(0.02)  # the provider
        await counters.settle(f"paced-{rate}-{number}", [450], keep=True)

    await request(-1)
    before, begun, tasks = await reads(port), loop.time(), []
    for number in range(count := 5 * rate):
        tasks.append(asyncio.ensure_future(request(number)))
        await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
    await asyncio.gather(*tasks)
    print(f"redis at {rate:4} requests a second: {(await reads(port) - before - 1) / count:.2f} round trips a request")
    await counters.close()


async def table(name: str, counters: Counters, calls: int, at_once: int = 1) -> None:
    for keep in (False, True):
        for holds in (1, 2, 4):
            cpu, wall = await cost(counters, holds, f"{name}-{at_once}-{holds}-{keep}", at_once, keep=keep)
            ledger = "yes" if keep else "no"
            print(f"{name:8} {at_once:8} {ledger:>6} {holds:5} {calls:5} {cpu:8.1f} {wall:8.1f}")


async def main(directory: Path) -> None:
    print(f"{'store':8} {'at once':>8} {'ledger':>6} {'holds':>5} {'calls':>5} {'cpu µs':>8} {'wall µs':>8}")
    await table("memory", MemoryCounters(), 0)
    sqlite = SqliteCounters(directory / "c.db")
    await table("sqlite", sqlite, 0)
    await sqlite.close()
    if shutil.which("redis-server") is None:
        print("redis: there is no redis-server")
        return
    options = ["--port", str(REDIS_PORT), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        await asyncio.sleep(0.5)
        redis = RedisCounters(RedisURL("127.0.0.1", REDIS_PORT), timeout=5.0)
        for at_once in (1, AT_ONCE):
            await table("redis", redis, 2, at_once)
        await redis.close()
        for rate in (50, 200, 500, 1000):
            await paced(REDIS_PORT, rate)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    import uvloop

    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(main(Path(folder)))
