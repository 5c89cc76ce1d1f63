"""Work that a process repeats."""

import asyncio

import pytest

from extproc.envoy.server.periodic import BEAT, Periodic, pause, until_beat
from extproc.money.ledger import LedgerError
from extproc.stores import StoreError


def running(work, every=0.001, **more):
    return asyncio.create_task(Periodic("work", every, work, **more).run())


@pytest.mark.parametrize("error", [StoreError, LedgerError])
async def test_a_store_that_does_not_answer_costs_one_turn(error):
    turns, done = [], asyncio.Event()

    async def work():
        turns.append(None)
        if len(turns) == 1:
            raise error("away")
        done.set()

    task = running(work)
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()


async def test_a_bug_ends_the_work():
    async def work():
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await asyncio.wait_for(running(work), 10)


async def test_the_first_time_may_be_sooner_and_the_period_may_change():
    periods, done = iter((600.0, 0.001, 600.0)), asyncio.Event()
    turns = []

    async def work():
        turns.append(None)
        if len(turns) == 2:
            done.set()

    task = running(work, lambda: next(periods), first=0.001)
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()


def test_work_is_done_at_the_wake_up_nearest_to_its_period():
    assert 0 < until_beat() <= 1.1 * BEAT
    assert 29 * BEAT < pause(30 * BEAT) <= 30.1 * BEAT
    assert pause(0.2 * BEAT) == 0.2 * BEAT
