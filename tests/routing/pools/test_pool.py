"""A pool in one process: membership, the count of an exchange over its tries, and turns of waiting requests."""

import asyncio
import time

from extproc.routing.pools.endpoint import Report
from extproc.routing.pools.picker import Facts
from extproc.routing.pools.placing import wait_for_room
from extproc.routing.pools.pool import Placed, Pool
from extproc.routing.pools.queue import Ticket
from extproc.upstream.providers import PoolSettings, ProviderSettings
from extproc.words.tries import Try


def pool(**settings):
    provider = ProviderSettings(kind="vllm", base_url="http://a:8000/v1", pool=PoolSettings(**settings))
    made = Pool("llama", provider, clock=lambda: 100.0)
    made.update({f"10.0.0.{number}:8000": f"pod-{number}" for number in range(3)})
    return made


def place(made, tries=3):
    facts, placed = Facts(100.0), Placed("x1")
    placed.choices["llama"] = made.choose(facts, tries)
    placed.begin(made, facts)
    addresses = placed.header(["llama"] * tries + ["other"]).split(",")
    return placed, addresses


def tried(attempt, endpoint, outcome):
    return Try("x1", "llama", "m", attempt, 503, outcome, 0.1, None, "", endpoint=endpoint)


def in_flight(made):
    return {address: each.in_flight for address, each in made.endpoints.items() if each.in_flight}


def test_each_try_has_another_endpoint_and_the_exchange_counts_at_the_latest():
    made = pool()
    placed, addresses = place(made)
    assert len(set(addresses[:3])) == 3
    assert addresses[3] == ""
    assert in_flight(made) == {addresses[0]: 1}
    made.learn(tried(1, addresses[0], "connect"))
    assert in_flight(made) == {addresses[1]: 1}
    assert not made.endpoints[addresses[0]].ready(100.0), "an endpoint without a listener rests at once"
    made.learn(tried(2, "", "reset"))  # a try that got no connection has no address in Envoy's log
    assert in_flight(made) == {addresses[2]: 1}
    assert made.endpoints[addresses[1]].ready(100.0), "one reset may be the request's fault"
    assert placed.free() is made.endpoints[addresses[2]]
    assert placed.free() is None
    assert in_flight(made) == {}


def test_endpoints_that_stay_keep_what_is_known_of_them():
    made = pool()
    kept = made.endpoints["10.0.0.1:8000"]
    made.report(kept, Report(running=7))
    joined, left = made.update({"10.0.0.1:8000": "", "10.0.0.9:8000": ""})
    assert [each.address for each in joined] == ["10.0.0.9:8000"]
    assert [each.leaving for each in left] == [True, True]
    assert made.endpoints["10.0.0.1:8000"] is kept
    assert kept.report.running == 7


def test_waiting_requests_are_woken_one_for_each_endpoint_with_room():
    made = pool(saturated={"waiting": 1})
    for each in made.endpoints.values():
        made.report(each, Report(waiting=5.0))
    woken = []
    for number in range(4):
        made.queue.join(Ticket("a", 0, lambda _room, number=number: woken.append(number)))
    made.serve()
    assert woken == []
    first, second, _ = made.endpoints.values()
    made.report(first, Report(waiting=0.0))
    assert woken == [0]
    made.report(second, Report(waiting=0.0))
    assert woken == [0, 1], "the first endpoint's room is granted already"
    made.took_turn()
    made.serve()
    assert woken == [0, 1, 2]


def test_priorities_go_by_consumer_or_team_and_the_first_match_counts():
    made = pool(priority={"prod-*": 2, "team/batch": -1, "*": 1})
    assert [made.priority(*who) for who in (("prod-a", "batch"), ("x", "batch"), ("x", "y"))] == [2, -1, 1]
    assert pool().priority("x", "y") == 0


def test_new_settings_keep_endpoints_and_change_the_limit_of_the_queue():
    made = pool()
    settings = PoolSettings(max_queue=7, scorers={"prefix": 0})
    made.apply(ProviderSettings(kind="vllm", base_url="http://a:8000/v1", pool=settings))
    assert len(made.endpoints) == 3
    assert made.queue.most == 7
    facts = Facts(100.0)
    assert "prefix" not in made.picker.explain(made.choose(facts, 1)[0].endpoint, facts)


def held(made, now):
    facts = Facts(now, blocks=(1, 2, 3))
    made.choose(facts, 1)
    return [*facts.held]


def test_a_prompt_is_expected_in_a_cache_for_prefix_ttl_and_after_new_settings():
    made = pool(prefix_ttl="20s")
    endpoint = made.endpoints["10.0.0.1:8000"]
    made.begin(endpoint, Facts(100.0, blocks=(1, 2, 3)))
    assert held(made, 119.0) == [endpoint.address]
    assert held(made, 121.0) == []
    made.apply(ProviderSettings(kind="vllm", base_url="http://a:8000/v1", pool=PoolSettings(prefix_ttl="60s")))
    assert held(made, 121.0) == [endpoint.address]


async def test_a_turn_in_the_moment_of_the_timeout_is_taken_and_not_lost():
    one = pool(saturated={"requests": 1})
    endpoint, *others = one.endpoints.values()
    for each in (endpoint, *others):
        each.began()
    waiting = asyncio.create_task(wait_for_room(one, "a", 0, 0.002))
    for _ in range(3):
        await asyncio.sleep(0)

    def leaves():
        endpoint.ended()
        one.serve()

    asyncio.get_running_loop().call_later(0.001, leaves)
    time.sleep(0.01)  # both are due at the same turn of the loop
    assert await waiting
    one.took_turn()
    assert one.rooms == 1
    assert await wait_for_room(one, "a", 0, 0.01), "no turn was lost"
