"""The choice of an endpoint, with plain values."""

import random

import pytest

from extproc.routing.pools.endpoint import Endpoint, Full, Report
from extproc.routing.pools.picker import Facts, Picker, known_scorers
from extproc.routing.pools.prefixes import BLOCK, MOST_BLOCKS, PrefixIndex, chain
from extproc.upstream.providers._pool import WEIGHTS

NOW = 1000.0


def endpoints(count):
    return [Endpoint(f"10.0.0.{number}:8000") for number in range(count)]


def picker(**weights):
    return Picker(weights or dict(WEIGHTS), draw=random.Random(3).randrange)


def first(chosen):
    return chosen[0].endpoint


def test_a_prompt_goes_where_its_longest_prefix_was_served():
    pool, chooser = endpoints(50), picker()
    shared = chain(["x" * 4 * BLOCK])
    longer = chain(["x" * 4 * BLOCK + "y" * 4 * BLOCK])
    assert longer[:4] == shared
    chooser.index.note(shared, pool[7].address, NOW)
    chooser.index.note(longer, pool[9].address, NOW)
    facts = Facts(NOW, blocks=longer)
    assert first(chooser.choose(pool, facts)) is pool[9]
    assert "prefix 1.00 (8 of 8 blocks)" in chooser.explain(pool[9], facts)
    pool[9].report = Report(waiting=0, running=90, kv_cache=0.94)  # load outweighs half of the prefix
    pool[9].in_flight = 200
    assert first(chooser.choose(pool, Facts(NOW, blocks=longer))) is pool[7]


def test_prefixes_are_forgotten_by_age_by_number_and_with_a_restart():
    index = PrefixIndex(ttl=60, most=10)
    blocks = chain(["x" * 8 * BLOCK])
    index.note(blocks, "a:1", NOW)
    assert index.find(blocks, NOW + 59)["a:1"][0] == 8
    assert not index.find(blocks, NOW + 61)
    index.note(chain(["y" * 8 * BLOCK]), "b:1", NOW)
    assert len(index) == 10
    assert index.find(blocks, NOW)["a:1"][0] == 2, "the deepest blocks are forgotten first"
    restarted = Endpoint("a:1", report=Report())
    restarted.reports(Report(prefix_queries=500.0, prefix_hits=100.0), NOW)
    restarted.reports(Report(prefix_queries=0.0, prefix_hits=0.0), NOW + 1)
    facts = Facts(NOW, blocks, held={"a:1": (8, NOW)})
    assert known_scorers()["prefix"].score(restarted, facts) == 0.0


def test_expected_hits_that_the_server_does_not_count_lose_their_weight():
    each = Endpoint("a:1")
    each.reports(Report(prefix_queries=0.0, prefix_hits=0.0), NOW)
    for step in range(1, 20):
        each.began(25_000.0)
        each.reports(Report(prefix_queries=30_000.0 * step, prefix_hits=0.0), NOW + step)
    assert each.trust < 0.05
    for step in range(20, 60):
        each.began(25_000.0)
        each.reports(Report(prefix_queries=30_000.0 * step, prefix_hits=25_000.0 * (step - 19)), NOW + step)
    assert each.trust > 0.95


def test_the_adapter_and_the_salt_separate_prompts_and_a_chain_is_bounded():
    text = ["x" * 2 * BLOCK]
    assert len({tuple(chain(text)), tuple(chain(text, "sql")), tuple(chain(text, "sql", "tenant"))}) == 3
    assert len(chain(["x" * BLOCK * (MOST_BLOCKS + 9)])) == MOST_BLOCKS
    assert chain(["x" * (BLOCK - 1)]) == []


def test_equal_digests_meet_at_one_endpoint_in_every_process_and_the_others_stay_when_it_leaves():
    pool, digests = endpoints(20), random.Random(5).sample(range(1, 1 << 62), 60)

    def places(seed):
        chooser = Picker(dict(WEIGHTS), draw=random.Random(seed).randrange)
        return [first(chooser.choose(pool, Facts(NOW, digest=digest))) for digest in digests]

    before = places(1)
    assert before == places(2)
    assert len(set(before)) > 12
    gone = before[0]
    gone.leaving = True
    after = places(3)
    assert gone not in after
    assert all(old is new for old, new in zip(before, after, strict=True) if old is not gone)


def test_full_and_failing_endpoints_are_chosen_last_and_leaving_ones_never():
    pool, chooser = endpoints(40), picker()
    for each in pool[:38]:
        each.report = Report(waiting=20.0)
    pool[38].leaving = True
    assert first(chooser.choose(pool, Facts(NOW))) is pool[39]
    pool[39].failed(NOW, connected=False)
    assert first(chooser.choose(pool, Facts(NOW))) is not pool[39]
    assert {each.endpoint for each in chooser.choose(pool[38:], Facts(NOW))} == {pool[39]}
    assert first(chooser.choose(pool, Facts(NOW + 2))) is pool[39], "a rest ends"
    assert chooser.choose([pool[38]], Facts(NOW)) == ()


@pytest.mark.parametrize(
    ("state", "full"),
    [
        (Endpoint("a:1", report=Report(waiting=4.0)), True),
        (Endpoint("a:1", report=Report(waiting=3.0)), False),
        (Endpoint("a:1", report=Report(waiting=3.0), in_flight=1), True),
        (Endpoint("a:1", report=Report(kv_cache=0.95)), True),
        (Endpoint("a:1", in_flight=5), True),
        (Endpoint("a:1", in_flight=4), False),
    ],
)
def test_an_endpoint_is_full_at_each_of_the_limits(state, full):
    assert state.full(Full(waiting=4, requests=5)) is full


def test_a_choice_names_as_many_endpoints_as_tries_each_once():
    chosen = picker().choose(endpoints(100), Facts(NOW, digest=7), count=5)
    assert len({each.endpoint for each in chosen}) == len(chosen) == 5
