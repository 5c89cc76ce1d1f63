"""Large and hostile bodies beside the small requests of another consumer.

`pytest -s -m "alone or exhaustive" tests/e2e/test_large_bodies.py` prints a table of all kinds. The bar is a p99 of
100 ms for the small requests. It is asserted for the kinds marked `exhaustive`, whose runs have the machine for
themselves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, free_ports
from tests.e2e.flood import KINDS
from tests.samples import exhaustive

pytestmark = pytest.mark.alone  # it measures time

FIRST, *OTHERS = KINDS
AT_ONCE = 6
SECONDS = 6.0
P99 = 0.1  # seconds
YAML = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
  sink: {kind: mock, base_url: "http://127.0.0.1:{port}/v1"}
models: {stub: {provider: sandbox}, sink: {provider: sink}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: heavy, keys: [{env: HEAVY_KEY}]}
stores: {counters: "memory:", ledger: "memory:"}
limits: {consumer_share: 1}
"""
[PORT] = free_ports(1)
HEAVY = "sk-gw-heavy-0123456789abcdef"


@pytest.fixture
def gateway(start: Callable[..., Gateway]) -> Gateway:
    return start(YAML.replace("{port}", str(PORT)), env={"HEAVY_KEY": HEAVY}, strict=False)


@contextmanager
def flood(gateway: Gateway, kind: str) -> Iterator[dict[str, int]]:
    """`AT_ONCE` bodies in flight, all the time; in the end, how often each status came."""
    command = [sys.executable, "-m", "tests.e2e.flood", gateway.url, HEAVY, kind, str(AT_ONCE), str(PORT)]
    statuses: dict[str, int] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield statuses
        finally:
            process.stdin.close()
            statuses.update(json.loads(process.stdout.readline() or b"{}"))


def memory(pid: int, field: str = "VmHWM") -> float:
    """MB of a process: the most it had, or what it has (`VmRSS`)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000


def latencies(gateway: Gateway, seconds: float = SECONDS) -> list[float]:
    """Seconds of small requests, one each 10 ms or as fast as they are answered."""
    found: list[float] = []
    end = time.monotonic() + seconds
    body = chat_body("stub")
    while time.monotonic() < end:
        begun = time.perf_counter()
        assert gateway.post("/v1/chat/completions", body, key=KEY).status_code == 200
        found.append(time.perf_counter() - begun)
        time.sleep(0.01)
    return sorted(found)


@pytest.mark.parametrize("kind", [FIRST, *(pytest.param(kind, marks=exhaustive) for kind in OTHERS)])
def test_others_are_served_beside_large_bodies(gateway: Gateway, kind: str) -> None:
    usual = latencies(gateway, 1.0)
    with flood(gateway, kind) as statuses:
        found = latencies(gateway)
    p50, p99 = found[len(found) // 2], found[len(found) * 99 // 100]
    processor = memory(gateway.process.pid)
    envoy = memory(gateway.envoy.pid) if gateway.envoy else 0
    times = " ".join(
        f"{name} {value * 1000:6.1f} ms"
        for name, value in (("alone", usual[len(usual) // 2]), ("p50", p50), ("p99", p99), ("most", found[-1]))
    )
    sizes = f"processor {processor:4.0f} MB, Envoy {envoy:4.0f} MB"
    sys.stdout.write(f"\n{kind:14} {times} of {len(found)}, {sizes}, {show(statuses)}\n")
    assert processor <= 500
    assert p99 <= P99 or kind == FIRST
    assert set(statuses) <= {"200", "400", "429", "503"}


def show(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items()))
