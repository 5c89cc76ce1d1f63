"""Budgets in USD: a reservation is never less than the cost, and a limit is never exceeded."""

import asyncio
import random
from base64 import b64encode
from dataclasses import replace
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.money.accounting.settle import spent, used
from extproc.money.budgets import Exact, Expected, tokenizer
from extproc.upstream.prices import NANO, bound, cost, price
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Target, Usage
from tests.spending import Spending

CHEAP = Target("cheap", "a", "cheap", 1000, price=price(1, 2))
DEAR = Target("dear", "b", "dear", 100, price=price(10, 50, cached_input=1, cache_write=12.5))
UNKNOWN = Target("unknown", "c", "unknown")
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}


World = partial(Spending, defaults={"unit": "usd", "window": "month"})


@pytest.fixture
def world(clocks):
    return lambda *budgets: World(clocks(), *budgets)


def served(exchange, target, usage=None, **report):
    exchange.route.forwarded, exchange.answer.status, exchange.answer.target = True, 200, target
    exchange.answer.report = Report(usage=usage, **report)
    return exchange


def with_id(exchange, id):
    exchange.id = id
    return exchange


SEEN = 8  # tokens of BODY


# --- reservations and charges


async def test_a_settle_that_fails_leaves_the_charge_to_the_end_of_the_lease(world, exchange, monkeypatch):
    here, sent = world({"limit": 1}), exchange(BODY, targets=(CHEAP,))
    await here.reserve(sent)
    assert set(here.leases) == {sent.id}
    monkeypatch.setattr("extproc.money.accounting.settle.used", lambda *_: 1 / 0)
    served(sent, CHEAP)
    await here.leases.turn()
    with pytest.raises(ZeroDivisionError):
        await here.settle(sent)
    assert set(here.leases) == set(), "nobody renews it for ever"
    held = (await here.level())[1]
    here.clock.now += 61
    await here.counters.expire()
    assert await here.level() == (held, 0)


@pytest.mark.parametrize("targets", [(CHEAP,), (DEAR,), (CHEAP, DEAR), (DEAR, CHEAP), (CHEAP, UNKNOWN)])
async def test_the_most_expensive_target_is_reserved_and_the_one_that_served_is_charged(world, exchange, targets):
    here, sent = world({"limit": 1}), exchange(BODY, targets=targets)
    await here.reserve(sent)
    known = [target for target in targets if target.price]
    assert await here.level() == (0, max(bound(target.price, len(sent.request.body), 50) for target in known))
    usage = Usage(20, 7, cached_tokens=5)
    await here.settle(served(sent, known[-1], usage))
    assert sent.money.cost == cost(known[-1].price, usage)
    assert await here.level() == (sent.money.cost, 0)


async def test_a_targets_own_ceiling_bounds_its_cost(world, exchange):
    here, sent = world({"limit": 1}), exchange(BODY | {"max_tokens": 5000}, targets=(CHEAP, DEAR))
    await here.reserve(sent)
    assert sent.money.reservation.outputs == (1000, 100)
    assert (await here.level())[1] == bound(DEAR.price, len(sent.request.body), 100)


async def test_a_budget_per_provider_reserves_the_cost_at_that_provider(world, exchange):
    here, sent = world({"limit": 1, "per": ["provider"]}), exchange(BODY, targets=(CHEAP, DEAR))
    await here.reserve(sent)
    assert (await here.level("b:provider=a"))[1] == bound(CHEAP.price, len(sent.request.body), 50)
    await here.settle(served(sent, DEAR, Usage(1, 1)))
    assert await here.level("b:provider=a") == (0, 0)
    assert await here.level("b:provider=b") == (60_000, 0)


def left(exchange):
    exchange.route.forwarded = True


def failed(exchange):
    exchange.route.forwarded, exchange.answer.status, exchange.answer.target = True, 500, exchange.route.targets[0]
    exchange.end(whole=True)


def unreadable(exchange):
    served(exchange, DEAR)
    exchange.answer.report = None


@pytest.mark.parametrize(
    ("end", "targets", "charged"),
    [
        (lambda _exchange: None, (CHEAP,), lambda _body: 0),
        (failed, (DEAR,), lambda _body: 0),
        (left, (CHEAP, DEAR), lambda body: bound(DEAR.price, body, 50)),
        (left, (UNKNOWN,), lambda _body: None),
        (unreadable, (CHEAP, DEAR), lambda _body: cost(DEAR.price, Usage(SEEN, 50))),
        (lambda sent: served(sent, UNKNOWN, Usage(7, 3)), (CHEAP, UNKNOWN), lambda _body: None),
    ],
)
async def test_each_ending_charges_its_cost(world, exchange, end, targets, charged):
    here, sent = world({"limit": 1}), exchange(BODY, targets=targets)
    await here.reserve(sent)
    end(sent)
    await here.settle(sent)
    assert sent.money.cost == charged(len(sent.request.body))
    assert await here.level() == (sent.money.cost or 0, 0)


async def test_without_budgets_the_cost_is_known(world, exchange):
    here, sent = world(), exchange(BODY, targets=(DEAR,))
    await here.reserve(sent)
    await here.settle(served(sent, DEAR, Usage(1, 1)))
    assert sent.money.cost == 60_000


async def test_counting_tokens_costs_nothing(world, exchange):
    """It counts as a request, but has no price."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    toll = Target("m", "a", "m", price=price(1, 1, per_request=5))
    sent = exchange(body, path="/v1/messages/count_tokens", targets=(toll,))
    here = world({"limit": 1}, {"name": "call", "limit": 0, "window": "call"})
    await here.reserve(sent)
    assert await here.level() == (0, 0)
    await here.settle(served(sent, toll, Usage(7, 3)))
    assert sent.money.cost == 0


# --- clients that disconnect before the usage is known


def random_text(letters, size=1500):
    return "".join(random.Random(7).choices(letters, k=size))


DENSE = {
    "base64": b64encode(random.Random(7).randbytes(1200)).decode(),
    "hex": random.Random(7).randbytes(800).hex(),
    "printable": random_text([chr(code) for code in range(33, 127)]),
    "punctuation": random_text("!@#$%^&*()_+{}|:<>?~`-=[];',./"),
    "letters": " ".join(random_text("abcdefghijklmnopqrstuvwxyz")),
    "capitals": random_text("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "numbers": "\n".join(f"{number * 7919 % 100_003},{number * 104_729 % 1_000_003}" for number in range(120)),
}
WIDE = {
    "chinese": random_text([chr(code) for code in range(0x4E00, 0x9FA5)]),
    "emoji": random_text([chr(code) for code in range(0x1F300, 0x1F6FF)]),
    "yi": random_text([chr(code) for code in range(0xA000, 0xA48C)]),
    "accents": random_text([chr(code) for code in range(0xC0, 0x180)]),
}
PROSE = "The quick brown fox jumps over the lazy dog, and then it sleeps for a while in the sun. " * 20


def left_in_mid_answer(exchange, text, target=CHEAP):
    sent = exchange(BODY | {"messages": [{"role": "user", "content": text}]}, targets=(target,))
    sent.request.body = msgspec.json.encode(sent.request.json)  # without escapes
    return sent


@pytest.mark.parametrize("name", DENSE)
async def test_a_client_that_disconnects_is_charged_for_dense_text_in_full(world, exchange, name):
    tokenizer.load().join()
    here, sent = world(), left_in_mid_answer(exchange, DENSE[name])
    await here.reserve(sent)
    await here.settle(served(sent, CHEAP, output_bytes=3, output_events=1))
    true = tokenizer.count([DENSE[name]])
    assert sent.money.usage.source == "estimated"
    assert 0.9 * true <= sent.money.usage.input_tokens <= min(len(sent.request.body), 3 * true)


@pytest.mark.parametrize("name", [*DENSE, *WIDE])
async def test_where_tokens_can_be_counted_exactly_they_are(clocks, exchange, name):
    tokenizer.load().join()
    text = (DENSE | WIDE)[name]
    known = replace(CHEAP, model="gpt-4o")
    here, sent = World(clocks()), left_in_mid_answer(exchange, text, known)
    await here.reserve(sent)
    await here.settle(served(sent, known, output_bytes=3, output_events=1))
    true = tokenizer.count([text]) + 7
    assert true - 2 <= sent.money.usage.input_tokens <= 1.02 * true


async def test_prose_costs_who_leaves_what_it_is(world, exchange):
    here, sent = world(), left_in_mid_answer(exchange, PROSE)
    await here.reserve(sent)
    await here.settle(served(sent, CHEAP, output_bytes=3, output_events=1))
    tokenizer.load().join()
    true = tokenizer.count([PROSE])
    assert 0.9 * true <= sent.money.usage.input_tokens <= 1.3 * true


# --- reported usage, and missing parts of it

PARTIAL = [
    ("no input", Usage(0, 40), {}, Usage(SEEN, 40, source="estimated")),
    ("no output, but text", Usage(20, 0, cached_tokens=5), {}, Usage(20, 10, cached_tokens=5, source="estimated")),
    ("no output, and no text", Usage(20, 0), {"output_bytes": 0, "output_events": 0}, Usage(20, 0)),
    ("nothing at all", Usage(0, 0), {}, Usage(SEEN, 10, source="estimated")),
    ("not at its end: what was seen", Usage(7, 1, source="estimated"), {}, Usage(7, 10, source="estimated")),
    ("not at its end: what was told", Usage(7, 40, source="estimated"), {}, Usage(7, 40, source="estimated")),
    ("not at its end, no input", Usage(0, 1, source="estimated"), {}, Usage(SEEN, 10, source="estimated")),
]


@pytest.mark.parametrize(
    ("told", "report", "charged"), [case[1:] for case in PARTIAL], ids=[case[0] for case in PARTIAL]
)
@pytest.mark.parametrize("translated", [False, True])
async def test_a_missing_count_is_estimated_and_the_others_are_kept(
    world, exchange, *, told, report, charged, translated
):
    here, sent = world(), exchange(BODY, targets=(CHEAP,))
    await here.reserve(sent)
    report = {"output_bytes": 30, "output_events": 2} | report
    served(sent, CHEAP, None if translated else replace(told), **report).end(whole=told.source == "provider")
    if translated:
        sent.answer.report.told_usage = replace(told)
    await here.settle(sent)
    assert sent.money.usage == charged
    assert sent.answer.report.usage_refused == (told.source == "provider" != charged.source)


async def test_the_lease_is_kept_while_text_is_counted(world, exchange):
    here, sent = world(), left_in_mid_answer(exchange, PROSE)
    await here.reserve(sent)
    served(sent, CHEAP, output_bytes=3, output_events=1)
    held = []

    class Slow(Exact):
        async def input_passed(self, exchange):
            held.append(set(here.leases))
            return await super().input_passed(exchange)

    here.settles_with(exact=Slow({}))
    here.leases.add(sent)
    await here.settle(sent)
    assert (held, list(here.leases)) == ([{sent.id}], [])


@pytest.mark.parametrize("text", [PROSE * 100, "".join(WIDE.values()) * 10], ids=["prose", "wide"])
async def test_a_crowd_that_leaves_at_once_is_judged_by_less_of_its_text(clocks, exchange, text):
    known, here, exact = replace(CHEAP, model="gpt-4o", max_output_tokens=None), World(clocks()), Exact({})
    here.settles_with(exact=exact)
    crowd = []
    for number in range(60):
        sent = with_id(left_in_mid_answer(exchange, text, known), f"{number}")
        sent.request.json.pop("max_tokens")
        sent.request.ask.max_output_tokens = None
        await here.reserve(sent)
        crowd.append(served(sent, known))
        sent.answer.report.add_text(text)
    await asyncio.gather(*map(here.settle, crowd))
    true = tokenizer.about(text)
    assert all(0.8 * true <= sent.money.usage.output_tokens <= 1.4 * true for sent in crowd)
    assert all(0.8 * true <= sent.money.usage.input_tokens <= 1.4 * true for sent in crowd)
    assert len({sent.money.usage.output_tokens for sent in crowd}) > 10, "by pieces, which chance chose"


async def test_a_reported_input_is_kept_when_the_client_disconnects(clocks, exchange):
    """The reported input may be cached, which costs less."""
    tokenizer.load().join()
    here, sent = World(clocks()), left_in_mid_answer(exchange, PROSE)
    here.settles_with(exact=Exact({}))
    await here.reserve(sent)
    told = Usage(20, 1, cached_tokens=5, source="estimated")
    await here.settle(served(sent, CHEAP, told, output_bytes=30, output_events=2))
    assert sent.money.usage == Usage(20, 10, cached_tokens=5, source="estimated")


async def test_a_file_without_reported_tokens_is_not_charged_as_the_whole_context(world, exchange):
    """OpenRouter reports videos as no input. The text of the request was read all the same."""
    video = {"type": "video_url", "video_url": {"url": "https://x/y.webm"}}
    body = BODY | {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, video]}]}
    here, sent = world(), exchange(body, targets=(replace(CHEAP, context=1_000_000),))
    await here.reserve(sent)
    assert sent.money.reservation.input_tokens == 1_000_000
    served(sent, sent.route.targets[0], Usage(0, 180), output_bytes=500, output_events=1).end(whole=True)
    await here.settle(sent)
    assert sent.money.usage.output_tokens == 180
    assert SEEN <= sent.money.usage.input_tokens <= len(sent.request.body)


# --- refusals


@pytest.mark.parametrize(
    ("window", "resets"),
    [("minute", "60 s"), ("hour", "s."), ("week", "days"), ("month", "days"), ("quarter", "days"), ("total", "")],
)
async def test_an_exhausted_usd_budget_is_a_402_with_its_name_and_amounts(world, exchange, window, resets):
    here = world({"limit": "0.50", "window": window})
    sent = exchange(BODY | {"max_tokens": 100_000}, targets=(Target("m", "a", "m", price=price(0, 10)),))
    with pytest.raises(Refusal) as refused:
        await here.reserve(sent)
    message, per = refused.value.message, "" if window == "total" else f" per {window}"
    assert (refused.value.kind.status, refused.value.kind.code) == (402, "budget_exceeded")
    assert f"'b' of 0.5 USD{per} has 0.5 USD left; this request may need 1 USD." in message
    assert resets in message
    assert ("resets" in message) == (window != "total")
    assert refused.value.headers == {}
    assert here.counted == [("b", "denied")]


async def test_months_and_quarters_follow_the_calendar(world, exchange):
    here = world({"limit": 1}, {"name": "q", "limit": 1, "window": "quarter"})
    sent = exchange(BODY, targets=(CHEAP,))
    await here.reserve(sent)
    assert (await here.level("b", -1))[1] == (await here.level("q", -3))[1] > 0


@pytest.mark.parametrize(("unit", "limit"), [("usd", "0.000099"), ("tokens", 49), ("output_tokens", 49)])
@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_request_above_the_limit_per_call_is_refused(world, exchange, unit, limit, mode):
    here = world({"unit": unit, "limit": limit, "window": "call", "mode": mode})
    sent = exchange(BODY, targets=(CHEAP,))
    if mode == "shadow":
        await here.reserve(sent)
        assert here.counted == [("b", "would_deny")]
        return
    with pytest.raises(Refusal) as refused:
        await here.reserve(sent)
    assert (refused.value.kind.status, refused.value.kind.code) == (402, "budget_exceeded")
    assert "'b' allows" in refused.value.message
    assert here.counted == [("b", "denied")]


async def test_a_limit_per_call_keeps_no_count(world, exchange):
    here, sent = world({"limit": 1, "window": "call"}), exchange(BODY, targets=(CHEAP,))
    await here.reserve(sent)
    assert not sent.money.reservation.held
    assert await here.level(window=0) == (0, 0)


# --- alerts


@pytest.mark.parametrize(
    ("spent_before", "alert"),
    [(0, ""), (74, ""), (75, "b; used=0.75"), (91, "b; used=0.91"), (99, "b; used=0.99")],
)
async def test_an_answer_announces_a_budget_that_runs_out(world, exchange, spent_before, alert):
    toll = Target("m", "a", "m", price=price(0, 0, per_request=0.01))
    here = world({"limit": 1, "alert_at": [0.9, 0.75]})
    for number in range(spent_before):
        sent = with_id(exchange(BODY, targets=(toll,)), f"{number}")
        await here.reserve(sent)
        await here.settle(served(sent, toll, Usage(1, 1)))
    sent = with_id(exchange(BODY, targets=(toll,)), "last")
    await here.reserve(sent)
    assert sent.money.alert == alert
    assert here.used["b"]() == spent_before / 100


async def test_an_answer_announces_the_fullest_budget(world, exchange):
    toll = Target("m", "a", "m", price=price(0, 0, per_request=1))
    here = world(*({"name": f"b{limit}", "limit": limit, "alert_at": [0.1]} for limit in (5, 2, 3)))
    for number in range(2):
        sent = with_id(exchange(BODY, targets=(toll,)), f"{number}")
        await here.reserve(sent)
        await here.settle(served(sent, toll, Usage(1, 1)))
    assert sent.money.alert == "b2; used=0.50"


async def test_the_used_share_is_that_of_the_fullest_count_and_restarts_with_its_window(world, exchange):
    here, seen = world({"unit": "requests", "limit": 4, "window": "minute", "per": ["label.run"]}), []
    for number, run in enumerate("aab"):
        sent = with_id(exchange(BODY, targets=(CHEAP,), labels={"run": run}), f"{number}")
        await here.reserve(sent)
        await here.settle(served(sent, CHEAP, Usage(1, 1)))
        seen.append(here.used["b"]())
    assert seen == [0, 0.25, 0.25]
    here.clock.now += 60
    assert here.used["b"]() == 0
    await here.reserve(with_id(exchange(BODY, targets=(CHEAP,)), "later"))
    assert here.used["b"]() == 0


# --- properties

STEPS = st.tuples(
    st.integers(1, 200),
    st.integers(0, 200),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from([CHEAP, DEAR]),
    st.sampled_from(["used", "left", "failed", "counted"]),
)


@given(st.lists(STEPS, max_size=20))
async def test_the_limit_holds_and_every_charge_was_reserved(exchange, clocks, steps):
    here, limit, charged = World(clocks(), {"limit": "0.02"}), NANO // 50, 0
    for number, (asked, made, cached, written, target, end) in enumerate(steps):
        sent = with_id(exchange(BODY | {"max_tokens": asked}, targets=(CHEAP, DEAR)), f"{number}")
        try:
            await here.reserve(sent)
        except Refusal:
            assert await here.level() == (charged, 0)
            continue
        settled, held = await here.level()
        assert settled == charged
        assert settled + held <= limit
        if end == "used":
            output = min(made, asked, target.max_output_tokens)
            served(sent, target, Usage(len(sent.request.body), output, cached, 0, written))
        elif end == "left":
            left(sent)
        elif end == "failed":
            failed(sent)
        else:
            unreadable(sent)
        await here.settle(sent)
        assert sent.money.cost <= held
        charged += sent.money.cost
        assert await here.level() == (charged, 0)


async def test_an_exchange_without_a_reservation_costs_nothing(exchange):
    sent = exchange(BODY, targets=(DEAR,))
    sent.end()
    sent.money.usage = await used(sent, Exact({}), Expected())
    assert (sent.money.usage.source, spent(sent)) == ("none", 0)
