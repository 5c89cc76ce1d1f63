"""The counters file is locked by another process: what needs it waits a moment, everything else goes on."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.conftest import Gateway, eventually

pytestmark = pytest.mark.alone  # it measures time

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}, counted: {provider: sandbox, model: stub}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
budgets: [{name: few, match: {model: counted}, unit: requests, limit: 1000, window: total}]
"""

COUNT = 60  # requests with a budget


@contextmanager
def locked(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None, timeout=5)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


def test_a_locked_file_stops_only_requests_with_a_budget(start: Callable[..., Gateway], tmp_path: Path):
    path = tmp_path / "counters.db"
    gateway = start(YAML + f"stores: {{counters: 'sqlite:{path}', ledger: 'memory:'}}\n")
    assert gateway.chat("counted").status_code == 200
    gateway.fault("sandbox", "words=40+pace=50ms")
    with ThreadPoolExecutor(COUNT) as pool, gateway.stream("stub") as running:
        pieces = running.iter_raw()
        next(pieces)
        with locked(path):
            refused = [pool.submit(gateway.chat, "counted", max_tokens=1) for _ in range(COUNT)]
            arrived = [time.monotonic()]
            # Two seconds in which requests with a budget wait for the file, and are refused.
            arrived.extend(time.monotonic() for _ in pieces)
            gateway.reset()
            before = time.monotonic()
            assert [gateway.chat().status_code for _ in range(10)] == [200] * 10
            assert time.monotonic() - before < 3
            codes = [answer.json()["error"]["code"] for answer in (each.result(30) for each in refused)]
    assert codes == ["store_unavailable"] * COUNT
    gaps = [later - earlier for earlier, later in pairwise(arrived)]
    assert len(gaps) > 20
    assert max(gaps) < 0.5, "the stream went on"
    eventually(lambda: gateway.chat("counted").status_code == 200)
