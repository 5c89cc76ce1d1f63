"""Budgets by what they match: the same ones as a walk over all finds, without the walk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.money.budgets import BudgetSettings, Leases, Reserve, compile_budget
from extproc.money.budgets.budget import Budget, ByMatch
from extproc.stores.memory import MemoryCounters
from extproc.words.exchange import Consumer, Target
from tests.exchanges import write

TARGETS = (Target("m", "a", "m"), Target("n", "b", "n"))
PATTERNS = st.sampled_from(["x", "y", "x*", "*", "m", "n"])
FACTS = st.sampled_from(["consumer", "key", "team", "label.run", "model", "provider"])


def budget(number, match):
    return BudgetSettings(name=f"b{number}", unit="requests", limit=10**9, window="minute", match=match)


@given(st.lists(st.dictionaries(FACTS, PATTERNS, max_size=3), max_size=8), st.sampled_from("xy"), st.sampled_from("xy"))
def test_no_budget_that_covers_a_request_is_missed_and_their_order_stays(exchange, matches, sender, label):
    sent = exchange({"model": "m", "messages": [{}]}, targets=TARGETS)
    sent.consumer = Consumer(sender, team=label)
    write(sent, key=sender, labels={"run": label})
    budgets = [compile_budget(budget(number, match)) for number, match in enumerate(matches)]
    found = ByMatch(budgets).candidates(sent, TARGETS)
    covering = [each for each in budgets if any(each.covers(sent, target) for target in TARGETS)]
    assert [each for each in found if any(each.covers(sent, target) for target in TARGETS)] == covering


@pytest.mark.parametrize("fact", ["consumer", "key", "team", "label.run"])
async def test_the_work_of_a_request_does_not_grow_with_the_budgets_of_others(exchange, monkeypatch, fact):
    compared = []
    covers = Budget.covers
    monkeypatch.setattr(Budget, "covers", lambda *asked: compared.append(1) or covers(*asked))

    async def work(tenants):
        settings = [budget(number, {fact: f"t{number}"}) for number in range(tenants)]
        counters = MemoryCounters()
        reserve = Reserve(settings, counters, Leases(counters), None, lambda *_: None)
        sent = exchange({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}, targets=TARGETS)
        sent.consumer = Consumer("t3", team="t3")
        write(sent, key="t3", labels={"run": "t3"})
        compared.clear()
        await reserve.look_ahead(sent)
        await reserve(sent)
        assert [claim.scope for claim in sent.money.reservation.claims] == ["b3"]
        return len(compared)

    assert await work(5) == await work(5000) == 3
