from itertools import permutations

import pytest

from extproc.routing.history import History
from extproc.routing.strategies.fallback import Fallback
from extproc.words.chain import Candidate
from extproc.words.exchange import Target

CHOICES = [Candidate((Target(name, "a", name),), index=index) for index, name in enumerate("abc")]


@pytest.mark.parametrize("left", [CHOICES, CHOICES[1:], CHOICES[::2]])
def test_targets_keep_the_order_of_the_settings(exchange, left):
    assert list(Fallback("v", None, History()).order(left, exchange())) == left


def test_history_does_not_change_the_order(exchange):
    history = History()
    strategy = Fallback("v", None, history)
    for order in permutations("abc"):
        for name in order:
            history.learn(f"a/{name}", "5xx")
    history.cool("a/a", 60)
    assert list(strategy.order(CHOICES, exchange())) == CHOICES


def test_the_reason_is_the_place_in_the_settings(exchange):
    assert Fallback("v", None, History()).why(CHOICES[2], exchange()) == "place 3 in the settings"
