"""The invariants of budgets, live: the short form of `python -m bench.soak`, through a real Envoy and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bench.soak.findings import INVARIANTS, Findings
from bench.soak.plan import SHORT
from bench.soak.run import Soak
from bench.soak.world import World
from tests.redis_server import RedisServer

pytestmark = pytest.mark.alone  # it measures time


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    RedisServer.need()
    world = World(SHORT, tmp_path_factory.mktemp("soak"))
    try:
        world.start()
        soak = Soak(world, SHORT)
        found = asyncio.run(soak.run())
        assert soak.kills == SHORT.kills
        yield found
    finally:
        world.stop()


@pytest.mark.parametrize("name", INVARIANTS)
def test_every_invariant_holds_under_load(findings: Findings, name: str):
    assert findings[name].checked > 0
    assert findings[name].wrong == []


def test_some_budgets_ran_out_during_the_run(findings: Findings):
    """Otherwise the test above would show little."""
    assert findings.refused > 50
    assert findings.expired > 0
    assert findings.fullest > 0.9
