"""The cost of the gateway: `make bench`. One table, one machine, one run: Envoy alone, this gateway, and others.

    python -m bench                                                   Envoy alone and this gateway
    python -m bench --beside Ferro Portkey LiteLLM                    and other gateways, installed on demand
    python -m bench --python /usr/bin/python3                         the processor on another interpreter
    python -m bench --record                                          also a line for bench/history.jsonl
    python -m bench --check                                           compare with the last line of this machine

Arms take turns, round by round, so that other work on the machine affects all of them. CPU is the scheduler's count for
the processes of an arm, in microseconds; figures are medians of the rounds. Key authentication, a token budget, the
ledger and metrics are on in this gateway; the others run with their defaults. Requests per second and core are
1 / CPU per request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import load
from bench.arms import BESIDE, Arm, Stage, pin, staged
from bench.harness import Interpreter
from bench.idle import idle, sentence
from bench.others import OTHERS

HISTORY = Path(__file__).with_name("history.jsonl")
WORSE = 1.10
"""`--check` fails when a ratio to Envoy alone exceeds that of the last line by this factor."""
RATIOS = ("plain", "event")
IN_FLIGHT = 64


@dataclass
class Plan:
    """The amount of work: `rounds` of each figure, and the requests of one round."""

    rounds: int = 7
    requests: int = 2000
    streams: int = 40
    words: int = 50
    alone: int = 300
    rate: int = 200
    many: int = 1000
    seconds: int = 10


BESIDE_OTHERS = Plan(rounds=3)
"""One of the others takes a hundred times the CPU of this gateway for a stream."""
QUICK = Plan(rounds=2, requests=200, streams=10, words=10, alone=50, rate=50, many=50, seconds=3)


def row(name: str, *values: object) -> None:
    print(f"{name:<46}" + "".join(f"{value!s:>14}" for value in values), flush=True)


def request(arm: Arm, text: str = "", **more: Any) -> bytes:
    """A request that this arm serves."""
    return load.request(arm.model, text=text, headers=arm.headers, **more)


def serves(arm: Arm, message: bytes, mark: bytes) -> bool:
    """Whether the arm answers with 200 and the bytes `mark`; not every arm serves every API. Asked once."""
    if mark not in arm.serves:
        arm.sent += 1
        heard = b""
        with socket.create_connection(("127.0.0.1", arm.port), timeout=10) as client:
            client.sendall(message)
            with contextlib.suppress(TimeoutError):
                while mark not in heard and (more := client.recv(65536)):
                    heard += more
        arm.serves[mark] = heard.startswith(b"HTTP/1.1 200") and mark in heard
    return arm.serves[mark]


def drive(arm: Arm, message: bytes, *, total: int, concurrency: int, rate: float = 0.0) -> load.Result:
    arm.sent += total
    result = asyncio.run(load.run(arm.port, message, total=total, concurrency=concurrency, rate=rate))
    arm.errors += len(result.errors)
    return result


def cpu_of(arm: Arm, message: bytes, *, total: int, concurrency: int) -> tuple[dict[str, float], load.Result]:
    """Microseconds of CPU by process, and the client's result."""
    before = arm.cpu()
    result = drive(arm, message, total=total, concurrency=concurrency)
    time.sleep(0.05)  # access logs and ledger rows are part of the work
    return {name: (seconds - before[name]) * 1e6 for name, seconds in arm.cpu().items()}, result


Measure = Callable[[Arm, Plan], dict[str, float]]


def plain(arm: Arm, plan: Plan) -> dict[str, float]:
    """A closed loop of plain requests, many at a time."""
    used, result = cpu_of(arm, request(arm), total=plan.requests, concurrency=IN_FLIGHT)
    took = statistics.quantiles(result.latencies, n=100) if len(result.latencies) > 1 else [0.0] * 99
    parts = {f"plain {name}": micros / plan.requests for name, micros in used.items()}
    return {"plain": sum(parts.values()), **parts, "busy p50": took[49] * 1e3, "busy p99": took[98] * 1e3}


def paced(arm: Arm, plan: Plan) -> dict[str, float]:
    """Streams with an event every 20 ms."""
    message = request(arm, f"pace=20ms words={plan.words}", stream=True, words=plan.words, usage=True)
    if not serves(arm, request(arm, stream=True), b"data: {"):
        return {}
    used, result = cpu_of(arm, message, total=plan.streams, concurrency=plan.streams)
    parts = {f"event {name}": micros / max(result.events, 1) for name, micros in used.items()}
    return {"event": sum(parts.values()), **parts}


def burst(arm: Arm, plan: Plan) -> dict[str, float]:
    """Whole streams of 36 events that arrive at once."""
    message = request(arm, stream=True)
    if not serves(arm, message, b"data: {"):
        return {}
    used, _ = cpu_of(arm, message, total=plan.requests // 4, concurrency=IN_FLIGHT)
    return {"stream": sum(used.values()) / (plan.requests // 4)}


def lonely(arm: Arm, plan: Plan) -> dict[str, float]:
    """One client with one request at a time, plain and streamed."""
    asked = drive(arm, request(arm), total=plan.alone, concurrency=1)
    found = {"one p50": statistics.median(asked.latencies) * 1e3} if asked.latencies else {}
    message = request(arm, stream=True)
    if serves(arm, message, b"data: {"):
        streamed = drive(arm, message, total=plan.alone // 3, concurrency=1)
        found["one first byte"] = statistics.median(streamed.first_bytes) * 1e3
    return found


def steady(arm: Arm, plan: Plan) -> dict[str, float]:
    """A fixed rate of requests, however slow the answers are."""
    total = plan.rate * 3
    result = drive(arm, request(arm), total=total, concurrency=32, rate=plan.rate)
    took = statistics.quantiles(result.latencies, n=100) if len(result.latencies) > 1 else [0.0] * 99
    return {"rate p50": took[49] * 1e3, "rate p95": took[94] * 1e3, "rate p99": took[98] * 1e3}


def sized(arm: Arm, plan: Plan) -> dict[str, float]:
    """Plain requests with bodies of 1 and 16 KiB, and one in the API of Anthropic for a provider of OpenAI's."""
    found = {}
    total = plan.requests // 4
    for name, message, mark in (
        ("1 KiB", request(arm, size=1024), b"chat.completion"),
        ("16 KiB", request(arm, size=16384), b"chat.completion"),
        ("Messages", request(arm, path="/v1/messages", words=100), b'"type":"message"'),
    ):
        if serves(arm, message, mark):
            used, _ = cpu_of(arm, message, total=total, concurrency=IN_FLIGHT)
            found[name] = sum(used.values()) / total
    return found


def many(arm: Arm, plan: Plan) -> dict[str, float]:
    """Resident bytes of the processor for each open stream."""
    if "processor" not in arm.roots:
        return {}
    before, peak = arm.memory("processor"), 0
    message = request(arm, f"pace=1000ms words={plan.seconds}", stream=True)

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, arm.memory("processor"))
            await asyncio.sleep(0.5)

    async def both() -> load.Result:
        watching = asyncio.create_task(watch())
        try:
            return await load.run(arm.port, message, total=plan.many, concurrency=plan.many)
        finally:
            watching.cancel()

    arm.sent += plan.many
    result = asyncio.run(both())
    arm.errors += len(result.errors)
    return {"stream KB": (peak - before) / plan.many / 1000}


def rounds(arms: Sequence[Arm], plan: Plan, measure: Measure, count: int) -> None:
    """Run a measure on every arm in turn, `count` times, and keep the medians."""
    found: dict[str, dict[str, list[float]]] = {arm.name: {} for arm in arms}
    for number in range(count):
        for arm in arms if number % 2 == 0 else reversed(arms):
            for name, value in measure(arm, plan).items():
                found[arm.name].setdefault(name, []).append(value)
    for arm in arms:
        arm.figures |= {name: statistics.median(values) for name, values in found[arm.name].items()}


def measure_all(arms: Sequence[Arm], plan: Plan, *, beside: bool) -> None:
    for arm in arms:
        message = request(arm)
        drive(arm, message, total=max(plan.requests // 4, 200), concurrency=IN_FLIGHT)  # warm up
        if "processor" in arm.roots:
            arm.figures["warm MB"] = arm.memory("processor") / 1e6
    rounds(arms, plan, plain, plan.rounds)
    rounds(arms, plan, paced, plan.rounds)
    rounds(arms, plan, burst, max(plan.rounds // 2, 1))
    rounds(arms, plan, lonely, max(plan.rounds // 2, 1))
    rounds(arms, plan, steady, max(plan.rounds // 3, 1))
    rounds(arms, plan, many, 1)
    if beside:
        rounds(arms, plan, sized, max(plan.rounds // 2, 1))
    for arm in arms:
        arm.figures["MB"] = sum(map(arm.memory, arm.roots)) / 1e6


COLUMNS = (
    ("req/s/core", lambda f: 1e6 / f["plain"] if f.get("plain") else None, ".0f"),
    ("µs/request", lambda f: f.get("plain"), ".0f"),
    ("Envoy+proc.", lambda f: (f.get("plain Envoy"), f.get("plain processor")), "pair"),
    ("µs/event", lambda f: f.get("event"), ".0f"),
    ("µs/36 events", lambda f: f.get("stream"), ".0f"),
    ("busy p50/99", lambda f: (f.get("busy p50"), f.get("busy p99")), "pair1"),
    ("rate p50/95/99", lambda f: (f.get("rate p50"), f.get("rate p95"), f.get("rate p99")), "pair1"),
    ("one p50", lambda f: f.get("one p50"), ".2f"),
    ("first byte", lambda f: f.get("one first byte"), ".2f"),
    ("KB/stream", lambda f: f.get("stream KB"), ".0f"),
    ("MB", lambda f: f.get("MB"), ".0f"),
)
BESIDE_COLUMNS = tuple(
    (f"µs/{name}", lambda f, name=name: f.get(name), ".0f") for name in ("1 KiB", "16 KiB", "Messages")
)


def cell(value: Any, how: str) -> str:
    if how.startswith("pair"):
        if None in value:
            return "-"
        return "/".join(f"{each:.{1 if how == 'pair1' else 0}f}" for each in value)
    return "-" if value is None else format(value, how)


def table(arms: Sequence[Arm], columns: Sequence[tuple[str, Callable[[dict[str, float]], Any], str]]) -> None:
    """One line for each arm. Times are in ms, CPU in µs."""
    lines = [["", *(name for name, _, _ in columns), "errors", "counted/sent"]]
    for arm in arms:
        cells = [cell(read(arm.figures), how) for _, read, how in columns]
        told = "-" if arm.counted is None else f"{arm.counted()}/{arm.sent}"
        lines.append([arm.name, *cells, str(arm.errors), told])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    for number, line in enumerate(lines):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def machine(python: Interpreter) -> str:
    """The properties of a machine and of the processor's interpreter. Figures of different ones are not compared."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, {python.describe()}"


def entry(arms: Sequence[Arm], where: str) -> dict[str, Any]:
    """A line of the history: ratios to Envoy alone."""
    bare = arms[0].figures
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    ratios = {
        arm.name: {name: round(arm.figures[name] / bare[name], 2) for name in RATIOS if bare.get(name)}
        for arm in arms[1:]
        if arm.counted is not None
    }
    micros = {arm.name: {name: round(arm.figures.get(name, 0)) for name in RATIOS} for arm in arms}
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return {"date": day, "commit": commit.strip(), "machine": where, "ratios": ratios, "micros": micros}


def last(path: Path, where: str) -> dict[str, Any] | None:
    """The last line of the history of this machine."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return next((line for line in reversed(lines) if line["machine"] == where), None)


def worse(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Ratios that rose by more than a tenth."""
    return [
        f"{arm}: {name} costs {ratio} times Envoy alone, {before['ratios'][arm][name]} at {before['commit']}"
        for arm, ratios in now["ratios"].items()
        for name, ratio in ratios.items()
        if ratio > before["ratios"].get(arm, {}).get(name, float("inf")) * WORSE
    ]


def arms_of(stage: Stage, options: argparse.Namespace) -> list[Arm]:
    arms = [stage.envoy_alone(), stage.gateway("gateway")]
    if not options.beside:
        arms.append(stage.gateway("gateway, grpcio", processor=", transport: grpcio"))
    return [*arms, *map(stage.other, options.beside)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--beside", nargs="+", default=[], choices=OTHERS, help="other gateways, installed on demand")
    parser.add_argument("--record", action="store_true", help="add a line to bench/history.jsonl")
    parser.add_argument("--check", action="store_true", help="fail where a ratio is a tenth above the last line's")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the processor (default: this one)")
    options = parser.parse_args()
    python = Interpreter(options.python)
    where = machine(python)
    pin(BESIDE)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, staged(Path(folder), python) as stage:
        arms = arms_of(stage, options)
        plan = QUICK if options.quick else BESIDE_OTHERS if options.beside else Plan()
        measure_all(arms, plan, beside=bool(options.beside))
        time.sleep(0.5)
        table(arms, (*COLUMNS, *BESIDE_COLUMNS) if options.beside else COLUMNS)
        print(sentence(idle(seconds=3 if options.quick else 20, python=python)))
        now = entry(arms, where)
        uncounted = [arm.name for arm in arms if arm.counted is not None and arm.counted() != arm.sent]
    print(json.dumps(now))
    before = last(HISTORY, where)
    if options.record:
        with HISTORY.open("a") as file:
            file.write(json.dumps(now) + "\n")
    if uncounted:
        raise SystemExit(f"not every request was counted: {', '.join(uncounted)}")
    if options.check:
        if before is None:
            raise SystemExit("bench/history.jsonl has no line of this machine: `python -m bench --record` first")
        if found := worse(now, before):
            raise SystemExit("\n".join(found))
        print(f"no ratio is more than a tenth above {before['commit']}'s", file=sys.stderr)


if __name__ == "__main__":
    main()
