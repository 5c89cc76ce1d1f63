"""The benchmark's harness, with every process it starts."""

from __future__ import annotations

import asyncio
import contextlib
import shutil

import pytest

from bench import load
from bench.harness import KEY, SETTINGS, bench
from bench.rolling import haproxy, roll, staged


def test_a_run_leaves_nothing_where_it_was_started(tmp_path, monkeypatch):
    """Its requests do not appear in the ledger of a settings file in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_KEY", KEY)
    relative = SETTINGS.replace('ledger: "sqlite:{dir}/ledger.db"', 'ledger: "sqlite:data/ledger.db"')
    assert relative != SETTINGS
    with bench("sqlite:data/counters.db", settings=relative) as what:
        result = asyncio.run(load.run(what.gateway, load.request("stub"), total=5, concurrency=1))
        assert (len(result.latencies), result.errors) == (5, [])
        assert what.counted() == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("balancer", [lambda _: contextlib.nullcontext(), haproxy], ids=["played", "haproxy"])
def test_a_restart_under_load_fails_no_request(balancer):
    """The short form of `python -m bench.rolling`, also behind a HAProxy with its own checks."""
    if balancer is haproxy and shutil.which("haproxy") is None:
        pytest.skip("there is no haproxy")
    with staged() as gateways, balancer(gateways) as port:
        outcomes, restarts = asyncio.run(roll(gateways, 200, 50.0, 5, least=1, balancer=port))
    assert restarts == 1
    assert len(outcomes) >= 200
    assert [outcome for outcome in outcomes if outcome.what != "ok"] == []
