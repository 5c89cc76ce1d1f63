"""Evidence between two arms: no alarm where they are equal, however often one looks, and planted differences found."""

import math
import random

import pytest

from extproc.words.evidence import ERROR, Arms, Pairs, interval, missing, state

MARGIN = 0.01
LOOKS = [*range(20, 400, 20), *range(400, 4001, 400)]  # readers look often


def arms(rng, a, b, share=0.5, most=4000):
    """Counts at each look at a stream of answers."""
    counts = [[0, 0], [0, 0]]
    for number in range(1, most + 1):
        arm = rng.random() < share
        counts[arm][0] += rng.random() < (b if arm else a)
        counts[arm][1] += 1
        if number in LOOKS:
            yield Arms(*counts[0], *counts[1])


def pairs(rng, loss, win=0.0, most=4000):
    wins = losses = 0
    for number in range(1, most + 1):
        kind = rng.random()
        losses += kind < loss
        wins += loss <= kind < loss + win
        if number in LOOKS:
            yield Pairs(wins, losses, number - wins - losses)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_equal_arms_raise_no_alarm_at_any_look(rate, share):
    rng = random.Random(f"{rate} {share}")
    found = [any(state(each, MARGIN, ERROR) == "worse" for each in arms(rng, rate, rate, share)) for _ in range(25)]
    assert not any(found)  # 200 runs in all


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_pairs_of_equal_arms_raise_no_alarm_at_any_look(rate):
    rng = random.Random(rate)
    assert not any(
        state(each, MARGIN, ERROR) == "worse" for _ in range(100) for each in pairs(rng, rate, rate)
    )  # 200 in all


@pytest.mark.parametrize(
    ("a", "b"),
    [pytest.param(0.0, 0.02, id="drops tool calls 2 %"), (0.01, 0.06), pytest.param(0.05, 0.12, id="slower tail")],
)
def test_a_planted_difference_is_found(a, b):
    rng = random.Random(f"{a} {b}")
    assert all(state([*arms(rng, a, b)][-1], MARGIN, ERROR) == "worse" for _ in range(25))


def test_pairs_find_a_difference_sooner_than_arms():
    assert state(Pairs(0, 16, 784), MARGIN, ERROR) == "worse"
    assert state(Arms(8, 800, 24, 800), MARGIN, ERROR) == "open"


def test_equal_arms_are_safe_in_the_end_and_it_is_told_when():
    few = Arms(1, 100, 1, 100)
    assert state(few, 0.05, ERROR) == "open"
    more = missing(few, 0.05, ERROR)
    assert state(few.times(1 + more / 100), 0.05, ERROR) == "safe"
    assert state(few.times(0.9 * (1 + more / 100)), 0.05, ERROR) == "open"
    assert missing(Arms(0, 0, 0, 0), 0.05, ERROR) is None
    assert missing(Arms(500, 1000, 500, 1000), 1e-6, ERROR) is None


@pytest.mark.parametrize("counts", [Arms(0, 0, 0, 0), Pairs(0, 0, 0)])
def test_without_answers_everything_is_possible(counts):
    assert interval(counts, ERROR) == (-1.0, 1.0)


def test_an_interval_holds_the_counted_difference_and_shrinks():
    for counts in (Arms(3, 90, 7, 110), Pairs(2, 9, 100), Arms(0, 50, 50, 50), Pairs(0, 80, 0)):
        low, high = interval(counts, ERROR)
        assert low <= counts.difference <= high
        lower, higher = interval(counts.times(10), ERROR)
        assert low <= lower <= counts.difference <= higher <= high
        assert math.isclose(counts.against(counts.difference), counts.against(counts.difference), abs_tol=1e-9)
