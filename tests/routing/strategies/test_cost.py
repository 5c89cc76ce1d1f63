import math

import pytest

from extproc.routing.history import History
from extproc.routing.strategies.cost import Cost, cost
from extproc.upstream.prices import price
from extproc.words.chain import Candidate
from extproc.words.exchange import Target


def choices(**prices):
    return [
        Candidate((Target(name, "a", name, price=rates and price(*rates)),), index=index)
        for index, (name, rates) in enumerate(prices.items())
    ]


def question(text="Hello", **fields):
    return {"model": "v", "messages": [{"role": "user", "content": text}]} | fields


def order(exchange, body, **prices):
    found = Cost("v", None, History()).order(choices(**prices), exchange(body))
    return [choice.targets[0].name for choice in found]


def test_the_cheapest_comes_first(exchange):
    assert order(exchange, question(), dear=(10, 30), cheap=(0.1, 0.4), middle=(1, 3)) == ["cheap", "middle", "dear"]


def test_an_unknown_price_comes_last(exchange):
    assert order(exchange, question(), unknown=None, dear=(1e6, 1e6), free=(0, 0)) == ["free", "dear", "unknown"]


def test_targets_of_equal_cost_keep_the_order_of_the_settings(exchange):
    assert order(exchange, question(), b=(1, 1), a=(1, 1), d=None, c=None) == ["b", "a", "d", "c"]


@pytest.mark.parametrize(
    ("body", "first"),
    [
        (question("x" * 100_000, max_tokens=10), "reads"),  # long input, short output
        (question("Tell me a story."), "writes"),
        (question("x" * 10_000, n=20), "writes"),
        (question("x" * 10_000, max_tokens=5, n=20), "reads"),
    ],
)
def test_the_cheapest_target_depends_on_the_request(exchange, body, first):
    assert order(exchange, body, reads=(1, 30), writes=(5, 5))[0] == first


def test_the_cost_is_that_of_the_input_and_of_a_usual_output(exchange):
    target = Target("m", "a", "m", price=price(1, 10))
    sent = exchange(question("x" * 4000))
    assert cost(target, sent) == pytest.approx((len(sent.request.body) / 4 * 1 + 500 * 10) / 1e6)
    assert cost(target, exchange(question(max_tokens=100_000))) == pytest.approx(
        cost(target, exchange(question())), rel=0.01
    )
    assert cost(Target("m", "a", "m"), sent) == math.inf


def test_an_image_is_not_counted_by_its_bytes(exchange):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    sent = exchange(question([part]))
    assert cost(Target("m", "a", "m", price=price(1, 0)), sent) < 0.001


def test_the_reason_is_the_cost(exchange):
    known, unknown = choices(known=(1, 1), unknown=None)
    strategy = Cost("v", None, History())
    assert strategy.why(known, exchange()).endswith(" USD")
    assert strategy.why(unknown, exchange()) == "its price is unknown"
