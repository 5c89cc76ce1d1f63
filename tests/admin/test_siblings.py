"""What worker 0 tells of the others: their metrics, health and exchanges."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from extproc.operate.admin import siblings
from extproc.operate.admin.doors import HTTPThread
from extproc.operate.admin.http import status_app
from extproc.operate.admin.siblings import Health, Siblings, inner_app
from extproc.operate.reports.reports import AdminReports, OwnMemory, WorkerMemory
from extproc.wire.transport import workers


def registry(count: float, *, also: bool = False) -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("requests", "Exchanges ended", ["status"], registry=found).labels("200").inc(count)
    if also:
        Gauge("only_there", "A gauge of one worker", registry=found).set(7)
    return found


class World:
    """Workers 1 and 2, each on a thread of its own."""

    def __init__(self, folder) -> None:
        self.path = str(folder / "p.sock")
        self.health = {number: Health() for number in (1, 2)}
        self.memories = {number: WorkerMemory() for number in (1, 2)}
        self.threads: dict[int, HTTPThread] = {}
        for number in (1, 2):
            self.begin(number)

    def begin(self, number: int) -> None:
        thread, metrics = HTTPThread(), registry(10 * number, also=number == 2)
        make = lambda: inner_app(metrics.collect, lambda: self.health[number], lambda: self.memories[number])  # noqa: E731
        thread.add_private(make, workers.inner_socket(self.path, number))
        thread.start()
        self.threads[number] = thread

    async def end(self, number: int) -> None:
        await asyncio.to_thread(self.threads.pop(number).stop)


@pytest.fixture
async def others(tmp_path) -> AsyncIterator[World]:
    found = World(tmp_path)
    yield found
    for number in list(found.threads):
        await found.end(number)


@pytest.fixture
def telemetry(world):
    return world().telemetry


async def test_every_series_names_its_worker(others, telemetry, connect):
    telemetry.refusal("invalid_key")
    app = status_app(telemetry, str, str, siblings=Siblings(others.path, 3))
    async with connect(app) as http:
        answer = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    requests = {sample.labels["worker"]: sample.value for sample in families["requests"].samples}
    assert requests == {"1": 10, "2": 20}
    assert families["requests"].type == "counter"
    assert [sample.labels for sample in families["only_there"].samples] == [{"worker": "2"}]
    assert {sample.labels["worker"] for sample in families["extproc_refusals"].samples} == {"0"}


async def test_a_worker_that_is_away_is_left_out_and_named(others, telemetry, connect, monkeypatch):
    found = Siblings(others.path, 3)
    async with connect(status_app(telemetry, str, str, lambda: "a remark", found)) as http:
        assert (await http.get("/readyz")).text == "ok\na remark\n"
        await others.end(1)
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.text) == (200, "ok\na remark\nworker 1 is away\n")
        metrics = (await http.get("/metrics")).text
        assert 'requests_total{status="200",worker="2"} 20.0' in metrics
        assert 'worker="1"' not in metrics
        assert (await http.get("/healthz")).status_code == 200, "its supervisor starts it again"
        monkeypatch.setattr(siblings, "_STARTS", 0.0)
        health = await http.get("/healthz")
        assert (health.status_code, health.text[:27]) == (503, "worker 1 has not answered f")
        others.begin(1)
        assert (await http.get("/healthz")).status_code == 200


async def test_a_worker_that_stands_still_is_a_reason_to_start_again(others, telemetry, connect):
    others.health[2] = Health(stalled="the event loop has stood still for 31 s", remark="settings are stale: line 3")
    async with connect(status_app(telemetry, str, str, siblings=Siblings(others.path, 3))) as http:
        health, ready = await http.get("/healthz"), await http.get("/readyz")
    assert (health.status_code, health.text) == (503, "worker 2: the event loop has stood still for 31 s\n")
    assert ready.text == "ok\nworker 2: settings are stale: line 3\n"


async def test_a_worker_that_does_not_answer_delays_health_for_a_bounded_time(
    tmp_path, telemetry, connect, monkeypatch
):
    monkeypatch.setattr(siblings, "PATIENCE", 0.2)
    held = socket.socket(socket.AF_UNIX)  # connections wait in its queue
    held.bind(workers.inner_socket(str(tmp_path / "p"), 1))
    held.listen()
    began = time.monotonic()
    async with connect(status_app(telemetry, str, str, siblings=Siblings(str(tmp_path / "p"), 2))) as http:
        assert (await http.get("/readyz")).text == "ok\nworker 1 is away\n"
    assert time.monotonic() - began < 5
    held.close()


async def test_worker_0_waits_for_the_end_of_the_others_for_a_bounded_time(others, monkeypatch):
    monkeypatch.setattr(siblings, "_LOOK", 0.01)
    found = Siblings(others.path, 3)
    await found.ended(0.05)
    assert len(others.threads) == 2, "they last longer than the grace"
    waiting = asyncio.create_task(found.ended(60))
    for number in (1, 2):
        assert not waiting.done()
        await others.end(number)
    await asyncio.wait_for(waiting, 10)


async def test_answers_of_another_shape_or_too_long_are_none(tmp_path, telemetry, connect, monkeypatch):
    monkeypatch.setattr(siblings, "MOST", 1000)
    answers = iter(
        [b"HTTP/1.1 200 OK\r\n\r\nnot msgpack", b"HTTP/1.1 500 No\r\n\r\n\x80", b"x", b"", b"\r\n\r\n" * 500]
    )

    async def answer(_reader, writer):
        writer.write(next(answers))
        writer.close()

    server = await asyncio.start_unix_server(answer, workers.inner_socket(str(tmp_path / "p"), 1))
    async with server:
        for _ in range(5):
            assert (await Siblings(str(tmp_path / "p"), 2).health())[1] == ["worker 1 is away"]


def test_the_inner_socket_is_private(tmp_path):
    thread = HTTPThread()
    path = str(tmp_path / "p-1.w")
    thread.add_private(lambda: inner_app(list, Health, WorkerMemory), path)
    assert Path(path).stat().st_mode & 0o777 == 0o600
    thread.stop()


async def test_exchanges_and_findings_are_those_of_all_workers(others):
    others.memories[1] = WorkerMemory(
        [{"id": "b", "request_id": "r-b", "time": 20.0, "duration_ms": 0, "status": 200}],
        {"a/m": {"failing": 0.5, "plain_s": 1.0}, "b/m": {"failing": 0.1}},
    )
    own = [
        {"id": "a", "request_id": "r-a", "time": 10.0, "duration_ms": 0, "status": 200},
        {"id": "c", "request_id": "r-c", "time": 30.0, "duration_ms": 0, "status": 401},
    ]

    class Reporter:
        class ledger:  # noqa: N801
            exchanges = staticmethod(lambda _query: [])
            exchange = staticmethod(lambda _id: None)

    everything = AdminReports(
        Reporter(),
        tuple,
        OwnMemory(lambda: own, lambda: {"a/m": {"failing": 0.2}}, list, list),
        None,
        siblings=Siblings(others.path, 3).memories,
    )
    assert [entry["id"] for entry in await asyncio.to_thread(everything.exchanges, [])] == ["c", "b", "a"]
    assert [
        entry["id"] for entry in await asyncio.to_thread(everything.exchanges, [("limit", "2"), ("status", "200")])
    ] == ["b", "a"]
    assert (await asyncio.to_thread(everything.exchange, "r-b"))["id"] == "b"
    assert await asyncio.to_thread(everything.providers) == {
        "a/m": {"failing": 0.5, "plain_s": 1.0},
        "b/m": {"failing": 0.1},
    }


async def test_samples_of_questions_are_those_of_all_workers_until_they_are_forgotten(others):
    others.memories[1] = WorkerMemory(similar=[{"time": 20.0, "score": 0.9}])
    others.memories[2] = WorkerMemory(similar=[{"time": 40.0, "score": 1.0}])
    kept: Any = SimpleNamespace(forget=forget, caches=True)
    reporter: Any = SimpleNamespace(now=lambda: 35.0)
    loop = asyncio.get_running_loop()
    own = OwnMemory(list, dict, lambda: [{"time": 30.0}], lambda: [{"id": "a", "seconds": 2.0}])
    others.memories[1].under_way = [{"id": "b", "seconds": 5.0}]
    everything = AdminReports(reporter, tuple, own, loop, siblings=Siblings(others.path, 3).memories, answers=kept)
    assert [one["time"] for one in await asyncio.to_thread(everything.similar)] == [40.0, 30.0, 20.0]
    assert [one["id"] for one in await asyncio.to_thread(everything.under_way)] == ["b", "a"]
    assert await asyncio.to_thread(everything.forget, "ada") == 1
    assert [one["time"] for one in await asyncio.to_thread(everything.similar)] == [40.0]


async def forget(_consumer):
    return 1
