import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.routing.history import History
from extproc.routing.strategies import StickySettings
from extproc.routing.strategies.weighted import Weighted
from extproc.words.chain import Candidate
from extproc.words.exchange import Consumer, Target


def choices(*weights):
    return [Candidate((Target(f"t{index}", "a", "x"),), weight, index=index) for index, weight in enumerate(weights)]


def weighted(sticky=None, clock=None, name="v", **settings):
    found = StickySettings(by=sticky, **settings) if sticky else None
    return Weighted(name, found, History(), *([clock] if clock else []))


def order(strategy, options, exchange):
    return tuple(choice.index for choice in strategy.order(options, exchange))


@pytest.fixture
def labelled(exchange):
    """Call it with the value of the label `run`. Returns a request that has the label."""
    sent = exchange()

    def make(value):
        sent.money.labels = {"run": value}
        return sent

    return make


# --- by weight


@pytest.mark.parametrize(
    "weights", [(95, 5), (50, 50), (1, 1, 1), (70, 20, 10), (999_999, 1), (1, 0, 3), (0, 5, 0, 5), (33, 33, 34)]
)
def test_the_shares_are_right_to_a_tenth_of_a_percentage_point(exchange, weights):
    strategy, options, sent, times = weighted(), choices(*weights), exchange(), 20_000
    first = Counter(order(strategy, options, sent)[0] for _ in range(times))
    for index, weight in enumerate(weights):
        assert first[index] / times == pytest.approx(weight / sum(weights), abs=0.001)


@given(st.lists(st.integers(0, 100), min_size=2, max_size=6).filter(any), st.integers(1, 400))
def test_the_shares_of_any_run_of_requests_are_right(exchange, weights, times):
    """Random choice alone would be far off. Any consecutive requests are right to within a few."""
    strategy, options, sent = weighted(), choices(*weights), exchange()
    first = Counter(order(strategy, options, sent)[0] for _ in range(times))
    for index, weight in enumerate(weights):
        assert first[index] == pytest.approx(times * weight / sum(weights), abs=7)


def test_failovers_are_shared_by_weight(exchange):
    strategy, options, sent, times = weighted(), choices(50, 40, 10), exchange(), 20_000
    orders = Counter(order(strategy, options, sent) for _ in range(times))
    assert orders[0, 1, 2] / times == pytest.approx(0.5 * 40 / 50, abs=0.005)
    assert orders[0, 2, 1] / times == pytest.approx(0.5 * 10 / 50, abs=0.005)
    assert orders[2, 0, 1] / times == pytest.approx(0.1 * 50 / 90, abs=0.005)


def test_a_skipped_target_leaves_its_share_to_the_others(exchange):
    strategy, sent, times = weighted(), exchange(), 20_000
    left = [choice for choice in choices(60, 30, 10) if choice.index != 0]
    first = Counter(order(strategy, left, sent)[0] for _ in range(times))
    assert first[1] / times == pytest.approx(0.75, abs=0.001)


def test_weight_zero_comes_last(exchange):
    strategy, options, sent = weighted(), choices(0, 1, 0, 3), exchange()
    for _ in range(100):
        assert order(strategy, options, sent)[2:] == (0, 2)


def test_where_only_weight_zero_is_left_the_order_is_that_of_the_settings(exchange):
    assert order(weighted(), choices(0, 0, 0), exchange()) == (0, 1, 2)


# --- sticky

LABELS = [f"run-{number}" for number in range(20_000)]


@pytest.mark.parametrize("by", ["label.run", "key", "consumer", "team"])
def test_requests_with_the_same_sticky_value_get_the_same_order_in_every_process(exchange, by):
    options, here, there = choices(50, 50), weighted(by), weighted(by)
    found = {}
    for number in range(50):
        sent = exchange(consumer=Consumer(f"c{number}", f"t{number}"), labels={"run": f"r{number}"})
        sent.money.key = f"k{number}"
        orders = {order(strategy, options, sent) for strategy in (here, there) for _ in range(3)}
        [found[number]] = orders
    assert len(set(found.values())) == 2


def test_a_request_without_the_sticky_value_is_not_sticky(exchange):
    strategy, options, sent = weighted("label.run"), choices(50, 50), exchange(labels={"other": "x"})
    assert len({order(strategy, options, sent) for _ in range(10)}) == 2


def test_virtual_models_choose_independently(labelled):
    options = choices(50, 50)
    one, other = weighted("label.run", name="one"), weighted("label.run", name="other")
    alike = [order(one, options, labelled(label)) == order(other, options, labelled(label)) for label in LABELS[:1000]]
    assert 400 < sum(alike) < 600


@pytest.mark.parametrize("weights", [(50, 50), (95, 5), (70, 20, 10), (1, 0, 3)])
def test_the_shares_of_sticky_sessions_are_right(labelled, weights):
    strategy, options = weighted("label.run"), choices(*weights)
    first = Counter(order(strategy, options, labelled(label))[0] for label in LABELS)
    for index, weight in enumerate(weights):
        assert first[index] / len(LABELS) == pytest.approx(weight / sum(weights), abs=0.01)


@pytest.mark.parametrize(("before", "after"), [((90, 10), (80, 20)), ((40, 30, 30), (40, 60, 30)), ((1, 0), (1, 1))])
def test_a_raised_weight_only_moves_sessions_to_its_target(labelled, before, after):
    [grown] = [index for index, (old, new) in enumerate(zip(before, after, strict=True)) if new > old]
    strategy, old, new = weighted("label.run"), choices(*before), choices(*after)
    moved = 0
    for label in LABELS[:5000]:
        was, now = (order(strategy, options, labelled(label))[0] for options in (old, new))
        assert now in (was, grown)
        moved += now != was
    gain = after[grown] / sum(after) - before[grown] / sum(before)
    assert moved / 5000 == pytest.approx(gain, abs=0.02)


def test_a_skipped_target_moves_only_its_own_sessions(labelled):
    strategy, options = weighted("label.run"), choices(40, 30, 30)
    for label in LABELS[:1000]:
        whole = order(strategy, options, labelled(label))
        left = order(strategy, [choice for choice in options if choice.index != 1], labelled(label))
        assert left == tuple(index for index in whole if index != 1)


def test_an_inner_virtual_model_does_not_move_sessions(labelled):
    """The first target of the inner virtual model changes with every request."""
    strategy, inner = weighted("label.run"), [Target(name, "a", name) for name in "xyz"]
    last = Target("last", "b", "last")
    for label in LABELS[:50]:
        orders = {
            order(strategy, [Candidate(targets, 50, index=0), Candidate((last,), 50, index=1)], labelled(label))
            for targets in itertools.permutations(inner)
        }
        assert len(orders) == 1


def test_a_sticky_value_that_is_no_unicode_works(labelled):
    strategy, options = weighted("label.run"), choices(50, 50)
    assert len({order(strategy, options, labelled("caf\udce9")) for _ in range(5)}) == 1


# --- ttl


def test_without_a_ttl_a_choice_lasts(labelled, clocks):
    clock = clocks()
    strategy, options = weighted("label.run", clock), choices(50, 50)
    before = [order(strategy, options, labelled(label)) for label in LABELS[:100]]
    clock.now += 366 * 86400
    assert [order(strategy, options, labelled(label)) for label in LABELS[:100]] == before


def test_a_choice_lasts_for_its_ttl_and_is_then_made_again(labelled, clocks):
    clock = clocks()
    strategy, options, labels = weighted("label.run", clock, ttl="10m"), choices(50, 50), LABELS[:400]
    changes, last = Counter(), {}
    steps = []
    for step in range(101):
        for label in labels:
            now = order(strategy, options, labelled(label))
            if last.setdefault(label, now) != now:
                last[label] = now
                changes[label] += 1
                steps.append(step)
        clock.now += 6  # a hundredth of the ttl
    assert max(changes.values()) == 1  # at most once in a ttl
    assert len(changes) / len(labels) == pytest.approx(0.5, abs=0.1)  # half of them stay where they were
    assert max(Counter(steps).values()) < 20  # and not all at the same time


def test_the_shares_stay_right_while_choices_are_renewed(labelled, clocks):
    clock = clocks()
    strategy, options = weighted("label.run", clock, ttl="10m"), choices(80, 20)
    for _ in range(3):
        first = Counter(order(strategy, options, labelled(label))[0] for label in LABELS[:5000])
        assert first[1] / 5000 == pytest.approx(0.2, abs=0.02)
        clock.now += 1234


# --- why


def test_the_reason_is_the_weight_and_the_sticky_field(exchange, labelled):
    [heavy, _] = choices(95, 5)
    assert weighted().why(heavy, exchange()) == "weight 95"
    assert weighted("label.run").why(heavy, labelled("7")) == "weight 95, sticky by label.run"
    assert weighted("label.run").why(heavy, exchange()) == "weight 95"


# --- by the prefix of a conversation


def test_the_turns_of_a_conversation_stay_at_the_target_that_has_its_prefix(exchange):
    system = {"role": "system", "content": "Be brief."}
    options = choices(1, 1, 1, 1)

    def first(*turns, **more):
        body = {"model": "m", "messages": [system, *turns]} | more
        return order(weighted("prefix"), options, exchange(body))[0]

    asked = [{"role": "user", "content": f"Question {number}"} for number in range(40)]
    answered = {"role": "assistant", "content": "Yes"}
    places = [first(turn) for turn in asked]
    assert len(set(places)) == 4
    assert [first(turn, answered, asked[0]) for turn in asked] == places
    assert [first(turn, temperature=0) for turn in asked] == places
    assert [first(turn, tools=[{"type": "function"}]) for turn in asked] != places
    for body in ({"model": "m"}, {"messages": 5}, {"messages": [None, "\ud800"]}):
        made = exchange()
        made.request.json = body
        assert (weighted("prefix")._seed(made) is None) is ("messages" not in body or body["messages"] != 5)
