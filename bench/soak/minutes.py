"""A soak of some minutes: `python -m bench.soak --minutes 30`. Mixed load, and nothing that grows or leaks.

Plain answers, streams, clients that leave, wrong keys, unknown models, bodies of 1 MiB, answers without a reader.
Memory is compared between the minutes after a warm-up and the last ones. At the end, once all clients have left,
nothing may be reserved, in flight or open.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from bench.arms import family
from bench.faults.world import World, eventually
from bench.load import request
from bench.steady import LATE, Lateness, Steady, counted

RATE, STREAMS = 60.0, 30
ODD_EVERY = 0.2  # seconds between two odd clients
WARM = 0.3  # share of the time that is left out
GROWTH = 0.05  # of memory
DESCRIPTORS, TASKS = 8, 5  # above those at the beginning: connections to stores come and go
_GAUGES = ("extproc_exchanges_in_flight", "extproc_body_bytes_in_flight", "extproc_ledger_queued")


@dataclass
class Sample:
    """Resident bytes by process, and its descriptors."""

    at: float
    memory: dict[str, int]
    descriptors: dict[str, int]


@dataclass
class Verdict:
    """Lines for people; `wrong` ones are violations."""

    lines: list[str] = field(default_factory=list)
    wrong: int = 0

    def check(self, right: bool, line: str) -> None:
        self.lines.append(f"{'held' if right else 'VIOLATED':<10}{line}")
        self.wrong += not right


def run(minutes: float) -> int:
    """The exit code: 1 when something grew or leaked."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        world = World(Path(folder), shared=True)
        try:
            world.start()
            verdict = asyncio.run(_soak(world, minutes * 60))
        finally:
            world.stop()
    print("\n".join(verdict.lines))
    return 1 if verdict.wrong else 0


async def _soak(world: World, seconds: float) -> Verdict:
    samples: list[Sample] = []
    plain, streamed = request("plain"), request("slow", stream=True)
    await _first(world, plain)
    before, tasks = _sample(world), world.metric("extproc_tasks")
    load = Steady(lambda: [world.ports["listener"]], RATE, STREAMS, plain, streamed)
    deadline = time.monotonic() + seconds
    odd = 0
    async with load, Lateness() as lateness:
        beside: set[asyncio.Task[None]] = set()
        while time.monotonic() < deadline:
            beside.add(task := asyncio.create_task(_odd(world)))
            task.add_done_callback(beside.discard)
            odd += 1
            if odd % 5 == 0:
                samples.append(await asyncio.to_thread(_sample, world))
            await asyncio.sleep(ODD_EVERY)
        if beside:
            await asyncio.wait(beside)
    verdict = Verdict()
    if lateness.worst > LATE:
        verdict.lines.append(f"the machine is busy with other work: timers were late by up to {lateness.worst:.1f} s")
    failed = [outcome for outcome in load.outcomes if outcome.what != "ok"]
    verdict.check(not failed, f"{len(load.outcomes)} requests and {odd} odd ones; failed: {counted(load.outcomes)}")
    _growth(verdict, samples)
    await _leaks(world, verdict, before, tasks)
    return verdict


def _growth(verdict: Verdict, samples: list[Sample]) -> None:
    warm = samples[int(len(samples) * WARM) :]
    part = max(1, len(warm) // 4)
    for name in warm[0].memory:
        first, last = (statistics.median(one.memory[name] for one in some) for some in (warm[:part], warm[-part:]))
        grown = last / first - 1
        what = f"{name}: {first / 2**20:.1f} MiB after the warm-up, {last / 2**20:.1f} MiB at the end, {grown:+.1%}"
        verdict.check(grown <= GROWTH, what)
        tenths = [samples[len(samples) * tenth // 10 : len(samples) * (tenth + 1) // 10] for tenth in range(10)]
        medians = [statistics.median(one.memory[name] for one in some) for some in tenths if some]
        verdict.lines.append(f"{'':<10}{name}, each tenth: {' '.join(f'{found / 2**20:.0f}' for found in medians)} MiB")
    # Envoy keeps connections to providers, so its descriptors are compared under load.
    early, late = (statistics.median(one.descriptors["envoy"] for one in some) for some in (warm[:part], warm[-part:]))
    verdict.check(late <= early * (1 + GROWTH) + DESCRIPTORS, f"envoy: {early:.0f} descriptors, then {late:.0f}")


async def _leaks(world: World, verdict: Verdict, before: Sample, tasks: float) -> None:
    await eventually(lambda: not any(map(world.metric, _GAUGES)) and not _reserved(world), 20)
    verdict.check(world.metric("process_start_time_seconds") > 0, "the processor answers")  # a metric would be 0
    for name in _GAUGES:
        verdict.check(world.metric(name) == 0, f"{name} is {world.metric(name):.0f}")
    verdict.check(not _reserved(world), f"reserved at the end: {_reserved(world)}")
    verdict.check(
        world.metric("extproc_tasks") <= tasks + TASKS, f"tasks: {tasks:.0f}, {world.metric('extproc_tasks'):.0f}"
    )
    verdict.check(not world.metric("extproc_internal_errors_total"), "no internal error")
    first, last = before.descriptors["processor"], _sample(world).descriptors["processor"]
    verdict.check(last <= first + DESCRIPTORS, f"processor: {first} descriptors at the beginning, {last} at the end")


def _reserved(world: World) -> list[str]:
    """Counts with something reserved, as the admin API tells."""
    with urllib.request.urlopen(f"http://127.0.0.1:{world.ports['admin']}/budgets", timeout=10) as answer:
        budgets = json.loads(answer.read())["data"]
    scopes = [scope for budget in budgets for scope in budget["scopes"]]
    return [scope["scope"] for scope in scopes if float(scope["reserved"])]


def _sample(world: World) -> Sample:
    memory, descriptors = {}, {}
    for name in ("processor", "envoy"):
        pids = family(world.pid(name))
        memory[name] = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * 4096
        descriptors[name] = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    return Sample(time.monotonic(), memory, descriptors)


async def _first(world: World, message: bytes) -> None:
    """Some requests, so that connections to stores and providers are there."""
    async with Steady(lambda: [world.ports["listener"]], 20.0, 2, message, request("slow", stream=True)):
        await asyncio.sleep(2)
    await asyncio.sleep(2)


async def _odd(world: World) -> None:
    """One client that is not a good one."""
    kind = random.choice(("leaves", "leaves", "wrong key", "no model", "large", "unread", "early"))
    message = request(
        {"no model": "nothing", "large": "plain"}.get(kind, "slow"),
        stream=kind in ("leaves", "unread"),
        size=1 << 20 if kind == "large" else 0,
    )
    if kind == "wrong key":
        message = message.replace(b"Bearer sk-", b"Bearer no-")
    writer = None
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["listener"])
            writer.write(message[: len(message) // 2] if kind == "early" else message)
            if kind not in ("early", "unread"):
                await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(random.uniform(0, 2))
    if writer is not None:
        writer.transport.abort()
