"""The faults. Each breaks something, waits, and mends it; `seen` are the codes that clients may get meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.world import World, eventually
from bench.load import request

HOLD = 3.0  # seconds of a fault
CUT = frozenset({"cut", "reset", "refused"})
AWAY = frozenset({"gateway_restarting"}) | CUT
"""Answers while the processor is away; streams that it carried end."""
STORE = frozenset({"store_unavailable"})

Break = Callable[[World], AbstractAsyncContextManager[str | None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `shared`: needs Redis and PostgreSQL, False: needs files. `recovers`: seconds until nothing fails."""

    name: str
    expected: str
    breaks: Break
    seen: frozenset[str] = frozenset()
    shared: bool = True
    recovers: float = 3.0


FAULTS: list[Fault] = []


def fault(
    name: str, expected: str, *, seen: frozenset[str] = frozenset(), shared: bool = True, recovers: float = 3.0
) -> Callable[[Callable[[World], AsyncIterator[str | None]]], None]:
    """Register a fault: it breaks something, yields when that has lasted, a complaint if any, and mends."""

    def register(breaks: Callable[[World], AsyncIterator[str | None]]) -> None:
        FAULTS.append(Fault(name, expected, asynccontextmanager(breaks), seen, shared, recovers))

    return register


# --- the processor


@fault("processor killed", "503 `gateway_restarting`, streams end; it starts again", seen=AWAY)
async def _(world: World) -> AsyncIterator[str | None]:
    world.kill("processor")
    await asyncio.sleep(HOLD)
    back = await eventually(lambda: world.metric("process_start_time_seconds") > 0, 60)  # Python's start takes a CPU
    yield None if back else "it did not start again"


@fault("processor paused for 3 s", "requests wait, and are answered")
async def _(world: World) -> AsyncIterator[str | None]:
    world.send("processor", signal.SIGSTOP)
    await asyncio.sleep(HOLD)
    world.send("processor", signal.SIGCONT)
    yield None


@fault("processor at a third of its speed", "requests take longer")
async def _(world: World) -> AsyncIterator[str | None]:
    for _ in range(int(HOLD / 0.15)):
        world.send("processor", signal.SIGSTOP)
        await asyncio.sleep(0.1)
        world.send("processor", signal.SIGCONT)
        await asyncio.sleep(0.05)
    yield None


@fault("processor without free descriptors", "requests are served over the connections that are open")
async def _(world: World) -> AsyncIterator[str | None]:
    with no_descriptors(world.pid("processor")):
        await asyncio.sleep(HOLD)
    yield None


@fault("large bodies: 20 of 8 MiB at once", "some of these get 503 `overloaded`; the others are served")
async def _(world: World) -> AsyncIterator[str | None]:
    before = world.memory()
    message = request("plain", size=8 << 20)
    found = await asyncio.gather(*(ask(world, message, 60.0) for _ in range(20)))
    await asyncio.sleep(0.5)
    grown = (world.memory() - before) >> 20
    unknown = set(found) - {"200", "503", "429"}
    yield f"{grown} MiB more memory" if grown > 300 else f"statuses {sorted(unknown)}" if unknown else None


@fault("settings that are no YAML, then settings with a mistake", "the last good ones stay, and /readyz says so")
async def _(world: World) -> AsyncIterator[str | None]:
    text = world.file.read_text()
    world.file.write_text("}{ \0 garbage")
    told = await eventually(lambda: world.metric("extproc_settings_stale") == 1, 30)
    world.file.write_text(text.replace("unit: tokens", "unit: tonkens"))
    await asyncio.sleep(HOLD / 2)
    world.file.write_text(text)
    mended = await eventually(lambda: world.metric("extproc_settings_stale") == 0, 30)
    yield None if told and mended else "the gauge extproc_settings_stale did not follow"


@fault("strangers at the processor's socket", "their connections end; another user cannot connect")
async def _(world: World) -> AsyncIterator[str | None]:
    says = (
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        os.urandom(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(4096),
        b"",
    )
    writers = []
    for number in range(100):
        _, writer = await asyncio.open_unix_connection(str(world.socket))
        with contextlib.suppress(OSError):
            writer.write(says[number % len(says)])
            await writer.drain()
        writers.append(writer)
    await asyncio.sleep(HOLD)
    for writer in writers:
        writer.transport.abort()
    world.folder.chmod(0o755)
    yield "another user can connect" if os.geteuid() == 0 and another_user_connects(str(world.socket)) else None


# --- stores of a fleet


@fault("Redis killed, and empty afterwards", "503 `store_unavailable`; counts begin anew, which is logged", seen=STORE)
async def _(world: World) -> AsyncIterator[str | None]:
    await asyncio.to_thread(world.redis.stop)
    await asyncio.sleep(HOLD)
    await asyncio.to_thread(world.redis.start)
    yield None


@fault("Redis paused for 3 s", "503 `store_unavailable`", seen=STORE)
async def _(world: World) -> AsyncIterator[str | None]:
    world.redis.pause()
    await asyncio.sleep(HOLD)
    world.redis.resume()
    yield None


@fault("Redis flushed", "counts begin anew, which is counted", seen=frozenset())
async def _(world: World) -> AsyncIterator[str | None]:
    before = world.metric("extproc_store_losses_total")
    await asyncio.to_thread(world.redis.cli, "flushall")
    told = await eventually(lambda: world.metric("extproc_store_losses_total") > before)
    yield None if told else "the loss was not counted"


@fault("Redis full", "503 `store_unavailable`", seen=STORE)
async def _(world: World) -> AsyncIterator[str | None]:
    await asyncio.to_thread(world.redis.cli, "config", "set", "maxmemory", "1mb")
    await asyncio.sleep(HOLD)
    await asyncio.to_thread(world.redis.cli, "config", "set", "maxmemory", "0")
    yield None


@fault("PostgreSQL killed", "rows wait; no request notices")
async def _(world: World) -> AsyncIterator[str | None]:
    assert world.postgres is not None
    await asyncio.to_thread(world.postgres.kill)
    await asyncio.sleep(HOLD)
    await asyncio.to_thread(world.postgres.start)
    yield await rows_written(world)


@fault("PostgreSQL paused for 3 s", "rows wait; no request notices")
async def _(world: World) -> AsyncIterator[str | None]:
    world.send_postgres(signal.SIGSTOP)
    await asyncio.sleep(HOLD)
    world.send_postgres(signal.SIGCONT)
    yield await rows_written(world)


@fault("PostgreSQL refuses writes, as when it is full", "rows wait; no request notices")
async def _(world: World) -> AsyncIterator[str | None]:
    assert world.postgres is not None
    for change in ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"):
        await asyncio.to_thread(world.postgres.sql, f"ALTER SYSTEM {change}")
        await asyncio.to_thread(world.postgres.sql, "SELECT pg_reload_conf()")
        await asyncio.sleep(HOLD if change.startswith("SET") else 0)
    yield await rows_written(world)


# --- stores in files


@fault("disk full", "503 `store_unavailable` from the counters; rows wait", seen=STORE, shared=False, recovers=5)
async def _(world: World) -> AsyncIterator[str | None]:
    if not world.mounted:
        yield "not tried: it takes root to mount a small file system"
        return
    with contextlib.suppress(OSError), (world.data / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    await asyncio.sleep(HOLD)
    (world.data / "filler").unlink()
    yield await rows_written(world)


@fault("counters locked by another program for 3 s", "503 `store_unavailable`", seen=STORE, shared=False)
async def _(world: World) -> AsyncIterator[str | None]:
    with contextlib.closing(sqlite3.connect(world.data / "counters.db", timeout=10)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await asyncio.sleep(HOLD)
        other.rollback()
    yield None


@fault("ledger locked by another program for 3 s", "rows wait; no request notices", shared=False)
async def _(world: World) -> AsyncIterator[str | None]:
    with contextlib.closing(sqlite3.connect(world.data / "ledger.db", timeout=10)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await asyncio.sleep(HOLD)
        other.rollback()
    yield await rows_written(world)


@fault("ledger corrupted, then moved away", "rows wait; no request notices", shared=False)
async def _(world: World) -> AsyncIterator[str | None]:
    ledger = world.data / "ledger.db"
    with ledger.open("r+b") as damaged:
        damaged.write(os.urandom(min(ledger.stat().st_size, 1 << 16)))
    await asyncio.sleep(HOLD)
    for file in list(world.data.glob("ledger.db*")):
        file.rename(file.with_name(f"broken-{file.name}"))
    yield await rows_written(world)


# --- providers


@fault("provider down", "the next target answers; streams of it end", seen=CUT)
async def _(world: World) -> AsyncIterator[str | None]:
    world.kill("a")
    await asyncio.sleep(HOLD)
    world.provider("a")
    yield None


@fault("provider hangs", "after the time of a try (2 s) the next target answers", recovers=6)
async def _(world: World) -> AsyncIterator[str | None]:
    world.send("a", signal.SIGSTOP)
    await asyncio.sleep(HOLD)
    world.send("a", signal.SIGCONT)
    yield None


@fault("provider speaks garbage", "the next target answers", seen=CUT)
async def _(world: World) -> AsyncIterator[str | None]:
    world.kill("a")
    world.provider("a", "garbage")
    await asyncio.sleep(HOLD)
    world.kill("a")
    world.provider("a")
    yield None


@fault("provider whose answers never end, plain and streamed", "memory stays bounded; the others are served")
async def _(world: World) -> AsyncIterator[str | None]:
    before = world.memory()
    messages = [request("endless", stream=stream) for stream in (True, False)] * 5
    await asyncio.gather(*(ask(world, message, HOLD) for message in messages))
    grown = (world.memory() - before) >> 20
    yield f"{grown} MiB more memory" if grown > 200 else None


# --- clients


@fault("2,000 idle connections", "the others are served")
async def _(world: World) -> AsyncIterator[str | None]:
    writers = [await connect(world) for _ in range(2000)]
    await asyncio.sleep(HOLD)
    for writer in writers:
        writer.transport.abort()
    yield None


@fault("slowloris: 500 requests that never get past their headers", "the others are served")
async def _(world: World) -> AsyncIterator[str | None]:
    writers = [await connect(world) for _ in range(500)]
    for writer in writers:
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
    for number in range(int(HOLD / 0.3)):
        for writer in writers:
            writer.write(b"x-%d: y\r\n" % number)
        await asyncio.sleep(0.3)
    for writer in writers:
        writer.transport.abort()
    yield None


@fault(
    "Envoy without free descriptors",
    "open connections are served; new ones wait or fail",
    seen=CUT | {"timeout", "no_provider_available", "gateway_restarting"},
    recovers=6,
)
async def _(world: World) -> AsyncIterator[str | None]:
    with no_descriptors(world.pid("envoy")):
        await asyncio.sleep(HOLD)
    yield None


# --- clocks


@fault(
    "the processor's clock steps an hour back, then ahead",
    "requests are served; windows follow the clock",
    shared=False,
)
async def _(world: World) -> AsyncIterator[str | None]:
    offset = world.folder / "offset"
    offset.write_text("0")
    world.program = ["bench.faults.clock", str(offset)]
    world.kill("processor")  # it starts again with this clock, which is no part of the fault
    await asyncio.sleep(HOLD)
    await eventually(lambda: world.metric("process_start_time_seconds") > 0, 60)
    await asyncio.sleep(HOLD)
    world.begun = time.monotonic()
    for step in ("-3600", "3600", "0"):
        offset.write_text(step)
        await asyncio.sleep(HOLD / 2)
    yield None


# --- parts


async def rows_written(world: World) -> str | None:
    """A complaint when rows were lost or still wait."""
    caught_up = await eventually(lambda: world.metric("extproc_ledger_queued") < 1000, 15)
    lost = world.metric('extproc_ledger_rows_total{outcome="dropped"}')
    return f"{lost:.0f} rows were dropped" if lost else None if caught_up else "rows still wait"


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """Leave a process no room for further descriptors."""
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limit[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


def another_user_connects(path: str) -> bool:
    """True when the user nobody can connect. Only root can try."""
    os.seteuid(65534)
    try:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(path)
    except PermissionError:
        return False
    finally:
        os.seteuid(0)
    return True


async def connect(world: World) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", world.ports["listener"])
    return writer


async def ask(world: World, message: bytes, seconds: float = 20.0) -> str:
    """The status of a request of its own; `slow` when its answer did not end in time."""
    writer = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["listener"])
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            while await reader.read(1 << 16):
                if b"content-length" in head.lower():
                    break
            return head[9:12].decode()
    except TimeoutError:
        return "slow"
    except (OSError, asyncio.IncompleteReadError):
        return "reset"
    finally:
        if writer is not None:
            writer.transport.abort()
