"""The cost of the cache of answers in the processor, without gRPC's transport: `python -m bench.cache`.

miss       CPU that the cache adds to a request whose answer is kept in memory: requests with the cache and without it,
           in turns, the least disturbed fiftieth of many short rounds
hit        CPU of a kept answer beside that of a request that a provider answers, and the median time of one
memory     bytes that 100,000 distinct answers take, beside the bound of the store
at once    requests of 500 equal ones that ask a provider
scopes     kept answers that another consumer would get, in 100,000 random pairs of consumers with equal requests

Add `profile` for a profile of misses.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import os
import pstats
import random
import statistics
import sys
import time
import tracemalloc
from itertools import count

from bench.core import ANSWER, SETTINGS, headers
from extproc.cache.answers import open_answers
from extproc.cache.stores.memory import MemoryStore
from extproc.envoy.server.wire import converse
from extproc.exchange import pipeline
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.services import Services
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings import config
from extproc.stores import open_counters
from extproc.wire.pb import extproc_pb2 as pb

ROUNDS, REQUESTS = 150, 30
LIMIT, ENTRIES = 64 << 20, 100_000
AT_ONCE, PAIRS, CONSUMERS = 500, 100_000, 60
_CACHE = "cache: {waiting: 1000, wait: 8s, rules: [{ttl: 1h}]}"
_NAMES = [f"c{number}" for number in range(CONSUMERS)]
_CONSUMERS = ", ".join(f"{{name: {name}, keys: [{{env: BENCH_KEY_{name}}}]}}" for name in _NAMES)
_TAIL = [
    headers(
        "response_headers",
        {":status": "200", "content-type": "application/json"},
        {"upstream.request_attempt_count": 1},
    ),
    pb.ProcessingRequest(response_body=pb.HttpBody(body=ANSWER, end_of_stream=True)).SerializeToString(),
]
_numbers = count()


class Gateway:
    """A pipeline, and conversations with it."""

    def __init__(self, cache: str = "") -> None:
        settings = config.parse(SETTINGS.replace("consumers: [", f"consumers: [{_CONSUMERS}, ") + cache)
        self.answers = open_answers("memory:", settings.cache)
        services = Services(open_counters("memory:"), Telemetry(settings), answers=self.answers)
        self._build = pipeline.build(settings, services)

    async def ask(self, head: bytes, body: bytes) -> GatewayStream:
        """A request, up to its way to a provider. It is done where a kept answer served it."""
        stream = GatewayStream(self._build)
        await converse(stream, head)
        await converse(stream, body)
        if stream.done:
            await stream.on_end()
        return stream

    async def finish(self, stream: GatewayStream) -> None:
        for message in _TAIL:
            await converse(stream, message)
        await stream.on_end()


def head(name: str = "bench") -> bytes:
    given = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
    return headers("request_headers", {**given, "authorization": f"Bearer sk-gw-{name}", "content-length": "100"})


def question(text: str) -> bytes:
    body = b'{"model": "stub", "messages": [{"role": "user", "content": "%s %s"}]}' % (b"word " * 20, text.encode())
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True)).SerializeToString()


async def paid(gateway: Gateway, bodies: list[bytes]) -> None:
    begins = head()
    for body in bodies:
        stream = await gateway.ask(begins, body)
        assert not stream.done
        await gateway.finish(stream)


async def kept(gateway: Gateway, bodies: list[bytes]) -> list[float]:
    begins, times = head(), []
    for body in bodies:
        began = time.perf_counter()
        stream = await gateway.ask(begins, body)
        times.append(time.perf_counter() - began)
        assert stream.done
    return times


def _fresh() -> list[bytes]:
    return [question(f"number {next(_numbers)}") for _ in range(REQUESTS)]


def misses_and_hits() -> None:
    plain, cached = Gateway(), Gateway(_CACHE)
    spent: dict[str, list[float]] = {"without": [], "miss": [], "hit": []}
    times: list[float] = []
    with asyncio.Runner() as runner:
        if "profile" in sys.argv:
            with cProfile.Profile() as profile:
                for _ in range(ROUNDS):
                    runner.run(paid(cached, _fresh()))
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        for _ in range(ROUNDS):
            bodies = _fresh()
            for name, gateway in (("without", plain), ("miss", cached)):
                began = time.process_time()
                runner.run(paid(gateway, bodies))
                spent[name].append((time.process_time() - began) / REQUESTS * 1e6)
            began = time.process_time()
            times += runner.run(kept(cached, bodies))
            spent["hit"].append((time.process_time() - began) / REQUESTS * 1e6)
    least = {name: sorted(found)[ROUNDS // 50] for name, found in spent.items()}
    added, median = least["miss"] - least["without"], statistics.median(times) * 1e6
    print(f"miss     {added:6.1f} µs CPU added to a request of {least['without']:.1f} µs (at most 80)")
    print(f"hit      {least['hit']:6.1f} µs CPU; a request that a provider answers {least['without']:.1f} µs")
    print(f"hit      {median:6.1f} µs, the median time of a kept answer in the processor (at most 2000)")


def memory() -> None:
    async def fill(store: MemoryStore) -> None:
        chance = random.Random(16)
        for _ in range(ENTRIES):
            await store.put(os.urandom(32), os.urandom(chance.randrange(500, 4000)), os.urandom(16), 3600)

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    store = MemoryStore(LIMIT)
    asyncio.run(fill(store))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    size = asyncio.run(store.stats())["bytes"]
    print(f"memory   {taken / LIMIT:6.1%} of its bound is allocated, {size / LIMIT:.1%} counted ({ENTRIES:,} answers)")


def at_once() -> None:
    async def run() -> int:
        gateway, begins, body = Gateway(_CACHE), head(), question("at once")
        tasks = [asyncio.create_task(gateway.ask(begins, body)) for _ in range(AT_ONCE)]
        while sum(task.done() for task in tasks) < 1 or gateway.answers.flights.waiting < AT_ONCE - 1:
            await asyncio.sleep(0)
        [first] = [task.result() for task in tasks if task.done()]
        await gateway.finish(first)
        return sum(not stream.done or stream is first for stream in await asyncio.gather(*tasks))

    print(f"at once  {asyncio.run(run()):6} of {AT_ONCE} equal requests asked a provider")


def scopes() -> None:
    async def run() -> int:
        gateway, body, chance = Gateway(_CACHE), question("scopes"), random.Random(16)
        heads = {name: head(name) for name in _NAMES}
        filled = set()
        wrong = 0
        for _ in range(PAIRS // 2):
            one, other = chance.sample(_NAMES, 2)
            for name in (one, other):
                stream = await gateway.ask(heads[name], body)
                wrong += stream.done and name not in filled
                if not stream.done:
                    await gateway.finish(stream)
                    filled.add(name)
            if len(filled) == CONSUMERS:
                await gateway.answers.forget(None)
                filled.clear()
        return wrong

    print(f"scopes   {asyncio.run(run()):6} hits of another consumer in {PAIRS:,} pairs")


def main() -> None:
    for name in ("bench", *_NAMES):
        os.environ["BENCH_KEY" if name == "bench" else f"BENCH_KEY_{name}"] = f"sk-gw-{name}"
    gc.freeze()  # as the processor does
    for measure in (misses_and_hits, memory, at_once, scopes):
        measure()


if __name__ == "__main__":
    main()
