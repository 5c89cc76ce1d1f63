"""Two processes with the same counters and another opinion about the unit of a budget."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.money.accounting.units import BOARD
from extproc.stores import open_counters
from tests.e2e.conftest import eventually, free_ports

SETTINGS = """
status: {{address: 127.0.0.1, port: {0}}}
admin: {{address: 127.0.0.1, port: {1}}}
processor: {{socket: {name}.sock}}
stores: {{counters: "sqlite:counters.db", ledger: "memory:"}}
auth: {{required: false}}
providers: {{sandbox: {{kind: mock, base_url: "http://127.0.0.1:1/v1"}}}}
models: {{stub: {{provider: sandbox, price: {{input: 1, output: 1}}}}}}
budgets: [{{name: day, unit: {unit}, limit: 1000000, window: day}}]
"""


class Serving:
    def __init__(self, folder: Path, name: str, unit: str) -> None:
        file, self.log = folder / f"{name}.yaml", folder / f"{name}.log"
        file.write_text(SETTINGS.format(*free_ports(2), name=name, unit=unit))
        command = [sys.executable, "-m", "extproc", "serve", "--config", file.name]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "extproc is ready" in self.log.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0


@pytest.fixture
def serve(tmp_path, monkeypatch):
    # the processes have another folder than the tests
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    begun = []

    def begin(name, unit):
        begun.append(Serving(tmp_path, name, unit))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.wait()


def test_no_process_starts_with_another_unit_than_those_that_count(serve, tmp_path):
    """Such as a worker that starts again after the others have refused the change. A dollar would be 10⁹ tokens."""

    async def notes():
        counters = open_counters(f"sqlite:{tmp_path}/counters.db")
        found = await counters.share(BOARD, "", b"", 1.0)
        await counters.close()
        return found

    first = serve("first", "usd")
    eventually(first.is_ready)
    eventually(lambda: asyncio.run(notes()))
    second = serve("second", "tokens")
    assert second.process.wait(60) != 0
    assert "the counts of day are in another unit: give the budget a new name" in second.log.read_text()
    first.stop()
    eventually(serve("third", "tokens").is_ready)
