"""Each scorer alone, with plain values."""

import pytest

from extproc.routing.pools.endpoint import Endpoint, Report
from extproc.routing.pools.picker import Facts, Picker, known_scorers
from extproc.upstream.providers._pool import WEIGHTS

NOW = 1000.0


def test_every_scorer_has_a_usual_weight_and_gives_zero_to_one():
    assert set(known_scorers()) == set(WEIGHTS)
    busy = Endpoint("a:1", report=Report(9, 50, 1.2), in_flight=70, first_byte=40.0)
    for scorer in known_scorers().values():
        for each in (busy, Endpoint("b:1")):
            assert 0 <= scorer.score(each, Facts(NOW)) <= 1
            assert scorer.why(each, Facts(NOW))


@pytest.mark.parametrize(
    ("scorer", "good", "bad"),
    [
        ("queue", {"report": Report(waiting=0)}, {"report": Report(waiting=3)}),
        ("running", {"report": Report(running=2)}, {"report": Report(running=8)}),
        ("running", {"in_flight": 1}, {"in_flight": 9}),
        ("kv_cache", {"report": Report(kv_cache=0.1)}, {"report": Report(kv_cache=0.9)}),
        ("adapter", {"report": Report(adapters=frozenset(["sql"]))}, {"report": Report(adapters=frozenset())}),
        ("session", {"address": "10.9.9.9:1"}, {}),
        ("first_byte", {"first_byte": 0.1}, {"first_byte": 5.0}),
    ],
)
def test_each_scorer_alone_decides_between_two_endpoints(scorer, good, bad):
    one, other = Endpoint(**{"address": "a:1", **good}), Endpoint(**{"address": "b:1", **bad})
    facts = Facts(NOW, adapter="sql", session="10.9.9.9:1")
    for order in ([one, other], [other, one]):
        assert [each.endpoint for each in Picker({scorer: 1.0}).choose(order, facts)] == [one, other]
