"""The cost of the ledger: reports over a million rows, and rows written beside an event loop.

`python -m bench.ledger [ROWS]`. SQLite, and PostgreSQL if its server is installed, both in a temporary folder. The
target: any report over a month of a million rows in 1 s, once past hours and days are added up. `rows` is the time of
the same report before.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from extproc.money.ledger import Row, open_ledger
from extproc.money.ledger.ledger import Ledger
from extproc.money.ledger.query import Query
from tests.postgres_server import PostgresServer, binaries

START = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 30
REPORTS = (
    "",
    "group_by=team",
    "group_by=team&resolution=day",
    "group_by=team&resolution=month",
    "group_by=team&resolution=hour",
    "group_by=consumer,model&resolution=hour",
    "group_by=label.agent",
    "group_by=label.agent,team&resolution=day",
    "group_by=label.run",
    "group_by=label.run,label.agent,model&resolution=hour",
    "group_by=label.agent&consumer=consumer-7",
    "label.run=run-77&resolution=day",
    "group_by=status,error,stream,usage_source,provider,provider_model,operation,key",
)
RATE = 2000  # rows per second
SECONDS = 20
TICK = 0.005


def rows(count: int) -> Iterator[Row]:
    """A month of a company: 200 consumers in 10 teams, 8 models, 20,000 runs; 2 % refused, 1 % failed."""
    chance = random.Random(1)
    for number in range(count):
        consumer = chance.randrange(200)
        model = chance.randrange(8)
        fate = chance.random()
        refused, failed = fate < 0.02, fate > 0.99
        yield Row(
            id=f"{chance.getrandbits(128):032x}",
            time=START.timestamp() + number * DAYS * 86_400 / count,
            request_id=f"{chance.getrandbits(128):032x}",
            consumer=f"consumer-{consumer}",
            team=f"team-{consumer % 10}",
            key=f"consumer-{consumer}/1",
            labels={
                "agent": f"agent-{chance.randrange(50)}",
                "branch": "main",
                "run": f"run-{chance.randrange(20_000)}",
                "task": f"task-{chance.randrange(300)}",
            },
            operation="chat",
            model=f"model-{model}",
            target=f"model-{model}",
            provider=f"provider-{model % 3}",
            provider_model=f"model-{model}-2026-08-06",
            attempts=0 if refused else 1,
            status=429 if refused else 503 if failed else 200,
            error="budget_exceeded" if refused else "upstream_error" if failed else "",
            outcome="refused" if refused else "error" if failed else "ok",
            stream=model % 2 == 0,
            input_tokens=chance.randrange(10_000),
            output_tokens=chance.randrange(2000),
            usage_source="provider",
            cost=0 if refused else chance.randrange(10**8),
            price_version="2026-11-01",
            duration_ms=chance.randrange(20_000),
            charges={"team-month:team=team-1": chance.randrange(10**8), "rpm:consumer=consumer-1": 1},
        )


def fill(ledger: Ledger, count: int) -> float:
    """Seconds to write so many rows at full speed."""
    begun = time.perf_counter()
    for row in rows(count):
        while not ledger.writer.add(row):
            time.sleep(0.01)
    while ledger.writer.queued:
        time.sleep(0.01)
    return time.perf_counter() - begun


def report(ledger: Ledger, question: str) -> tuple[float, float, int]:
    """Seconds to the answer in JSON, the best of two runs; seconds of this process's CPU (a server uses its own); the
    number of buckets.
    """
    parameters = [("start", "2026-11-01"), ("end", "2026-12-01")]
    parameters += [tuple(part.split("=")) for part in question.split("&") if part]
    query = Query.parse(parameters, START)
    seconds, cpu = [], []
    for _ in range(2):
        begun, cpu_begun = time.perf_counter(), time.process_time()
        found = ledger.usage(query)
        msgspec.json.encode(found.json())
        seconds.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - cpu_begun)
    return min(seconds), min(cpu), len(found.buckets)


async def ticks(ledger: Ledger | None) -> tuple[float, float, float]:
    """The lateness of a timer in milliseconds, p50 and p99, and the share of a CPU that this process used."""
    source = rows(RATE * SECONDS + RATE)
    late = []
    cpu, begun = time.process_time(), time.perf_counter()
    added = 0
    while (elapsed := time.perf_counter() - begun) < SECONDS:
        due = int(elapsed * RATE)
        while added < due:
            row = next(source)
            added += 1
            if ledger is not None:
                assert ledger.writer.add(row)
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        late.append((time.perf_counter() - before - TICK) * 1000)
    share = (time.process_time() - cpu) / (time.perf_counter() - begun)
    return statistics.median(late), statistics.quantiles(late, n=100)[98], share


def ingest(name: str, ledger: Ledger | None) -> None:
    import uvloop

    before = {thread.native_id: thread_cpu(thread.native_id) for thread in threading.enumerate() if thread.native_id}
    p50, p99, share = uvloop.run(ticks(ledger))
    used = sum(
        thread_cpu(thread.native_id) - before.get(thread.native_id, 0.0)
        for thread in threading.enumerate()
        if thread.name == "ledger" and thread.native_id
    )
    print(f"{name:11} {p50:8.2f} {p99:8.2f} {share:10.1%} {used / SECONDS:10.1%}")


def thread_cpu(thread: int) -> float:
    """Seconds of CPU of one of our threads, from Linux."""
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(name: str, url: str, count: int) -> None:
    ledger = open_ledger(url)
    ledger.writer.start()
    print(f"\n{name}: {count} rows written in {(seconds := fill(ledger, count)):.0f} s, {count / seconds:.0f} a second")
    rows = {question: report(ledger, question) for question in REPORTS}
    begun, cpu = time.perf_counter(), time.process_time()
    made = ledger.roll_up((START + timedelta(days=DAYS + 1)).timestamp())
    begun, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(f"added up in {begun:.0f} s ({cpu:.0f} s CPU): {made} hours and days")
    print(f"{'':>8}   {'CPU':>6} {'rows':>10} {'buckets':>8}")
    for question in REPORTS:
        seconds, cpu, buckets = report(ledger, question)
        print(
            f"{seconds:8.2f} s {cpu:6.2f} s {rows[question][0]:8.2f} s {buckets:8}  {question or 'in all'}", flush=True
        )
    ledger.writer.stop()
    ledger.close()


def main(count: int) -> None:
    server = PostgresServer() if binaries() is not None else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            places = {"SQLite": lambda database: f"sqlite:{folder}/{database}.db"}
            if server is not None:
                server.start()
                places["PostgreSQL"] = server.create
            else:
                print("PostgreSQL: there are no server binaries")
            print(f"{RATE} rows a second for {SECONDS} s; a timer of {TICK * 1000:.0f} ms is late by")
            print(f"{'':11} {'p50 ms':>8} {'p99 ms':>8} {'process':>10} {'its thread':>10}")
            ingest("no ledger", None)
            for name, place in places.items():
                ledger = open_ledger(place("ingest"))
                ledger.writer.start()
                ingest(name, ledger)
                assert ledger.writer.stop() == 0
                ledger.close()
            for name, place in places.items():
                measure(name, place("reports"), count)
    finally:
        if server is not None:
            server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
