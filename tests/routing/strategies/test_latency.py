import heapq
import random
from collections import Counter

import pytest

from extproc.routing.history import FORGET, History
from extproc.routing.strategies import latency
from extproc.routing.strategies.latency import Latency
from extproc.words.chain import Candidate
from extproc.words.exchange import Target

REPORT = 0.1  # seconds until Envoy's access log says how a try ended


class Fleet:
    """Requests at an even rate to deployments with given latencies. History learns of an answer when it is complete."""

    def __init__(self, clock, exchange, seconds, *, rate=20.0):
        self.clock, self.sent, self.seconds, self.rate = clock, exchange(), dict(seconds), rate
        self.history = History(clock)
        self.strategy = Latency("v", None, self.history)
        self.choices = [Candidate((Target(name, name, "m"),), index=index) for index, name in enumerate(self.seconds)]
        self._ends = []

    def send(self, count):
        """The number of requests that went to each deployment."""
        went = Counter()
        for number in range(count):
            self._report()
            first = self.strategy.order(self.choices, self.sent)[0].targets[0]
            self.history.chosen(
                first.deployment, len(self.sent.request.body), streamed=self.sent.request.ask.stream
            )  # as Select does
            went[first.name] += 1
            took = self.seconds[first.name]
            heapq.heappush(self._ends, (self.clock.now + abs(took) + REPORT, number, first.deployment, took))
            self.clock.now += 1 / self.rate
        return went

    def _report(self):
        while self._ends and self._ends[0][0] <= self.clock.now:
            *_, place, took = heapq.heappop(self._ends)
            if took < 0:
                self.history.learn(place, "5xx", size=len(self.sent.request.body))
            else:
                self.history.learn(place, "ok", size=len(self.sent.request.body), first_byte=took)


@pytest.fixture
def fleet(clocks, exchange):
    random.seed(1)
    return lambda seconds, **more: Fleet(clocks(), exchange, seconds, **more)


@pytest.mark.parametrize("rate", [2.0, 20.0, 100.0])
@pytest.mark.parametrize(("a", "b"), [(0.1, 0.3), (0.3, 0.1), (0.2, 0.25), (0.25, 0.2)])
def test_the_faster_target_is_found_within_fifty_requests(fleet, rate, a, b):
    world = fleet({"a": a, "b": b}, rate=rate)
    world.send(50)
    assert world.send(200)["a" if a < b else "b"] >= 180


@pytest.mark.parametrize("rate", [2.0, 20.0])
def test_a_target_that_slows_down_is_left_within_fifty_requests(fleet, rate):
    world = fleet({"a": 0.1, "b": 0.3}, rate=rate)
    world.send(500)
    world.seconds["a"] = 1.0
    world.send(50)
    assert world.send(200)["b"] >= 180


@pytest.mark.parametrize("rate", [2.0, 20.0])
def test_a_target_that_fails_is_left_within_fifty_requests(fleet, rate):
    world = fleet({"a": 0.1, "b": 0.3}, rate=rate)
    world.send(500)
    world.seconds["a"] = -0.05  # fails at once
    world.send(50)
    assert world.send(200)["b"] >= 180


def test_a_target_that_recovers_is_found_again(fleet):
    world = fleet({"a": 1.0, "b": 0.3}, rate=20.0)
    world.send(500)
    world.seconds["a"] = 0.05
    world.send(2000)  # one request in 32 explores
    assert world.send(200)["a"] >= 180


def test_a_target_unused_for_long_is_tried_again(fleet, monkeypatch):
    """Notes on a target fade, so that it is found again even where no request explores."""
    monkeypatch.setattr(latency, "_EXPLORE", 10**9)
    world = fleet({"a": 1.0, "b": 0.9}, rate=1 / 60)
    world.send(20)
    world.seconds["a"] = 0.05
    world.send(60)
    assert world.send(100)["a"] >= 80


def test_the_fastest_of_three_targets_is_found(fleet):
    world = fleet({"a": 0.5, "b": 0.3, "c": 0.1})
    world.send(50)
    assert world.send(200)["c"] >= 180


def test_a_few_requests_explore_the_other_targets(fleet):
    world = fleet({"a": 0.1, "b": 0.3})
    world.send(50)
    assert 1 <= world.send(1000)["b"] <= 100


def test_an_unknown_target_is_measured_by_one_request_at_a_time(fleet):
    """A new target may be very slow, so a burst of requests must not go there at once."""
    world = fleet({"a": 0.1, "b": 20.0}, rate=100.0)
    assert world.send(50)["b"] <= 5


def test_the_second_fastest_target_comes_second(fleet):
    world = fleet({"a": 0.5, "b": 0.3, "c": 0.1})
    world.send(500)
    found = [
        choice.targets[0].name
        for choice in max(
            (world.strategy.order(world.choices, world.sent) for _ in range(20)), key=lambda order: order[0].index
        )
    ]
    assert found == ["c", "b", "a"]


def test_sizes_and_streams_are_measured_separately(clocks, exchange):
    random.seed(1)
    history = History(clocks())
    strategy = Latency("v", None, history)
    choices = [Candidate((Target(name, name, "m"),), index=index) for index, name in enumerate("ab")]
    large = exchange({"model": "v", "messages": [{"role": "user", "content": "x" * 100_000}]})
    small = exchange()
    for place, fast in (("a/m", small), ("b/m", large)):
        for sent in (small, large):
            history.learn(place, "ok", size=len(sent.request.body), first_byte=0.1 if sent is fast else 2.0)
    first = [strategy.order(choices, sent)[0].targets[0].name for sent in (small, large)]
    assert first == ["a", "b"]


def test_an_inner_virtual_model_is_as_fast_as_its_first_target(clocks, exchange):
    random.seed(1)
    history = History(clocks())
    slow, fast, middle = (Target(name, name, "m") for name in ("slow", "fast", "middle"))
    for target, seconds in ((slow, 2.0), (fast, 0.1), (middle, 1.0)):
        history.learn(target.deployment, "ok", size=len(exchange().request.body), first_byte=seconds)
    strategy = Latency("v", None, history)
    found = strategy.order([Candidate((middle,), index=0), Candidate((fast, slow), index=1)], exchange())
    assert [choice.index for choice in found] == [1, 0]


def test_the_reason_is_the_expected_latency(clocks, exchange):
    clock = clocks()
    history = History(clock)
    strategy, choice = Latency("v", None, history), Candidate((Target("a", "a", "m"),))
    assert strategy.why(choice, exchange()) == "not measured yet"
    history.chosen("a/m", len(exchange().request.body), streamed=False)
    assert strategy.why(choice, exchange()) == "being measured"
    history.learn("a/m", "ok", first_byte=0.25)
    assert strategy.why(choice, exchange()) == "about 0.250 s expected"
    clock.now += 20 * FORGET
    assert strategy.why(choice, exchange()) == "about 0.000 s expected"
