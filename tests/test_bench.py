"""The benchmark: the stub sends whole answers, the client counts correctly, the check fails when it should."""

import asyncio
import json

import pytest

from bench import load, stub
from bench.__main__ import cell, last, machine, worse
from bench.faults.__main__ import BEGIN, PAGE, Result, table
from bench.faults.faults import FAULTS
from bench.soak import minutes
from bench.soak.minutes import Sample, Verdict


@pytest.fixture
async def port():
    made = []

    def connect():
        made.append(stub.Connection())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for connection in made:
        connection._transport.abort()
    await asyncio.sleep(0)  # they are closed in the next turn


async def test_every_plain_request_is_answered_once(port):
    result = await load.run(port, load.request("stub"), total=50, concurrency=4)
    assert (len(result.latencies), result.errors, result.events) == (50, [], 0)


@pytest.mark.parametrize("model", ["stub+words=3", "stub+pace=1ms+words=3"])
async def test_every_event_is_counted(port, model):
    result = await load.run(port, load.request(model, stream=True), total=6, concurrency=3)
    assert (len(result.first_bytes), result.errors, result.events) == (6, [], 6 * (1 + 3 + 1 + 1))


async def test_usage_is_sent_where_it_is_asked_for(port):
    result = await load.run(port, load.request("stub+words=3", stream=True, usage=True), total=1, concurrency=1)
    assert result.events == 7


async def test_a_fixed_rate_is_kept(port):
    result = await load.run(port, load.request("stub"), total=20, concurrency=4, rate=100)
    assert len(result.latencies) == 20
    assert result.seconds >= 0.19  # the last of twenty is due then


async def test_a_refusal_is_an_error():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    result = await load.run(server.sockets[0].getsockname()[1], load.request("stub"), total=1, concurrency=1)
    server.close()
    assert result.errors == ["503"]


def line(ratio, **fields):
    return {"machine": machine(), "commit": "abc", "ratios": {"gateway": {"plain": ratio}}, **fields}


def test_the_check_fails_above_a_rise_of_a_tenth():
    assert worse(line(11.1), line(10.0)) == ["gateway: plain costs 11.1 times Envoy alone, 10.0 at abc"]
    assert worse(line(10.9), line(10.0)) == []
    assert worse(line(99.0), {**line(1.0), "ratios": {}}) == []  # nothing to compare with


def test_figures_of_another_machine_are_not_compared(tmp_path):
    history = tmp_path / "history.jsonl"
    assert last(history) is None
    history.write_text("\n".join(json.dumps(one) for one in (line(5.0), line(6.0), line(7.0, machine="another"))))
    assert last(history)["ratios"]["gateway"]["plain"] == 6.0


def test_cells_are_formatted():
    assert [cell(None, ".0f"), cell((1.0, None), "pair"), cell((7.4, 10.6), "pair1")] == ["-", "-", "7.4/10.6"]


def test_the_page_has_the_table_of_all_faults_and_each_held():
    rows = [row.split("|") for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")][1:]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [(fault.name, fault.expected) for fault in FAULTS]
    assert {row[-2].strip() for row in rows} == {"held"}


def test_the_table_keeps_the_rows_of_faults_that_were_not_tried():
    page = table([Result(fault, "none", "none", 0.0, []) for fault in FAULTS[:2]])
    later = table([Result(FAULTS[1], "3 reset", "none", None, ["late"])], f"{BEGIN}\n{page}")
    assert later.splitlines()[2] == page.splitlines()[2]
    assert later.splitlines()[3].endswith("| 3 reset | none |  | WRONG |")


MIB = 1 << 20


def grown(processor, descriptors):
    """The violations of a soak whose memory (MiB) and descriptors end with these."""
    verdict, count = Verdict(), 40
    samples = []
    for number in range(count):
        share = max(0.0, (number / count - minutes.WARM) / (1 - minutes.WARM))
        memory = {"processor": int((100 + (processor - 100) * share) * MIB), "envoy": 80 * MIB}
        samples.append(Sample(float(number), memory, {"processor": 20, "envoy": int(60 + (descriptors - 60) * share)}))
    minutes._growth(verdict, samples)
    return [line for line in verdict.lines if line.startswith("VIOLATED")]


def test_a_soak_tells_growth_after_its_warm_up():
    assert grown(102, 62) == []
    assert grown(90, 40) == []  # less is no growth
    [line] = grown(110, 62)
    assert "processor: 10" in line
    [line] = grown(102, 90)
    assert "descriptors, then" in line


@pytest.mark.parametrize(
    ("metrics", "reserved", "descriptors", "told"),
    [
        ({}, [], 20, []),
        ({"extproc_exchanges_in_flight": 1.0}, [], 20, ["extproc_exchanges_in_flight is 1"]),
        ({"extproc_ledger_queued": 3.0}, [], 20, ["extproc_ledger_queued is 3"]),
        ({"extproc_tasks": 40.0}, [], 20, ["tasks: 10, 40"]),
        ({"extproc_internal_errors_total": 1.0}, [], 20, ["no internal error"]),
        ({"process_start_time_seconds": 0.0}, [], 20, ["the processor answers"]),
        ({}, ["tokens:consumer=bench"], 20, ["reserved at the end: ['tokens:consumer=bench']"]),
        ({}, [], 40, ["processor: 20 descriptors at the beginning, 40 at the end"]),
    ],
    ids=str,
)
async def test_a_soak_tells_leaks(monkeypatch, metrics, reserved, descriptors, told):
    class World:
        def metric(self, name):
            return {"process_start_time_seconds": 1.0, "extproc_tasks": 12.0, **metrics}.get(name, 0.0)

    async def once(condition, _seconds):
        return condition()

    monkeypatch.setattr(minutes, "eventually", once)
    monkeypatch.setattr(minutes, "_reserved", lambda _world: reserved)
    monkeypatch.setattr(minutes, "_sample", lambda _world: Sample(1.0, {}, {"processor": descriptors}))
    verdict = Verdict()
    await minutes._leaks(World(), verdict, Sample(0.0, {}, {"processor": 20}), 10.0)
    assert [line.removeprefix("VIOLATED").strip() for line in verdict.lines if line.startswith("VIOLATED")] == told
    assert verdict.wrong == len(told)
