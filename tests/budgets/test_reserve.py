import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import output_limits
from extproc.money.accounting.settle import used
from extproc.money.budgets import LEASE, Exact, Expected, input_bound, unpack_facts
from extproc.routing.parameters import apply, compile_changes, compose
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from extproc.words.actions import LocalReply
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, Reservation, Target, Usage
from tests import talk
from tests.spending import Spending

World = partial(Spending, defaults={"unit": "tokens", "limit": 10**9, "window": "minute"})


@pytest.fixture
def budgets(clocks):
    clock = clocks()
    return lambda *settings, **more: World(clock, *settings, **more)


def question(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields


def served(exchange, *, target=None, status=200, usage=None, report=None):
    """The exchange after the provider has answered."""
    exchange.route.forwarded = True
    exchange.answer.status = status
    exchange.answer.target = target or exchange.route.targets[0]
    exchange.answer.report = report or (Report(usage=usage) if usage else None)
    return exchange


def with_id(exchange, id):
    exchange.id = id
    return exchange


# --- upper bounds

CEILING = (Target("m", "a", "m", max_output_tokens=1000),)
FREE = (Target("m", "a", "m"),)


@pytest.mark.parametrize(
    ("fields", "targets", "written", "bound"),
    [
        ({}, FREE, 4096, 4096),
        ({}, CEILING, 1000, 1000),
        ({"max_tokens": None}, CEILING, 1000, 1000),
        ({"max_tokens": 5}, CEILING, None, 5),
        ({"max_tokens": 5000}, CEILING, 1000, 1000),
        ({"max_tokens": 5000}, FREE, None, 5000),
        ({"max_completion_tokens": 1000}, CEILING, None, 1000),
        ({"max_completion_tokens": 1001}, CEILING, 1000, 1000),
        ({"n": 3, "max_tokens": 5}, CEILING, None, 15),
        ({"n": 128}, CEILING, 1000, 128_000),
    ],
)
async def test_the_output_is_bounded_and_the_limit_is_written_only_where_needed(
    budgets, exchange, *, fields, targets, written, bound
):
    world, sent = budgets({}), exchange(question(**fields), targets=targets)
    await world.reserve(sent)
    assert sent.money.output_limits == (written,)
    assert sent.request.edits == {}
    assert sent.money.reservation.output_tokens == bound
    assert await world.level("b") == (0, len(sent.request.body) + bound)


@pytest.mark.parametrize(
    ("fields", "written", "bound"),
    [
        ({}, (1000, 200, 4096), 4096),
        ({"max_tokens": 500}, (None, 200, None), 500),
        ({"max_tokens": 9000}, (1000, 200, None), 9000),
        ({"n": 2, "max_tokens": 100}, (None, None, None), 200),
    ],
)
async def test_each_target_has_its_own_ceiling_and_the_highest_is_reserved(budgets, exchange, fields, written, bound):
    """A small ceiling of one target does not cap the output of the others."""
    targets = (Target("m", "a", "m", 1000), Target("n", "b", "n", 200), Target("o", "c", "o"))
    sent = exchange(question(**fields), targets=targets)
    await budgets({}).reserve(sent)
    assert sent.money.output_limits == written
    assert sent.money.reservation.output_tokens == bound


def changed(ceiling=None, **changes):
    given = {"override": {}, "default": {}, "remove": ()} | changes
    return Target("m", "a", "m", ceiling, changes=compile_changes(**given))


@pytest.mark.parametrize("name", output_limits())
@pytest.mark.parametrize(
    ("client", "changes", "written", "bound"),
    [
        ({"max_tokens": 9}, {"override": 50}, None, 50),
        ({}, {"override": 50}, None, 50),
        ({"max_tokens": 9}, {"default": 50}, None, 9),
        ({}, {"default": 50}, None, 50),
        ({"max_tokens": 9}, {"remove": True}, 4096, 4096),
        ({}, {"remove": True}, 4096, 4096),
        ({"max_tokens": 9}, {"override": None}, 4096, 4096),
        ({"max_tokens": 9}, {"override": 50, "ceiling": 20}, 20, 20),
        ({"max_tokens": 90}, {"default": 50, "ceiling": 20}, 20, 20),
        ({"max_tokens": 9}, {"remove": True, "ceiling": 20}, 20, 20),
    ],
)
async def test_the_output_limit_after_a_targets_changes_is_reserved(
    budgets, exchange, *, name, client, changes, written, bound
):
    ceiling = changes.get("ceiling")
    given = {
        action: [name] if action == "remove" else {name: value}
        for action, value in changes.items()
        if action != "ceiling"
    }
    sent = exchange(question(**client), targets=(changed(ceiling, **given),))
    await budgets({}).reserve(sent)
    assert sent.money.output_limits == (written,)
    assert sent.money.reservation.output_tokens == bound


async def test_nested_changes_of_a_limit_under_two_names_are_reserved_as_sent(budgets, exchange):
    """The reservation and the provider's request come from the same changes."""
    outer, inner = changed(override={"max_tokens": 5}), changed(default={"max_completion_tokens": 700})
    target = Target("m", "a", "m", changes=compose(outer.changes, inner.changes))
    sent = exchange(question(), targets=(target,))
    await budgets({}).reserve(sent)
    assert sent.money.reservation.output_tokens == 5
    assert apply(target.changes, sent.request.json, sent.request.ask.output_field) == ({"max_completion_tokens": 5}, [])


async def test_a_budget_of_requests_leaves_the_body_unchanged(budgets, exchange):
    sent = exchange(question(), targets=CEILING)
    await budgets({"unit": "requests"}).reserve(sent)
    assert sent.money.output_limits == (None,)


async def test_a_models_ceiling_is_written_even_without_budgets(budgets, exchange):
    sent = exchange(question(max_tokens=5000), targets=CEILING)
    await budgets().reserve(sent)
    assert sent.money.output_limits == (1000,)


async def test_embeddings_have_no_output(budgets, exchange):
    world, sent = budgets({}), exchange({"model": "m", "input": "Hello"}, path="/v1/embeddings")
    await world.reserve(sent)
    assert sent.money.output_limits == ()
    assert await world.level("b") == (0, len(sent.request.body))


@given(st.text(max_size=200))
def test_the_input_bound_is_never_below_its_bytes(exchange, text):
    sent = exchange(question(messages=[{"role": "user", "content": text}]))
    assert input_bound(sent) >= len(text.encode())


def image(url):
    return question(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])


PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAGQAAABkCAIAAAAA" + "A" * 100_000  # 100 px a side


def test_an_image_in_the_body_is_not_counted_by_its_bytes(exchange):
    assert 1601 <= input_bound(exchange(image(PNG))) < 2000


def test_an_image_given_by_url_is_bounded(exchange):
    assert input_bound(exchange(image("https://example.com/cat.png"))) >= 39_200


def test_an_image_is_counted_for_the_most_expensive_target(exchange):
    both = [*FREE, Target("s", "openai", "gpt-4o-mini")]
    assert 48_169 <= input_bound(exchange(image(PNG), targets=both)) < 49_000


def test_tools_add_the_text_that_providers_write_about_them(exchange):
    plain, tools = exchange(question()), exchange(question(tools=[{"type": "function", "function": {"name": "f"}}]))
    assert input_bound(tools) - len(tools.request.body) == 1024 + input_bound(plain) - len(plain.request.body)


# --- units and scopes


@pytest.mark.parametrize(
    ("unit", "held", "charged"),
    [("requests", 1, 1), ("tokens", 5000, 10), ("input_tokens", 4000, 7), ("output_tokens", 1000, 3)],
)
async def test_every_unit_reserves_its_bound_and_is_charged_the_use(budgets, exchange, unit, held, charged):
    world, sent = budgets({"unit": unit}), exchange(question(), targets=CEILING)
    sent.request.body = b"x" * 4000
    await world.reserve(sent)
    assert await world.level("b") == (0, held)
    await world.settle(served(sent, usage=Usage(7, 3)))
    assert await world.level("b") == (charged, 0)


@pytest.mark.parametrize(
    ("per", "scope"),
    [
        ([], "b"),
        (["consumer"], "b:consumer=alice"),
        (["team", "model"], "b:team=red:model=m"),
        (["provider"], "b:provider=a"),
        (["label.run"], "b:label.run=7"),
        (["label.missing"], "b:label.missing="),
    ],
)
async def test_each_combination_of_per_has_its_own_count(budgets, exchange, per, scope):
    world = budgets({"unit": "requests", "per": per})
    await world.reserve(exchange(labels={"run": "7"}))
    assert await world.level(scope) == (0, 1)


@pytest.mark.parametrize(
    ("match", "applies"),
    [
        ({}, True),
        ({"consumer": "alice"}, True),
        ({"consumer": "al*"}, True),
        ({"consumer": "bob"}, False),
        ({"team": "red", "model": "m"}, True),
        ({"team": "red", "model": "n"}, False),
        ({"provider": "a"}, True),
        ({"provider": "b"}, False),
        ({"model": "*"}, True),
    ],
)
async def test_a_budget_applies_when_all_patterns_match(budgets, exchange, match, applies):
    world = budgets({"unit": "requests", "match": match})
    await world.reserve(exchange())
    assert await world.level("b") == (0, int(applies))


async def test_every_target_is_reserved_and_the_one_that_served_is_charged(budgets, exchange):
    targets = (Target("m", "a", "m"), Target("n", "b", "n"))
    world = budgets({"unit": "tokens", "per": ["provider"]})
    sent = exchange(question(max_tokens=10), targets=targets)
    await world.reserve(sent)
    held = (await world.level("b:provider=a"), await world.level("b:provider=b"))
    assert held == ((0, len(sent.request.body) + 10),) * 2
    await world.settle(served(sent, target=targets[1], usage=Usage(7, 3)))
    assert (await world.level("b:provider=a"), await world.level("b:provider=b")) == ((0, 0), (10, 0))


async def test_consumers_do_not_share_a_count_per_consumer(budgets, exchange):
    world = budgets({"unit": "requests", "limit": 1, "per": ["consumer"]})
    await world.reserve(with_id(exchange(consumer=Consumer("alice")), "1"))
    await world.reserve(with_id(exchange(consumer=Consumer("bob")), "2"))
    with pytest.raises(Refusal):
        await world.reserve(with_id(exchange(consumer=Consumer("alice")), "3"))


# --- refusals


@pytest.mark.parametrize(("window", "seconds"), [("minute", 60), ("hour", 3600)])
async def test_a_short_window_is_a_429_with_retry_after(budgets, exchange, window, seconds):
    world = budgets({"unit": "requests", "limit": 1, "window": window})
    await world.reserve(exchange())
    world.clock.now += 10.5
    with pytest.raises(Refusal) as refused:
        await world.reserve(with_id(exchange(), "2"))
    resets = int(refused.value.headers["retry-after"])
    assert refused.value.kind.status == 429
    assert 0 < resets <= seconds
    assert refused.value.headers == {
        "retry-after": str(resets),
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": f"{resets}s",
    }
    assert "'b'" in refused.value.message
    assert world.counted == [("b", "denied")]
    world.clock.now += resets
    await world.reserve(with_id(exchange(), "3"))


async def test_tools_of_the_provider_are_held_for_with_a_number_of_the_settings(world):
    """In place of the model's whole context, which would never fit."""
    text = "limits: {hosted_tools: 500}\nmodels: {m: {provider: o, context: 1000000}}\n"
    text += "providers: {o: {kind: openai, base_url: 'http://127.0.0.1:8090/v1'}}\n"
    gateway = world(text + "budgets: [{name: t, unit: input_tokens, limit: 100000, window: minute}]")
    stream = gateway.stream()
    body = {"model": "m", "input": "Hi", "tools": [{"type": "web_search"}]}
    await talk.asks("/v1/responses")(stream)
    assert not isinstance(await talk.sends(body)(stream), LocalReply)
    _, held = await gateway.level("t")
    assert held == len(json.dumps(body)) + 1024 + 500
    await stream.on_end()


@pytest.mark.parametrize("window", ["day", "total"])
async def test_a_long_window_is_a_402_that_clients_do_not_retry(budgets, exchange, window):
    world = budgets({"unit": "requests", "limit": 0, "window": window})
    with pytest.raises(Refusal) as refused:
        await world.reserve(exchange())
    assert (refused.value.kind.status, refused.value.kind.code) == (402, "budget_exceeded")
    assert "retry-after" not in refused.value.headers


async def test_the_refusal_states_the_remainder_and_whether_the_request_can_ever_fit(budgets, exchange):
    world = budgets({"unit": "output_tokens", "limit": 100})
    with pytest.raises(Refusal) as refused:
        await world.reserve(exchange(question(max_tokens=101)))
    assert refused.value.headers["x-ratelimit-remaining-tokens"] == "100"
    assert "can never fit" in refused.value.message
    assert (refused.value.kind.status, refused.value.kind.code) == (400, "request_exceeds_limit")
    assert "retry-after" not in refused.value.headers
    await world.reserve(exchange(question(max_tokens=100)))


async def test_a_request_reserves_in_all_budgets_or_in_none(budgets, exchange):
    world = budgets(
        {"name": "first", "unit": "requests"},
        {"name": "second", "unit": "requests", "limit": 0},
        {"name": "third", "unit": "requests"},
    )
    sent = exchange()
    with pytest.raises(Refusal) as refused:
        await world.reserve(sent)
    assert "'second'" in refused.value.message
    assert [await world.level(name) for name in ("first", "second", "third")] == [(0, 0)] * 3
    assert set(world.leases) == set()
    assert sent.money.reservation.levels == {"second": (0, 0, 1)}  # the level that refused is told, for the ledger
    await world.settle(sent)
    assert sent.money.usage.source == "none"


async def test_a_shadow_budget_counts_and_never_refuses(budgets, exchange):
    world = budgets({"unit": "requests", "limit": 1, "mode": "shadow"})
    for number in range(3):
        await world.reserve(sent := with_id(exchange(), f"{number}"))
        assert sent.money.reservation.levels == {"b": (number, 1, 1)}
    assert await world.level("b") == (0, 3)
    assert world.counted == [("b", "would_deny")] * 2


# --- store failures


class DownStore(MemoryCounters):
    """A store that fails in the methods a test names."""

    def __init__(self, clock, *fails):
        super().__init__(clock)
        self.fails = fails

    async def reserve(self, id, holds, lease, *, facts=b""):
        if "reserve" in self.fails:
            raise StoreError("down")
        return await super().reserve(id, holds, lease, facts=facts)

    async def settle(self, id, amounts, *, keep=False):
        if "settle" in self.fails:
            raise StoreError("down")
        return await super().settle(id, amounts, keep=keep)


async def test_while_the_store_is_down_requests_are_refused(budgets, exchange, clocks):
    world = budgets({"store_failure": "allow"}, {"name": "strict"}, counters=DownStore(clocks(), "reserve"))
    with pytest.raises(Refusal) as refused:
        await world.reserve(exchange())
    assert (refused.value.kind.status, refused.value.headers) == (503, {"retry-after": "1"})
    assert world.counted == [("b", "store_failure"), ("strict", "store_failure")]


@pytest.mark.parametrize("settings", [{"store_failure": "allow"}, {"mode": "shadow"}])
async def test_while_the_store_is_down_a_budget_may_allow_requests(budgets, exchange, clocks, settings):
    world, sent = budgets(settings, counters=DownStore(clocks(), "reserve", "settle")), exchange()
    await world.reserve(sent)
    await world.settle(served(sent, usage=Usage(7, 3)))
    assert sent.money.usage == Usage(7, 3)
    assert world.counted == [("b", "store_failure")]


async def test_a_settlement_that_fails_is_counted_and_its_lease_charges_later(budgets, exchange, clocks):
    clock = clocks()
    world = budgets({}, counters=DownStore(clock, "settle"))
    sent = exchange(question(max_tokens=10))
    await world.reserve(sent)
    await world.settle(served(sent, usage=Usage(7, 3)))
    assert world.counted == [("b", "settle_failed")]
    assert sent.money.usage == Usage(7, 3)
    assert set(world.leases) == set()
    clock.now += LEASE + 1
    assert len(await world.counters.expire()) == 1
    assert (await world.level("b"))[1] == 0


# --- endings of an exchange

BODY = question(max_tokens=100)
INPUT = len(json.dumps(BODY))
SEEN = 8  # tokens of BODY


def answered(*, complete=True, **report):
    def end(exchange):
        served(exchange, report=Report(**report)).end(whole=complete)

    return end


def refused_later(_exchange):
    """Refused by a stage after Reserve."""


def failed(status, target=None):
    def end(exchange):
        served(exchange, status=status)
        exchange.answer.attempts = 1
        if not target:
            exchange.answer.target, exchange.answer.unreached = None, "connect"
        exchange.end(whole=True)

    return end


def left_before_the_answer(exchange):
    exchange.route.forwarded = True


@pytest.mark.parametrize(
    ("end", "tokens", "requests", "source"),
    [
        (answered(usage=Usage(7, 3)), 10, 1, "provider"),
        (answered(usage=Usage(7, 300)), 107, 1, "disputed"),  # more than the request allows
        (answered(output_bytes=30, output_events=2), SEEN + 10, 1, "estimated"),
        (answered(output_bytes=0, output_events=0), SEEN, 1, "estimated"),
        (answered(output_bytes=3, output_events=9), SEEN + 9, 1, "estimated"),
        (answered(output_bytes=30, usage_refused=True), SEEN + 10, 1, "estimated"),
        (answered(output_bytes=30, complete=False), SEEN + 10, 1, "estimated"),
        (answered(complete=False), SEEN + 100, 1, "estimated"),  # before any text: the model may have been thinking
        (served, SEEN + 100, 1, "estimated"),
        (refused_later, 0, 0, "none"),
        (failed(500, target=True), 0, 1, "none"),
        (failed(429, target=True), 0, 1, "none"),
        (failed(503), 0, 0, "none"),
        (left_before_the_answer, INPUT + 100, 1, "estimated"),
    ],
)
async def test_each_ending_charges_its_tokens_and_requests(budgets, exchange, *, end, tokens, requests, source):
    world, sent = budgets({}, {"name": "r", "unit": "requests"}), exchange(BODY)
    await world.reserve(sent)
    end(sent)
    await world.settle(sent)
    assert sent.money.usage.source == source
    assert await world.level("b") == (tokens, 0)
    assert await world.level("r") == (requests, 0)
    assert set(world.leases) == set()


async def test_settling_twice_charges_once(budgets, exchange):
    world, sent = budgets({}), exchange(BODY)
    await world.reserve(sent)
    served(sent, usage=Usage(7, 3))
    await world.settle(sent)
    await world.settle(sent)
    assert await world.level("b") == (10, 0)


async def test_settling_after_the_lease_expired_charges_once(budgets, exchange):
    world, sent = budgets({}), exchange(BODY)
    await world.reserve(sent)
    await world.counters.forward([sent.id])
    world.clock.now += LEASE + 1
    [expired] = await world.counters.expire()
    assert unpack_facts(expired.facts).model == sent.request.ask.model
    await world.settle(served(sent, usage=Usage(7, 3)))
    world.clock.now -= LEASE + 1  # back in the window of the reservation
    assert await world.level("b") == (10, 0)


async def test_an_exchange_refused_before_reserving_settles_to_nothing(budgets, exchange):
    world, sent = budgets({}), exchange(BODY)
    await world.settle(sent)
    assert sent.money.usage == Usage(source="none")


async def test_an_image_counts_the_same_in_the_estimate_as_in_the_reservation(exchange):
    sent = exchange(image("https://example.com/cat.png"))
    sent.money.reservation = Reservation(sent.id, input_bound(sent), 10)
    served(sent, report=Report(output_bytes=30)).end()
    assert (await used(sent, Exact({}), Expected())).input_tokens >= 1000


STEPS = st.tuples(st.integers(1, 200), st.integers(0, 300), st.sampled_from(["used", "left", "failed"]))


@given(st.lists(STEPS, max_size=20))
async def test_no_count_is_negative_and_the_limit_holds(exchange, clocks, steps):
    world = World(clocks(), {"unit": "output_tokens", "limit": 1000})
    charged = 0
    for number, (limit, made, end) in enumerate(steps):
        sent = with_id(exchange(question(max_tokens=limit)), f"{number}")
        try:
            await world.reserve(sent)
        except Refusal:
            assert charged + limit > 1000
            continue
        settled, reserved = await world.level("b")
        assert settled + reserved <= 1000
        if end == "used":
            served(sent, usage=Usage(1, min(made, limit)))
        elif end == "left":
            left_before_the_answer(sent)
        else:
            failed(503)(sent)
        await world.settle(sent)
        charged += {"used": min(made, limit), "left": limit, "failed": 0}[end]
        assert await world.level("b") == (charged, 0)
