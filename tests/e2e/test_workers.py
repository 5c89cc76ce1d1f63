"""Several workers behind one Envoy: they share the load and the budgets, and the others serve while one is away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import load
from bench.harness import KEY
from tests.e2e.conftest import Gateway, eventually, measured
from tests.e2e.scripted import Scripted
from tests.e2e.test_true_status import BROKEN

YAML = """
processor: {workers: 2}
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}}
models:
  stub: {provider: sandbox}
  counted: {provider: sandbox}
consumers: [{name: demo, keys: [{env: BENCH_KEY}]}]
budgets:
  - {name: three-hundred, match: {model: counted}, unit: requests, limit: 300, window: total}
  - {name: tokens, unit: tokens, limit: 1000000000, window: hour}
limits: {lease: 5s}
"""
Start = Callable[..., Gateway]


@pytest.fixture
def gateway(start: Start) -> Gateway:
    return start(YAML, env={"BENCH_KEY": KEY}, up=True)


def send(gateway: Gateway, model: str, total: int, at_once: int) -> load.Result:
    port = int(gateway.url.rpartition(":")[2])
    return asyncio.run(load.run(port, load.request(model), total=total, concurrency=at_once))


def worker(number: int, socket: str) -> int:
    """The process id of a worker, by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if socket in words and words[-3:-1] == ["--worker", str(number)]:
            return int(folder.name)
    return 0


def socket_of(gateway: Gateway) -> str:
    """The socket that `extproc up` chose."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(gateway.file) in words and "--worker" in words:
            return words[words.index("--socket") + 1]
    raise AssertionError("there are no workers")


def rows(gateway: Gateway) -> int:
    return int(gateway.http.get(gateway.admin + "/usage").json()["total"]["requests"])


@pytest.mark.alone  # Envoy gives less to a worker that other work slows
def test_two_workers_share_the_load_and_each_gets_the_logs_of_its_own_tries(gateway: Gateway):
    def shares() -> list[float]:
        return [gateway.metric("extproc_requests_total", worker=str(number)) for number in range(2)]

    def of_a_thousand() -> list[float]:
        before = shares()
        assert send(gateway, "stub", 1000, 32).errors == []
        eventually(lambda: sum(shares()) == sum(before) + 1000)
        return [after - earlier for after, earlier in zip(shares(), before, strict=True)]

    first, _ = measured(of_a_thousand, lambda found: 450 <= found[0] <= 550)
    assert 450 <= first <= 550
    total = sum(shares())
    eventually(lambda: rows(gateway) == total)
    # Envoy sends the entries within a tenth of a second; one that came to the other worker would be counted there.
    eventually(lambda: gateway.metric("extproc_tries_total") == total)
    assert [gateway.metric("extproc_tries_total", worker=str(number)) for number in range(2)] == shares()
    assert {entry["id"][:2] for entry in gateway.exchanges()} == {"00", "01"}
    for number in range(2):
        assert gateway.metric("process_resident_memory_bytes", worker=str(number)) > 0


def test_an_end_that_only_the_log_knows_reaches_the_worker_of_its_exchange(start: Start, provider: Scripted):
    """Envoy answers 503 in the place of a stream that broke off while the worker looked at its head."""
    yaml = f"""
processor: {{workers: 2}}
providers: {{noisy: {{kind: vllm, base_url: "{provider.url}/v1", outlier_detection: {{consecutive_5xx: 10000}}}}}}
models: {{noisy: {{provider: noisy}}}}
consumers: [{{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}]
budgets: [{{name: t, unit: tokens, limit: 1000000000, window: day}}]
"""
    gateway = start(yaml, up=True)
    socket = socket_of(gateway)
    pids = [worker(number, socket) for number in range(2)]

    def all_get(sign: int) -> None:
        for pid in pids:
            os.kill(pid, sign)

    def script() -> Iterator[bytes]:
        all_get(signal.SIGSTOP)
        yield BROKEN

    provider.script = script
    rounds = 8
    for _ in range(rounds):
        try:
            with gateway.stream("noisy") as answer:
                all_get(signal.SIGCONT)
                answer.read()
        finally:
            all_get(signal.SIGCONT)
        assert answer.status_code == 503
    eventually(lambda: rows(gateway) == rounds)
    entries = gateway.exchanges()
    assert {entry["id"][:2] for entry in entries} == {"00", "01"}
    assert {(entry["status"], entry["usage_source"], entry["error"]) for entry in entries} == {(503, "none", "cut")}


def test_a_budget_is_exact_over_both_workers(gateway: Gateway):
    result = send(gateway, "counted", 500, 200)
    assert Counter(result.errors) == {"402": 200}
    assert len(result.latencies) == 500
    assert len(gateway.seen("sandbox")) == 300


def test_while_a_killed_worker_is_away_the_other_serves(gateway: Gateway):
    at_once, socket = 20, socket_of(gateway)
    gateway.fault("sandbox", "delay=50ms")
    first = worker(1, socket)

    async def kill() -> None:
        await asyncio.sleep(0.7)
        os.kill(first, signal.SIGKILL)

    async def both() -> load.Result:
        killing = asyncio.create_task(kill())
        port = int(gateway.url.rpartition(":")[2])
        result = await load.run(port, load.request("stub"), total=400, concurrency=at_once)
        await killing
        return result

    during = asyncio.run(both())
    assert set(during.errors) <= {"503", "504"}
    assert len(during.errors) <= at_once * 0.8, "those in flight on it, and no others"
    gateway.fault("sandbox", "")
    # It is started again, and serves.
    second = eventually(lambda: (found := worker(1, socket)) != first and found)
    eventually(lambda: "away" not in gateway.http.get(gateway.status + "/readyz").text)
    assert send(gateway, "stub", 200, at_once).errors == []
    eventually(lambda: send(gateway, "stub", 100, at_once) and gateway.metric("extproc_requests_total", worker="1"))
    assert second
    # Leases of the dead worker's exchanges end.
    eventually(lambda: reserved(gateway) == 0)
    assert rows(gateway) >= 400 - len(during.errors)


def reserved(gateway: Gateway) -> int:
    budgets = gateway.http.get(gateway.admin + "/budgets/tokens").json()["data"]
    return sum(int(scope["reserved"]) for budget in budgets for scope in budget["scopes"])


def test_no_request_fails_while_a_worker_is_away(gateway: Gateway):
    """Its socket is still there and refuses connections, before any health check has failed."""
    socket = socket_of(gateway)
    assert send(gateway, "stub", 100, 20).errors == []
    killed = worker(1, socket)
    os.kill(killed, signal.SIGKILL)
    while worker(1, socket) == killed:  # its connections are closed before it is gone
        time.sleep(0.001)
    time.sleep(0.02)
    assert worker(1, socket) == 0, "it is not started again yet"
    assert send(gateway, "stub", 100, 20).errors == []


def test_a_worker_that_starts_again_uses_the_stores_of_the_others(gateway: Gateway):
    """Though the settings name others by now: these bind at a restart of the whole gateway."""
    text, socket = gateway.file.read_text(), socket_of(gateway)
    other = gateway.file.with_name("other.db")
    gateway.file.write_text(text.replace("workers: 2", "workers: 3") + f'stores: {{counters: "sqlite:{other}"}}\n')
    stale = "changes of processor, stores bind at a restart"
    eventually(lambda: gateway.http.get(gateway.status + "/readyz").text.count(stale) == 2)
    first = worker(1, socket)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: worker(1, socket) not in (0, first))
    eventually(lambda: gateway.http.get(gateway.status + "/readyz").text.count(stale) == 2)
    assert send(gateway, "stub", 100, 20).errors == []
    assert not other.exists()


def test_all_workers_drain_when_it_stops(gateway: Gateway):
    socket = socket_of(gateway)
    pids = [worker(number, socket) for number in range(2)]
    assert all(pids)
    send(gateway, "stub", 40, 8)
    assert gateway.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert len([line for line in gateway.lines() if line["event"] == "exchange"]) == 40
