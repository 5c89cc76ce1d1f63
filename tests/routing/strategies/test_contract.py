"""The contract that every strategy meets, for any choices."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.routing.history import History
from extproc.routing.strategies import StickySettings, strategies
from extproc.words.chain import Candidate
from extproc.words.exchange import Price, Target
from tests.samples import examples

PRICES = st.none() | st.builds(Price, st.floats(0, 1e6), st.floats(0, 1e6))
TARGETS = st.builds(Target, st.text("ab", min_size=1, max_size=2), st.sampled_from("pq"), st.sampled_from("xy"))
PRICED = st.builds(
    lambda target, price: Target(target.name, target.provider, target.model, price=price), TARGETS, PRICES
)
CHOICES = st.lists(
    st.tuples(
        st.lists(PRICED, min_size=1, max_size=3),
        st.sampled_from([0, 1, 5, 95, 1_000_000]),
        st.floats(0, 1),
        st.integers(0, 15),
    ).map(lambda found: Candidate(*found)),
    min_size=2,
    max_size=6,
)
TEXTS = st.text(max_size=40) | st.sampled_from(["Hi", "Prove that P = NP. " * 50])
STICKY = [None, StickySettings(by="key"), StickySettings(by="label.run", ttl="1m")]

each_strategy = pytest.mark.parametrize("name", sorted(strategies()))


def body(text, **fields):
    return {"model": "v", "messages": [{"role": "user", "content": text}]} | fields


@each_strategy
@pytest.mark.parametrize("sticky", STICKY)
@given(choices=CHOICES, text=TEXTS, labels=st.dictionaries(st.just("run"), st.text(min_size=1, max_size=5)))
@settings(max_examples=examples(40))
def test_an_order_is_a_permutation_of_the_choices(exchange, *, name, sticky, choices, text, labels):
    strategy = strategies()[name]("v", sticky, History())
    sent = exchange(body(text, stream=bool(labels)), labels=labels)
    sent.money.key = "alice#0"
    for _ in range(3):
        found = strategy.order(tuple(choices), sent)
        assert sorted(map(id, found)) == sorted(map(id, choices))


@each_strategy
@given(CHOICES, TEXTS)
@settings(max_examples=examples(40))
def test_a_reason_is_a_few_words(exchange, name, choices, text):
    strategy = strategies()[name]("v", None, History())
    sent = exchange(body(text))
    for when in ("before", "after"):
        for choice in choices:
            why = strategy.why(choice, sent)
            assert 0 < len(why) <= 120, when
            assert why.isprintable()
        strategy.order(choices, sent)


@each_strategy
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_every_operation_can_be_ordered(exchange, name, path):
    choices = [Candidate((Target(model, "a", model),), index=index) for index, model in enumerate("xyz")]
    sent = exchange({"model": "v", "input": "x"} if "embeddings" in path else body("x"), path=path)
    strategy = strategies()[name]("v", None, History())
    assert {choice.index for choice in strategy.order(choices, sent)} == {0, 1, 2}
    assert strategy.why(choices[0], sent)
