"""The cost of the MCP gateway: calls and lists, beside Envoy alone and the cheapest forwarder in Python.

    python -m bench.mcp            CPU and latencies: medians of rounds in which all arms take turns
    python -m bench.mcp --quick    shows that it runs
    python -m bench.mcp --first    latencies alone, at real-time priority: other work on the machine waits (needs root)

All arms use the same server, a stub that costs as little as possible. The forwarder (bench/mcp_forwarder.py, uvicorn
with uvloop, and httpx) does the least a gateway can do: compare a key, read the JSON, look up the tool, change its name
and pass the answer on. In this gateway authentication, grants, a budget of calls, the ledger and metrics are on.
Latencies are those of requests at a fixed rate; "added" is the difference to the stub with nothing before it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import load
from bench.__main__ import IN_FLIGHT, Measure, Plan, cell, cpu_of, drive, rounds, row
from bench.arms import BESIDE, Arm, Stage, family, pin, staged
from bench.harness import KEY, free_port, wait
from bench.mcp_stub import TOOLS

MODERN = "2026-07-28"
RATE = 48  # requests per second
SETTINGS = """
listener: {{address: 127.0.0.1, port: {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
processor: {{socket: "{dir}/extproc.sock"{processor}}}
providers:
  stub: {{kind: mock, base_url: "http://127.0.0.1:{stub}/v1", max_requests: 10000, max_connections: 10000}}
models: {{"*": {{provider: stub}}}}
mcp:
  servers: {{tools: {{url: "http://127.0.0.1:SERVER/mcp", max_requests: 10000, max_connections: 10000, refresh: 1h}}}}
  profiles: {{bench: {{servers: {{tools: {{}}}}}}}}
  answers: ANSWERS
consumers:
  - {{name: bench, team: bench, keys: [{{env: BENCH_KEY}}], tools: ["bench/*"]}}
teams: {{bench: {{models: ["*"], tools: ["bench/*"]}}}}
budgets:
  - {{name: calls, per: [consumer], unit: tool_calls, limit: 1000000000, window: hour}}
  - {{name: tokens, per: [consumer], unit: tokens, limit: 1000000000000, window: hour}}
stores: {{counters: "{counters}", ledger: "sqlite:{dir}/ledger.db"}}
telemetry: {{access_log: "off"}}
{more}
"""


def request(method: str, path: str, prefix: str) -> bytes:
    """One request of 2026-07-28."""
    params: dict[str, object] = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in META.items()}}
    lines = []
    if method == "tools/call":
        params |= {"name": f"{prefix}tool-07", "arguments": {"text": "Tell me about gateways."}}
        lines = [f"mcp-name: {prefix}tool-07"]
    payload = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    lines += [
        f"POST {path} HTTP/1.1",
        "host: bench",
        "accept: application/json, text/event-stream",
        f"authorization: Bearer {KEY}",
        "content-type: application/json",
        f"mcp-protocol-version: {MODERN}",
        f"mcp-method: {method}",
        f"content-length: {len(payload)}",
    ]
    lines.sort(key=lambda line: not line.startswith("POST"))
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


META = {"protocolVersion": MODERN, "clientCapabilities": {}}
CALL, LIST, CHAT = "tools/call", "tools/list", "chat"
FIGURES = {CALL: "call", LIST: "list", CHAT: "chat"}


def message(arm: Arm, method: str) -> bytes:
    if method == CHAT:
        return load.request("stub")
    path = "/mcp/bench" if "processor" in arm.roots else "/mcp"
    return request(method, path, "" if arm.name in ("the stub", "Envoy alone") else "tools__")


def in_front() -> None:
    """Give all threads of this process and of those that it started real-time priority. At `RATE` they use little."""
    for pid in family(os.getpid()):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(1))


def figures(method: str, name: str, *, busy: bool = True) -> Measure:
    """A measure for `rounds`: CPU in a closed loop, where `busy`, and the median latency at a fixed rate."""

    def measure(arm: Arm, plan: Plan) -> dict[str, float]:
        if method == CHAT and "processor" not in arm.roots:
            return {}
        sent = message(arm, method)
        used = cpu_of(arm, sent, total=plan.requests, concurrency=IN_FLIGHT)[0] if busy else {}
        each = {f"{name} {process}": micros / plan.requests for process, micros in used.items()}
        paced = drive(arm, sent, total=RATE * 2, concurrency=8, rate=RATE)
        p50 = statistics.median(paced.latencies) * 1e3 if paced.latencies else 0.0
        return {**({f"{name} cpu": sum(each.values())} if busy else {}), **each, f"{name} p50": p50}

    return measure


def check(arm: Arm) -> None:
    """The arm answers a call and a list properly. A gateway reads its server's list first."""
    import http.client

    for method, wanted in ((CALL, b"You said"), (LIST, b"tool-39")):
        head, _, payload = message(arm, method).partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
        for attempt in range(50):
            connection = http.client.HTTPConnection("127.0.0.1", arm.port, timeout=10)
            connection.request("POST", head.split()[1].decode(), payload, dict(lines))
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            if answer.status == 200 and wanted in text:
                break
            if attempt == 49:
                raise SystemExit(f"{arm.name} answers {answer.status} to {method}: {text[:300]!r}")
            time.sleep(0.2)


def arms(stage: Stage) -> list[Arm]:
    server = free_port()
    stub = stage.spawn([sys.executable, "-m", "bench.mcp_stub", "--port", str(server)], BESIDE)
    wait(server)
    port = free_port()
    forwarder = [sys.executable, "-m", "bench.mcp_forwarder", "--port", str(port), "--server", str(server)]
    forwarding = stage.spawn(forwarder)
    found = [Arm("the stub", server, {"stub": stub}), stage.envoy_alone(server)]
    for name, answers in (("this gateway", "audit"), ("this gateway, answers: none", "none")):
        settings = SETTINGS.replace("SERVER", str(server)).replace("ANSWERS", f'"{answers}"')
        found.append(stage.gateway(name, settings=settings))
    found.append(stage.ready(Arm("ASGI and httpx", port, {"forwarder": forwarding})))
    for arm in found:
        check(arm)
    return found


def table(found: Sequence[Arm]) -> None:
    direct = found[0].figures
    row("", "µs/call", "Envoy+proc.", "added p50", "µs/list", "Envoy+proc.", "added p50", "µs/chat")
    for arm in found[1:]:
        values: list[object] = []
        for name in ("call", "list"):
            values.append(cell(arm.figures.get(f"{name} cpu"), ".0f"))
            parts = (arm.figures.get(f"{name} Envoy"), arm.figures.get(f"{name} processor"))
            values.append(cell(parts, "pair"))
            values.append(cell(arm.figures[f"{name} p50"] - direct[f"{name} p50"], ".2f"))
        row(arm.name, *values, cell(arm.figures.get("chat cpu"), ".0f"))
    ours, forwarder = found[2].figures, found[-1].figures
    print()
    for name in ("call", "list") if "call cpu" in ours else ():
        ratio = ours[f"{name} cpu"] / forwarder[f"{name} cpu"]
        print(f"CPU of a {name}, of that of the forwarder: {ratio:.2f}")
    if ours.get("chat processor"):
        ratio = ours["call processor"] / ours["chat processor"]
        print(f"CPU of Python for a call, of that for a chat request: {ratio:.2f}")
    added = ", ".join(f"{name} {ours[f'{name} p50'] - direct[f'{name} p50']:.2f} ms" for name in ("call", "list"))
    print(f"added p50: {added}")
    same = ", ".join(f"{name} {ours[f'{name} p50']:.2f} ms" for name in FIGURES.values())
    print(f"p50 through this gateway: {same}; a call through Envoy alone: {found[1].figures['call p50']:.2f} ms")
    errors, sent = sum(arm.errors for arm in found), sum(arm.sent for arm in found)
    print(f"errors: {errors} of {sent}; a list has {TOOLS} tools")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few requests: shows that it runs")
    parser.add_argument("--first", action="store_true", help="latencies alone, at real-time priority; needs root")
    options = parser.parse_args(arguments)
    plan = Plan(rounds=2, requests=200) if options.quick else Plan(rounds=7, requests=2000)
    pin(BESIDE)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, staged(Path(folder)) as stage:
        found = arms(stage)
        for arm in found:
            drive(arm, message(arm, CALL), total=max(plan.requests // 4, 100), concurrency=IN_FLIGHT)  # warm up
        if options.first:
            in_front()
        for method, name in FIGURES.items():
            rounds(found, plan, figures(method, name, busy=not options.first), plan.rounds)
        table(found)
        return 1 if any(arm.errors for arm in found) else 0


if __name__ == "__main__":
    sys.exit(main())
