"""Trials of canaries over a counters store, and the order of targets once one has stopped."""

import pytest

from extproc.routing.canary import Canaries, CanarySettings, worse
from extproc.routing.history import History
from extproc.routing.strategies._trial import OnTrial
from extproc.routing.strategies.fallback import Fallback
from extproc.routing.strategies.weighted import Weighted
from extproc.stores.memory import MemoryCounters
from extproc.words.chain import Candidate
from extproc.words.exchange import Target

CANARY = CanarySettings(target="new", against="old")


def comparison(state="open", name="failed"):
    measure = {"name": name, "state": state, "bad_a": 1, "of_a": 100, "bad_b": 30, "of_b": 100}
    return {"a": "old", "classes": [{"name": "all requests", "measures": [measure]}]}


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def process():
    """Call it: the trials of a process. All of them share a store."""
    clock, counters = Clock(), MemoryCounters()
    return lambda: Canaries(counters, clock)


async def look(canaries, state, canary=CANARY, name="failed"):
    """The times of the trials that were compared, and those that stopped."""
    compared, stopped = [], []

    async def compare(trial):
        compared.append(trial.begun)
        return comparison(state, name)

    await canaries.look({"v": canary}, compare, told=stopped.append)
    return compared, [trial.target for trial in stopped]


async def test_a_trial_begins_once_and_stops_for_good_in_every_process(process):
    one, other = process(), process()
    assert await look(one, "worse") == ([], [])
    await other.refresh()
    assert await look(other, "open") == ([1000.0], [])
    assert await look(other, "safe") == ([1000.0], [])
    assert one.stopped("v", CANARY) == ""
    assert await look(one, "worse") == ([1000.0], ["new"])
    assert await look(one, "worse") == ([], [])
    await other.refresh()
    assert other.stopped("v", CANARY) == "30.0% of its answers are failed, 1.0% of old's (all requests)"
    assert other.stopped("w", CANARY) == ""
    after_restart = process()
    await after_restart.refresh()
    assert after_restart.stopped("v", CANARY)


async def test_another_number_begins_another_trial(process):
    canaries, again = process(), CANARY.model_copy(update={"trial": 2})
    await look(canaries, "open")
    assert await look(canaries, "worse") == ([1000.0], ["new"])
    assert await look(canaries, "worse", again) == ([], [])
    assert canaries.stopped("v", again) == ""
    assert canaries.stopped("v", CANARY)


def test_only_measures_of_the_guard_stop_a_canary():
    assert worse(comparison("worse", "cut off"), ["failed", "dear"]) == ""
    assert worse(comparison("worse", "cut off"), ["cut_off"]).startswith("30.0% of its answers are cut off")


@pytest.mark.parametrize("strategy", [Fallback, Weighted])
def test_a_stopped_canary_comes_last(exchange, strategy):
    reason = ""
    order = OnTrial(strategy("v", None, History()), "new", lambda: reason)
    names = "new", "old", "spare"
    choices = [Candidate((Target(name, "p", name),), weight=50, index=at) for at, name in enumerate(names)]
    sent = exchange({"model": "v", "messages": [{"role": "user", "content": "Hi"}]})
    before = {order.order(choices, sent)[0].targets[0].name for _ in range(20)}
    assert "new" in before
    reason = "30.0% of its answers are failed"
    for _ in range(20):
        assert order.order(choices, sent)[-1].targets[0].name == "new"
        assert order.order(choices[:2], sent)[0].targets[0].name == "old"
    assert order.why(choices[0], sent).startswith("its trial has stopped: 30.0%")
    assert "stopped" not in order.why(choices[1], sent)
