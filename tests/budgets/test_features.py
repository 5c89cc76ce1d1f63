"""Budgets beyond plain counting: concurrency, labels, downgrade, approval, expected output, growing reservations,
rates, alerts.
"""

import asyncio
import contextlib
import math
import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.money.budgets import (
    BudgetSettings,
    Exact,
    Expected,
    Grants,
    ReserveTools,
    compile_budget,
    counter,
    read_scope,
)
from extproc.money.budgets.scopes import Scopes
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from extproc.upstream.prices import price
from extproc.words.chain import Chain, RetrySettings
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, Target, Usage
from tests.spending import Spending

DEAR = Target("dear", "a", "dear", 1000, price=price(10, 50))
CHEAP = Target("cheap", "b", "cheap", 1000, price=price(1, 2))
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}


World = partial(Spending, defaults={"unit": "requests", "limit": 10, "window": "minute"})


@pytest.fixture
def world(clocks):
    return lambda *budgets, **more: World(clocks(), *budgets, **more)


@pytest.fixture
def asks(exchange):
    """Exchanges with ids of their own."""
    made = iter(range(10**6))

    def make(body=None, **more):
        found = exchange(BODY if body is None else body, **more)
        found.id = f"id-{next(made)}"
        return found

    return make


def served(exchange, usage=None, target=None, **report):
    exchange.route.forwarded, exchange.answer.status = True, 200
    exchange.answer.target = target or exchange.route.targets[0]
    exchange.answer.report = Report(usage=usage, **report)
    return exchange


async def refusal_of(stage, exchange):
    with pytest.raises(Refusal) as caught:
        await stage(exchange)
    return caught.value


# --- clients that disconnect


async def test_a_client_that_disconnects_is_charged_for_the_thinking_it_asked_for(world, asks):
    here = world({"unit": "output_tokens", "limit": 10**6})
    for complete, charged in ((True, 10), (False, 60)):
        await here.reserve(sent := asks())
        sent.request.ask.thinking = 50
        served(sent, output_bytes=30, output_events=3).end(whole=complete)
        await here.settle(sent)
        assert sent.money.charges == {"b": charged}


# --- concurrency


async def test_concurrent_requests_are_limited_and_free_their_slot_at_the_end(world, asks):
    here = world({"unit": "concurrency", "limit": 2, "window": None, "per": ["consumer"]})
    first, second, third = asks(), asks(), asks()
    await here.reserve(first)
    await here.reserve(second)
    refusal = await refusal_of(here.reserve, third)
    assert (refusal.kind.code, refusal.headers) == ("rate_limited", {"retry-after": "1"})
    assert "2 requests at once" in refusal.message
    assert await here.level("b:consumer=alice", 0) == (0, 2)
    await here.settle(served(first, Usage(5, 5)))
    assert first.money.charges == {}, "a place is given back, not charged"
    await here.reserve(asks())
    assert await here.level("b:consumer=alice", 0) == (0, 2)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"unit": "concurrency", "window": "minute"}, "concurrency has no window"),
        ({"unit": "tokens", "window": None}, "give a window"),
        ({"unit": "requests", "window": "call"}, "limits nothing"),
        ({"on_exceed": "downgrade"}, "need each other"),
        ({"downgrade_to": "m"}, "need each other"),
        ({"on_exceed": "ask", "unit": "tokens", "window": "call"}, "needs a count over time"),
        ({"on_exceed": "ask", "unit": "concurrency", "window": None}, "needs a count over time"),
        ({"alert_webhook": "https://a.example/x"}, "needs alert_at"),
        ({"alert_webhook": "ftp://a.example/x", "alert_at": [0.5]}, "must be https://host/path"),
        ({"alert_webhook": "https://user:secret@a.example/x", "alert_at": [0.5]}, "without a user or password"),
        ({"reserve": "expected"}, "needs a unit of tokens or USD"),
        ({"per": ["label.a:b"]}, "cannot have these characters"),
        ({"per": ["consumer", "label.a=b"]}, "cannot have these characters"),
        ({"max_scopes": 0}, "greater than or equal to 1"),
        ({"idle_ttl": "0s"}, "greater than 0"),
        ({"per": ["labels.x"]}, "is not one of consumer, team, key"),
        ({"per": ["label.a=b"]}, "cannot have these characters"),
        ({"alert_webhook": "https://a.example:99999/x", "alert_at": [0.5]}, "ort out of range"),
        ({"match": {"colour": "red"}}, "is not one of consumer, team, key"),
    ],
)
def test_contradictory_settings_are_refused(settings, error):
    with pytest.raises(ValueError, match=error) as caught:
        BudgetSettings(**{"name": "b", "unit": "requests", "limit": 1, "window": "minute", **settings})
    assert "secret@" not in str(caught.value.errors()[0]["msg"])


# --- counts by consumer, key and label


async def test_budgets_match_and_count_by_key_and_label(world, asks):
    here = world({"match": {"label.project": "x*"}, "per": ["key", "label.run"]})
    inside, outside = asks(labels={"project": "x1", "run": "7"}), asks(labels={"project": "y"})
    inside.money.key = "ci#0"
    await here.reserve(inside)
    await here.reserve(outside)
    assert [claim.scope for claim in inside.money.reservation.claims] == ["b:key=ci%230:label.run=7"]
    assert not outside.money.reservation.claims


async def test_labels_that_look_alike_have_separate_counts(world, asks):
    here = world({"per": ["label.a", "label.b"]})
    for labels in ({"a": "1:label.b=2", "b": ""}, {"a": "1", "b": "2"}, {"a": "1%3Alabel.b=2", "b": ""}):
        await here.reserve(asks(labels=labels))
    scopes = await here.counters.fullest("b", 60)
    assert [level.reserved for _, level in scopes] == [1, 1, 1]


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(max_size=20)))
def test_the_name_of_a_count_can_be_parsed(exchange, labels):
    settings = BudgetSettings(
        name="b", unit="requests", limit=1, window="minute", per=["label.a", "label.b", "label.c", "model"]
    )
    scope = compile_budget(settings).scope(exchange(BODY, labels=labels), DEAR)
    fields = {f"label.{name}": labels.get(name, "") for name in "abc"} | {"model": "dear"}
    assert read_scope(scope) == ("b", fields)
    assert scope.isascii()


async def test_requests_without_a_label_share_a_count_or_are_refused(world, asks):
    here = world({"per": ["label.run"]}, {"name": "strict", "per": ["label.run"], "missing": "refuse"})
    refusal = await refusal_of(here.reserve, sent := asks())
    assert (refusal.kind.code, sent.money.denied_by) == ("invalid_request", "strict")
    assert "the label 'run'" in refusal.message
    shared = world({"per": ["label.run"], "limit": 1})
    await shared.reserve(asks())
    assert (await refusal_of(shared.reserve, asks(labels={"run": ""}))).kind.code == "rate_limited"
    await shared.reserve(asks(labels={"run": "1"}))
    shadow = world({"per": ["label.run"], "missing": "refuse", "mode": "shadow"})
    await shadow.reserve(asks())
    assert await shadow.level("b:label.run=") == (0, 1)


async def test_beyond_max_scopes_new_labels_share_one_count(world, asks):
    here = world({"per": ["label.run"], "max_scopes": 3, "limit": 2, "window": "total"})
    for run in range(3):
        await here.reserve(asks(labels={"run": str(run)}))
    extra = [asks(labels={"run": f"new-{run}"}) for run in range(3)]
    await here.reserve(extra[0])
    await here.reserve(extra[1])
    assert (await refusal_of(here.reserve, extra[2])).kind.code == "budget_exceeded"
    assert await here.level("b:label.run=*", 0) == (0, 2)
    await here.reserve(asks(labels={"run": "0"}))  # an earlier label keeps its own count
    await here.settle(served(extra[0], Usage(1, 1)))
    assert extra[0].money.charges == {"b:label.run=*": 1}
    assert await here.level("b:label.run=*", 0) == (1, 1)


async def test_a_consumer_that_invents_labels_fills_only_its_own_counts(world, asks):
    fields = {"per": ["consumer", "label.run"], "max_scopes": 3, "limit": 2, "window": "total"}
    here = world(fields)

    async def ask(who, run):
        sent = asks(labels={"run": run})
        sent.consumer = Consumer(who)
        await here.reserve(sent)
        return sent

    for number in range(5):
        last = await ask("mallory", str(number))
    with pytest.raises(Refusal):
        await ask("mallory", "more")
    await here.settle(served(last, Usage(1, 1)))
    assert last.money.charges == {"b:consumer=mallory:label.run=*": 1}
    for run in ("x", "y"):
        await ask("alice", run)
    assert await here.level("b:consumer=alice:label.run=*", 0) == (0, 2)
    assert await here.level("b:consumer=mallory:label.run=*", 0) == (1, 1)
    for number in range(3):  # more consumers than counts: the fourth and later ones share
        with contextlib.suppress(Refusal):
            await ask(f"c{number}", "x")
    assert await here.level("b:consumer=*:label.run=*", 0) == (0, 2)


async def test_a_client_cannot_name_the_shared_count(world, asks):
    here = world({"per": ["label.run"]})
    await here.reserve(asks(labels={"run": "*"}))
    assert await here.level("b:label.run=%2A") == (0, 1)


def test_idle_counts_free_their_place(clocks):
    clock = clocks()
    settings = BudgetSettings(
        name="b", unit="requests", limit=1, window="total", per=["label.x"], max_scopes=2, idle_ttl="1h"
    )
    scopes = Scopes(compile_budget(settings), clock)
    assert [scopes.admit(name) for name in ("b:a", "b:b", "b:c")] == ["b:a", "b:b", "b:label.x=*"]
    clock.now += 3000
    scopes.admit("b:a")
    clock.now += 1000
    assert scopes.admit("b:c") == "b:c"
    assert scopes.admit("b:b") == "b:label.x=*"


# --- rate headers


async def test_answers_state_the_remainder_of_the_tightest_rates(world, asks):
    here = world(
        {"name": "loose", "limit": 100},
        {"name": "tight", "limit": 5, "per": ["consumer"]},
        {"name": "tpm", "unit": "tokens", "limit": 10_000},
        {"name": "day", "limit": 3, "window": "day"},
        {"name": "seen", "limit": 1, "mode": "shadow"},
        {"name": "money", "unit": "usd", "limit": 1},
    )
    sent = asks()
    await here.reserve(sent)
    here.clock.now += 15
    await here.reserve(again := asks())
    held = sent.money.reservation.input_tokens + 100
    assert sent.money.rate == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "60s",
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": str(10_000 - held),
        "x-ratelimit-reset-tokens": "60s",
    }
    assert again.money.rate["x-ratelimit-remaining-requests"] == "3"
    assert again.money.rate["x-ratelimit-reset-requests"] == "45s"


async def test_a_grant_adds_to_the_remainder(world, asks):
    here = world({"limit": 1, "per": ["consumer"], "on_exceed": "ask"})
    await here.grants.add("b", "b:consumer=alice", 4, "requests", None)
    await here.reserve(sent := asks())
    assert (sent.money.rate["x-ratelimit-limit-requests"], sent.money.rate["x-ratelimit-remaining-requests"]) == (
        "5",
        "4",
    )


async def test_budgets_with_long_windows_are_not_in_the_rate_headers(world, asks):
    here = world({"window": "day"}, {"name": "c", "unit": "concurrency", "window": None})
    await here.reserve(sent := asks())
    assert sent.money.rate == {}


# --- downgrade


def to_cheap(exchange, model):
    assert model == "cheap"
    exchange.route.targets = (CHEAP,)
    exchange.route.chain = Chain((CHEAP,), RetrySettings(), "cheap")


MONEY = {"unit": "usd", "limit": 0.01, "window": "month", "on_exceed": "downgrade", "downgrade_to": "cheap"}


async def test_a_request_beyond_the_budget_goes_to_the_cheaper_model(world, asks):
    here = world(MONEY, reroute=to_cheap)
    fits, does_not, neither = (asks({**BODY, "max_tokens": n}, targets=(DEAR,)) for n in (100, 150, 1000))
    await here.reserve(fits)
    assert (fits.route.targets, fits.money.downgraded) == ((DEAR,), "")
    await here.reserve(does_not)
    assert (does_not.route.targets, does_not.money.downgraded) == ((CHEAP,), "b")
    assert here.counted == [("b", "downgraded")]
    await here.reserve(asks({**BODY, "max_tokens": 1000}, targets=(CHEAP,)))
    refusal = await refusal_of(here.reserve, neither)
    assert (refusal.kind.code, neither.money.denied_by) == ("budget_exceeded", "b")
    settled, reserved = await here.level(window=-1)
    assert settled + reserved <= 10_000_000


async def test_a_request_above_the_limit_per_call_is_downgraded(world, asks):
    here = world({**MONEY, "window": "call", "limit": 0.001}, reroute=to_cheap)
    await here.reserve(sent := asks(targets=(DEAR,)))
    assert (sent.route.targets, sent.money.downgraded) == ((CHEAP,), "b")


async def test_a_downgrade_that_is_not_possible_is_a_refusal(world, asks):
    def forbidden(_exchange, _model):
        from extproc.words.errors import MODEL_NOT_ALLOWED

        raise Refusal(MODEL_NOT_ALLOWED, "no")

    here = world({**MONEY, "limit": 0}, reroute=forbidden)
    assert (await refusal_of(here.reserve, asks(targets=(DEAR,)))).kind.code == "budget_exceeded"
    assert here.counted == [("b", "denied")]


async def test_two_budgets_that_downgrade_to_each_other_end_in_a_refusal(world, asks):
    def swap(exchange, model):
        exchange.route.targets = (DEAR if model == "dear" else CHEAP,)
        exchange.route.chain = Chain(exchange.route.targets, RetrySettings(), model)

    one = {**MONEY, "limit": 0, "match": {"model": "dear"}}
    other = {**MONEY, "name": "c", "limit": 0, "match": {"model": "cheap"}, "downgrade_to": "dear"}
    here = world(one, other, reroute=swap)
    assert (await refusal_of(here.reserve, asks(targets=(DEAR,)))).kind.code == "budget_exceeded"
    assert await here.level("b", -1) == (0, 0)
    assert await here.level("c", -1) == (0, 0)


# --- approval


async def test_a_grant_raises_one_count_until_its_window_ends(world, asks):
    here = world({"limit": 1, "window": "day", "per": ["consumer"], "on_exceed": "ask"})
    await here.reserve(asks())
    refusal = await refusal_of(here.reserve, asks())
    assert (refusal.kind.status, refusal.kind.code) == (402, "approval_required")
    grant = await here.grants.add("b", "b:consumer=alice", 1, "requests", here.clock.now + 100)
    await here.reserve(asks())
    assert (await refusal_of(here.reserve, asks())).kind.code == "approval_required"
    await here.reserve(asks(consumer=Consumer("bob", "red")))
    assert (await refusal_of(here.reserve, asks(consumer=Consumer("bob", "red")))).kind.code == "approval_required"
    assert await here.grants.revoke(grant.id)
    assert not await here.grants.revoke(grant.id)
    assert here.grants.room("b:consumer=alice", "requests") == 0


async def test_grants_reach_every_process_and_expire(clocks):
    clock = clocks()
    counters = MemoryCounters(clock)
    here, there = Grants(counters, clock), Grants(counters, clock)
    first = await here.add("b", "b:x=1", 5, "tokens", clock.now + 100)
    await there.refresh()
    second = await there.add("b", "b:x=1", 2, "tokens", clock.now + 50)
    await here.refresh()
    assert here.room("b:x=1", "tokens") == there.room("b:x=1", "tokens") == 7
    assert list(here.all()) == [second, first]
    clock.now += 60
    await here.refresh()
    assert here.room("b:x=1", "tokens") == 5
    clock.now += 60
    assert list(here.all()) == []
    await here.refresh()
    assert here.room("b:x=1", "tokens") == 0


# --- expected output


def test_the_expected_output_is_the_95th_percentile():
    expected = Expected()
    for output in range(19):
        expected.learn("a/m", output)
    assert expected.output("a/m") is None
    for output in range(19, 200):
        expected.learn("a/m", output)
    assert 185 <= expected.output("a/m") <= 195
    assert expected.output("b/m") is None


TOKENS = {"unit": "tokens", "limit": 2000, "reserve": "expected"}


async def test_the_expected_output_is_reserved_once_it_is_known(world, asks):
    here = world(TOKENS, {"name": "worst", "unit": "tokens", "limit": 10**6})
    long = {**BODY, "messages": [{"role": "user", "content": "x" * 900}], "max_tokens": 1000}
    await here.reserve(first := asks(long, targets=(DEAR,)))
    assert await here.level() == (0, first.money.reservation.input_tokens + 1000), "nobody knows what is usual"
    await here.settle(served(first, Usage(250, 10)))
    for _ in range(40):
        here.expected.learn(DEAR.deployment, 50)
    await here.reserve(sent := asks(long, targets=(DEAR,)))
    settled, reserved = await here.level()
    assert (settled, reserved) == (260, math.ceil(len(sent.request.body) / 3) + 50)
    assert await here.level("worst") == (260, sent.money.reservation.input_tokens + 1000)
    assert sent.money.reservation.enough < 50 * 8 + 600


async def test_an_answer_longer_than_expected_extends_its_reservation_until_the_budget_is_full(world, asks):
    here = world({**TOKENS, "limit": 700})
    for _ in range(40):
        here.expected.learn(DEAR.deployment, 50)
    body = {**BODY, "stream": True, "max_tokens": 1000}
    sent = asks(body, targets=(DEAR,))
    await here.reserve(sent)
    served(sent)
    enough = sent.money.reservation.enough
    assert await here.reserve.extend(sent) is None
    assert sent.money.reservation.enough > enough
    held = (await here.level())[1]
    assert held == sent.money.reservation.claims[0].amount <= 700
    refusal = None
    for _ in range(10):
        refusal = refusal or await here.reserve.extend(sent)
    assert (refusal.kind.code, sent.money.denied_by) == ("rate_limited", "b")
    settled, reserved = await here.level()
    assert settled + reserved <= 700
    await here.settle(sent)
    assert (await here.level())[1] == 0


async def test_an_answer_beyond_its_output_limit_needs_room_in_the_budget(world, asks):
    here = world({"unit": "tokens", "limit": 500})
    sent = asks({**BODY, "stream": True, "max_tokens": 100})
    await here.reserve(sent)
    served(sent)
    assert sent.money.reservation.enough >= 800, "whatever a token is, an honest answer is not cut"
    await here.reserve.extend(sent)
    assert await here.reserve.extend(sent) is not None
    settled, reserved = await here.level()
    assert settled + reserved <= 500


async def test_a_budget_of_requests_never_cuts_an_answer(world, asks):
    here = world({"limit": 1}, {"name": "in", "unit": "input_tokens", "limit": 1000})
    await here.reserve(sent := asks())
    assert sent.money.reservation.enough == math.inf


class NoMore(MemoryCounters):
    async def extend(self, id, holds):
        raise StoreError("down")


@pytest.mark.parametrize(("failure", "code"), [("deny", "store_unavailable"), ("allow", None)])
async def test_when_the_store_fails_an_answer_continues_only_if_the_budget_allows(world, asks, clocks, failure, code):
    here = world({"unit": "tokens", "limit": 5000, "store_failure": failure}, counters=NoMore(clocks()))
    await here.reserve(sent := asks({**BODY, "stream": True}))
    served(sent)
    refusal = await here.reserve.extend(sent)
    assert (refusal and refusal.kind.code) == code


async def test_an_answer_extends_only_the_counts_of_the_target_that_serves_it(world, asks):
    here = world({"unit": "tokens", "limit": 1000, "per": ["model"]})
    await here.reserve(sent := asks({**BODY, "stream": True}, targets=(DEAR, CHEAP)))
    await here.reserve(asks({**BODY, "max_tokens": 700}, targets=(DEAR,)))
    before = (await here.level("b:model=dear"))[1]
    assert await here.reserve.extend(served(sent, target=CHEAP)) is None
    assert (await here.level("b:model=dear"))[1] == before
    assert (await here.level("b:model=cheap"))[1] == sent.money.reservation.input_tokens + 100 + 256


# --- exact counts


class Counts:
    def __init__(self, tokens, fits=True):
        self.tokens, self._fits, self.asked = tokens, fits, 0

    def fits(self, _target):
        return self._fits

    async def count(self, _exchange):
        self.asked += 1
        return self.tokens


async def test_the_input_is_counted_exactly_only_when_its_byte_bound_does_not_fit(world, asks):
    exact = Counts(20)
    here = world({"unit": "tokens", "limit": 150}, tools=ReserveTools(exact=exact))
    await here.reserve(first := asks({**BODY, "max_tokens": 10}))
    assert exact.asked == 0
    assert await here.level() == (0, len(first.request.body) + 10)
    await here.reserve(second := asks({**BODY, "max_tokens": 10}))
    assert exact.asked == 1
    assert second.money.reservation.input_tokens == 20
    assert await here.level() == (0, len(first.request.body) + 10 + 30)


@pytest.mark.parametrize("exact", [Counts(20, fits=False), Counts(None), Counts(10**9)])
async def test_without_an_exact_count_the_byte_bound_decides(world, asks, exact):
    here = world({"unit": "tokens", "limit": 50}, tools=ReserveTools(exact=exact))
    assert (await refusal_of(here.reserve, asks())).kind.code == "request_exceeds_limit"


async def test_images_are_counted_for_the_model_that_serves_after_a_downgrade(world, asks):
    mini = Target("mini", "a", "gpt-4o-mini", 1000)

    def to_mini(exchange, _model):
        exchange.route.targets = (mini,)
        exchange.route.chain = Chain((mini,), RetrySettings(), "mini")

    budget = {"unit": "tokens", "limit": 110, "match": {"model": "dear"}, "on_exceed": "downgrade"}
    wide = {"name": "all", "unit": "tokens", "limit": 10**6}
    here = world({**budget, "downgrade_to": "mini"}, wide, tools=ReserveTools(exact=Counts(20)), reroute=to_mini)
    sent = asks(targets=(DEAR,))
    sent.request.ask.images, sent.request.ask.image_tokens = 1, 500
    await here.reserve(sent)
    assert sent.money.downgraded == "b"
    assert await here.level("all") == (0, 20 + 48_169 + 100)


async def test_an_abandoned_count_occupies_its_thread_until_it_ends(asks, monkeypatch):
    go, counted = threading.Event(), []

    def slow(*_):
        go.wait(10)
        counted.append(1)
        return 7

    monkeypatch.setattr(counter, "bound", slow)
    exact = Exact({"a": "openai"})
    left = [asyncio.ensure_future(exact.count(asks())) for _ in range(2)]
    await asyncio.sleep(0)
    for one in left:
        one.cancel()
    await asyncio.wait(left)
    assert await exact.count(asks()) is None, "both threads are still at it"
    go.set()
    while len(counted) < 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert await exact.count(asks()) == 7


# --- input given by reference


def unseen(exchange, *names):
    for name in names:
        exchange.request.ask.add_unseen(name)
    return exchange


async def test_input_given_by_reference_reserves_the_whole_context(world, asks):
    here = world({"unit": "tokens", "limit": 10**6})
    await here.reserve(unseen(asks(targets=(Target("m", "a", "m", context=128_000),)), "file_id"))
    assert (await here.level())[1] == 128_100


@pytest.mark.parametrize(
    ("budget", "refused"),
    [
        ({"unit": "tokens"}, True),
        ({"unit": "usd"}, True),
        ({"unit": "tokens", "mode": "shadow"}, False),
        ({"unit": "tokens", "reserve": "expected"}, False),
        ({"unit": "output_tokens"}, False),
        ({"unit": "requests"}, False),
    ],
)
async def test_unbounded_input_is_refused_where_the_worst_case_is_reserved(world, asks, budget, refused):
    here = world({"limit": 10**6, **budget})
    sent = unseen(asks(), "previous_response_id")
    if refused:
        refusal = await refusal_of(here.reserve, sent)
        assert (refusal.kind.code, refusal.param) == ("unbounded_input", "previous_response_id")
        assert "`context`" in refusal.message
    else:
        await here.reserve(sent)


async def test_a_client_that_disconnects_before_the_usage_is_charged_for_input_given_by_reference(world, asks):
    here = world({"unit": "tokens", "limit": 10**6})
    sent = unseen(asks(targets=(Target("m", "a", "m", context=128_000),)), "previous_response_id")
    await here.reserve(sent)
    sent.request.ask.hosted_tokens = 32_768
    await here.settle(served(sent, output_bytes=30, output_events=3))
    assert await here.level() == (32_768 + 8 + 10, 0), "not the model's context, which few files fill"
    assert (sent.money.usage.input_tokens, sent.money.usage.source) == (32_768 + 8, "estimated")


@pytest.mark.parametrize("size", [16_000, 250_000])
async def test_what_references_usually_come_to_is_known_after_the_first_answer(world, asks, size):
    here = world({"unit": "tokens", "limit": 10**7})
    target = Target("m", "a", "m", context=1_000_000)
    for usage in (Usage(size, 30), None):
        sent = unseen(asks(targets=(target,)), "file_data")
        sent.request.ask.hosted_tokens = 32_768
        await here.reserve(sent)
        served(sent, usage, output_bytes=30, output_events=3).end(whole=usage is not None)
        await here.settle(sent)
    assert sent.money.usage.source == "estimated"
    assert 0.99 * size <= sent.money.usage.input_tokens <= 1.01 * size


# --- alerts

HOOK = {"alert_at": [0.5, 0.9], "alert_webhook": "https://alerts.example/x"}


async def test_each_threshold_alerts_once_for_each_count_and_window(world, asks):
    here = world({**HOOK, "limit": 10, "per": ["consumer"]})
    for _ in range(10):
        await here.reserve(sent := asks())
        await here.settle(served(sent, Usage(1, 1)))
    assert [(alert.scope, alert.threshold) for alert in here.told] == [
        ("b:consumer=alice", 0.5),
        ("b:consumer=alice", 0.9),
    ]
    await refusal_of(here.reserve, asks())
    assert len(here.told) == 2
    here.clock.now += 60
    for _ in range(6):
        await here.reserve(sent := asks())
        await here.settle(served(sent, Usage(1, 1)))
    assert [alert.threshold for alert in here.told] == [0.5, 0.9, 0.5]


async def test_the_used_share_counts_what_refused_requests_found(world, asks):
    """The last charge before a refusal is seen by no granted request."""
    here = world(
        {"unit": "requests", "limit": 2, "window": "day"}, {"name": "c", "unit": "concurrency", "window": None}
    )
    for number in range(2):
        await here.reserve(sent := asks())
        assert here.used["b"]() == number / 2
        await here.settle(served(sent, Usage(1, 1)))
    await refusal_of(here.reserve, asks())
    assert (here.used["b"](), here.used["c"]()) == (1, 0)


async def test_the_used_share_has_no_amounts_that_are_only_held(world, asks):
    here = world({"unit": "tokens", "limit": 200})
    await here.reserve(asks())
    await refusal_of(here.reserve, asks())
    assert here.used["b"]() == 0


async def test_a_grant_lowers_the_used_share_at_once(world, asks):
    here = world({"limit": 2, "window": "day", "per": ["consumer"]})
    for consumer in ("alice", "alice", "bob"):
        await here.reserve(sent := asks(consumer=Consumer(consumer, "red")))
        await here.settle(served(sent, Usage(1, 1)))
    await refusal_of(here.reserve, asks())
    assert here.used["b"]() == 1
    await here.grants.add("b", "b:consumer=alice", 2, "requests", here.clock.now + 100)
    assert here.used["b"]() == 0.5


async def test_the_used_share_follows_a_bounded_number_of_counts(world, asks):
    here = world({"limit": 4, "window": "day", "per": ["label.run"]})
    for run in ["full"] * 4 + [f"run-{number}" for number in range(40)]:
        await here.reserve(sent := asks(labels={"run": run}))
        await here.settle(served(sent, Usage(1, 1)))
    assert here.used["b"]() == 0.75  # before the last request of "full" was charged
    [counts] = here.reserve._watch._counts.values()
    assert len(counts.charged) == 16


async def test_a_refusal_alerts_on_the_use_of_a_grant(world, asks):
    here = world({**HOOK, "unit": "tokens", "limit": 100})
    await here.grants.add("b", "b", 100, "tokens", None)
    await here.reserve(asks({**BODY, "max_tokens": 60}))
    await refusal_of(here.reserve, asks())
    assert [alert.threshold for alert in here.told] == [0.9]
    assert here.told[0].used > 1


async def test_a_refusal_alerts_on_the_amounts_reserved(world, asks):
    here = world({**HOOK, "unit": "tokens", "limit": 140})
    await refusal_of(here.reserve, asks())
    assert here.told == []
    await here.reserve(sent := asks({**BODY, "max_tokens": 50}))
    await refusal_of(here.reserve, asks({**BODY, "max_tokens": 50}))
    assert [alert.threshold for alert in here.told] == [0.9]
    assert sent.money.alert == ""
