"""Several strategies in a row, their own numbers, and objectives."""

import pytest

from extproc.routing.history import History
from extproc.routing.objectives import Objectives, ObjectiveSettings
from extproc.routing.strategies import strategies
from extproc.routing.strategies._several import Several
from extproc.words.chain import Candidate
from extproc.words.exchange import Price, Target

BODY = {"model": "v", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def history(clock):
    return History(clock)


def candidate(name, price=1.0, index=0, **share):
    return Candidate((Target(name, "p", name, price=price and Price(*[price * 1e9] * 5)),), index=index, **share)


def several(history, *names, **objectives):
    *first, last = (strategies()[name]("v", None, history) for name in names)
    return Several(first, last, Objectives(ObjectiveSettings(**objectives), history) if objectives else None)


def names(strategy, choices, sent):
    return "".join(choice.targets[0].name for choice in strategy.order(choices, sent))


def stream(history, name, seconds, times=1):
    for _ in range(times):
        history.learn(f"p/{name}", "ok", streamed=True, first_byte=seconds, rest=0.01, answer=1000)


def test_a_strategy_orders_what_is_alike_for_those_before_it(exchange, history):
    choices = [
        candidate("a", 3.0, quality=(((), 0.9),)),
        candidate("b", 1.05, quality=(((), 0.9),)),
        candidate("c", 1.0, quality=(((), 0.9),)),
        candidate("d", 0.1, quality=(((), 0.2),)),
    ]
    sent = exchange(BODY)
    assert names(several(history, "quality", "cost", "fallback"), choices, sent) == "bcad"
    assert names(several(history, "quality", "cost"), choices, sent) == "cbad"
    assert names(several(history, "cost", "quality"), choices, sent) == "dbca"
    for name, seconds in zip("abcd", (0.1, 0.9, 0.2, 0.5), strict=True):
        stream(history, name, seconds)
    assert names(several(history, "quality", "cost", "latency", "fallback"), choices, sent) == "cbad"
    why = several(history, "quality", "cost", "fallback").why(choices[0], sent)
    assert why.startswith("quality 0.9, about 0.00")
    assert why.endswith(" USD, place 1 in the settings")


def test_the_quality_of_a_class_of_requests_counts(exchange, history):
    conditions = (("tools", "true".__eq__),)
    choices = [candidate("a", quality=((conditions, 0.2), ((), 0.9))), candidate("b", quality=(((), 0.5),))]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    by_quality = several(history, "quality", "fallback")
    assert names(by_quality, choices, exchange(BODY)) == "ab"
    assert names(by_quality, choices, exchange(BODY | {"tools": [tool]})) == "ba"
    assert names(by_quality, [candidate("x"), *choices], exchange(BODY)) == "abx"


def test_the_least_busy_is_first_in_proportion_to_its_weight(exchange, history, clock):
    choices = [candidate("a", weight=1), candidate("b", weight=10), candidate("c", weight=0)]
    for _ in range(60):
        clock.now += 1
        history.learn("p/a", "ok", first_byte=1.0)
        history.learn("p/b", "ok", first_byte=5.0)
    assert history.load("p/a") == pytest.approx(1 - 1 / 2.718, rel=0.05)
    by_load = several(history, "load", "fallback")
    assert names(by_load, choices, exchange(BODY)) == "bac"
    other = History(clock)
    other.merge([history.note(), history.note()])
    assert other.load("p/b") == pytest.approx(2 * history.load("p/b"))
    clock.now += 600
    assert history.load("p/a") < 0.001


@pytest.mark.parametrize(
    ("objectives", "first"),
    [
        ({"ttft_p95": "800ms"}, "bac"),  # nothing is known of b and c is slow
        ({"rate": 100}, "cba"),
        ({"cost": 2}, "acb"),
        ({"ttft_p95": "800ms", "cost": 2}, "acb"),
        ({"ttft_p95": "10s", "rate": 1, "cost": 10}, "acb"),
        ({"cost": 0.01}, "acb"),
    ],
)
def test_targets_that_miss_an_objective_come_last(exchange, history, objectives, first):
    choices = [candidate("a", 1.0), candidate("c", 1.0), candidate("b", 5.0)]
    stream(history, "a", 0.9 if first == "bac" else 0.1, 5)
    stream(history, "c", 2.0, 5)
    for name, tokens in (("a", 50), ("c", 500)):
        history.wrote(f"p/{name}", 10, tokens, 1.0)
    strategy = several(history, "fallback", **objectives)
    assert names(strategy, choices, exchange(BODY)) == first


def test_a_missed_objective_is_told_with_its_number_and_forgotten_in_time(exchange, history, clock):
    stream(history, "a", 1.5)
    strategy, sent = several(history, "fallback", ttft_p95="800ms", rate=20, cost=0.5), exchange(BODY)
    history.wrote("p/a", 10, 5, 1.0)
    told = "misses ttft_p95 800ms: 1.500 s, misses rate 20: 5.0 tokens/s, misses cost 0.5: 1 USD per million tokens"
    assert strategy.why(candidate("a"), sent) == f"{told}, place 1 in the settings"
    assert "misses cost 0.5: inf" in strategy.why(candidate("a", price=None), sent)
    clock.now += 3600
    assert "ttft" not in strategy.why(candidate("a"), sent)


def test_the_percentile_is_of_the_latest_answers(history):
    for seconds, times, expected in ((0.1, 1, 0.1), (0.1, 40, 0.1), (1.0, 1, 0.1), (1.0, 1, 1.0), (0.2, 32, 0.2)):
        stream(history, "a", seconds, times)
        assert history.streaming("p/a", 10).p95 == expected
