import pytest

from extproc.routing.history import History
from extproc.routing.streaks import MAX_CONSUMERS, CoolDownRule

RULE = CoolDownRule(failures=5, pause=15, longest=40, probe=5)


@pytest.fixture
def clock(clocks):
    return clocks()


@pytest.fixture
def history(clock):
    return History(clock)


def fail(history, *consumers, deployment="p/m", rule=RULE):
    for consumer in consumers:
        history.failed(deployment, consumer, rule)


def cooling(history, *consumers, deployment="p/m"):
    return [history.cooling(deployment, consumer) for consumer in consumers]


def test_failures_in_a_row_of_one_consumer_cool_the_model_down_for_it_alone(history):
    fail(history, *["a"] * 4)
    assert cooling(history, "a", "b") == [0, 0]
    fail(history, *["a"] * 50)
    assert cooling(history, "a", "b") == [pytest.approx(15), 0]
    assert cooling(history, "a", deployment="p/n") == [0]


def test_failures_in_a_row_of_several_consumers_cool_it_down_for_everybody(history):
    fail(history, *["a"] * 4, "b")
    assert cooling(history, "c") == [0]  # "a" counts for three of five
    fail(history, "b")
    assert cooling(history, "c") == [pytest.approx(15)]


def test_a_success_ends_the_row(history):
    fail(history, *["a"] * 4, "b")
    history.reached("p/m", "c", 0, served=True)
    fail(history, "b", "b")
    assert cooling(history, "c") == [0]
    fail(history, "a")
    assert cooling(history, "a") == [pytest.approx(15)]  # its own row has seen no success of its own


def test_an_answer_that_is_no_success_does_not_end_the_row(history):
    fail(history, *["a"] * 4)
    history.reached("p/m", "a", 0, served=False)
    fail(history, "a")
    assert cooling(history, "a") == [pytest.approx(15)]


def test_a_success_of_a_try_from_before_the_failures_says_nothing(history, clock):
    fail(history, *["a"] * 4)
    clock.now += 60
    history.reached("p/m", "a", 61, served=True)
    fail(history, "a")
    assert cooling(history, "a") == [pytest.approx(15)]


def test_a_success_ends_a_cool_down_but_not_one_that_the_provider_asked_for(history):
    fail(history, *["a", "b"] * 5)
    history.cool("p/m", 7)
    history.reached("p/m", "a", 0, served=True)
    assert cooling(history, "a", "c") == [pytest.approx(7)] * 2
    assert cooling(history, "b") == [pytest.approx(15)]  # it has had no success yet


def test_one_failure_after_a_cool_down_begins_a_longer_one_up_to_the_longest(history, clock):
    fail(history, *["a"] * 5)
    for seconds in (30, 40, 40):
        clock.now += 100
        assert cooling(history, "a") == [0]
        fail(history, *["a"] * 7)
        assert cooling(history, "a") == [pytest.approx(seconds)]


def test_after_a_cool_down_one_request_at_a_time_tests_the_model(history, clock):
    fail(history, *["a", "b"] * 5)
    clock.now += 16
    assert cooling(history, "a", "c") == [0, 0]
    history.chosen("p/m", 0, streamed=False, consumer="c")
    assert cooling(history, "a", "c") == [pytest.approx(5)] * 2
    clock.now += 5
    assert cooling(history, "a", "c") == [0, 0]  # nothing was heard of it: another one may
    history.chosen("p/m", 0, streamed=False, consumer="c")
    history.reached("p/m", "c", 1, served=True)
    assert cooling(history, "c") == [0]


def test_connections_that_fail_cool_down_all_models_of_the_provider(history):
    for _ in range(5):
        assert cooling(history, "a", deployment="p/n") == [0]
        history.unreachable("p/m", RULE)
    assert cooling(history, "a", deployment="p/n") == [pytest.approx(15)]
    assert cooling(history, "a", deployment="q/m") == [0]
    assert history.cause("p/n", "a")[1] == "its provider cannot be reached"
    history.reached("p/x", "b", 0, served=False)  # any answer shows that it can
    assert cooling(history, "a", deployment="p/n") == [0]


def test_a_longest_cool_down_of_nothing_turns_it_off(history):
    fail(history, *["a", "b"] * 50, rule=CoolDownRule(1, 15, 0, 5))
    assert cooling(history, "a", "c") == [0, 0]


def test_what_is_counted_of_consumers_is_bounded(history):
    fail(history, *[f"c{number}" for number in range(10 * MAX_CONSUMERS)], rule=CoolDownRule(10**6, 15, 40, 5))
    [streak] = history._streaks._streaks.values()
    assert len(streak.own) == MAX_CONSUMERS
    assert len(streak.everyone) <= MAX_CONSUMERS


def test_another_process_learns_of_cool_downs(history, clock):
    other = History(clock)
    fail(history, *["a"] * 5)
    for _ in range(5):
        history.unreachable("q/m", RULE)
    other.merge([history.note()])
    assert cooling(other, "a", "b") == [pytest.approx(15), 0]
    assert cooling(other, "b", deployment="q/n") == [pytest.approx(15)]
    cooled = [(clock.now, clock.now + 15)]
    assert other.deployments() == {"p/m": {"cooling_consumers": 1}, "q/": {"cooling_down_s": 15.0, "cooled": cooled}}
