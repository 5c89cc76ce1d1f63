"""Usage and budgets that consumers see: their own, and never those of others."""

import asyncio
import itertools
import json
import threading
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.exchange.endpoints.spending import Own, Rate
from extproc.money.budgets import BudgetSettings, Grants
from extproc.money.ledger import LedgerError, Row, open_ledger
from extproc.operate.reports.reports import Reporter
from extproc.stores import Hold, StoreError
from extproc.stores.memory import MemoryCounters
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead

NOW = 1_700_000_040.0
ALICE = Consumer("alice", "red")
ROWS = [
    ("alice", "red", "stub", 3),
    ("alice", "blue", "stub", 5),  # before alice changed teams
    ("mallory", "red", "stub", 700),
    ("alice2", "red", "secret-model", 1100),
    ("alice,mallory", "red", "stub", 13000),
]


def budget(name="b", **fields):
    return BudgetSettings(**{"name": name, "unit": "requests", "limit": 10, "window": "hour", **fields})


@pytest.fixture(scope="module")
def ledger():
    ledger = open_ledger("memory:")
    ledger.writer.start()
    for number, (consumer, team, model, tokens) in enumerate(ROWS):
        labels = {"run": consumer, "consumer": "alice", "agent": f"of-{consumer}"}
        fields = {"consumer": consumer, "team": team, "model": model, "target": model, "labels": labels}
        ledger.writer.add(Row(id=f"r{number}", time=NOW, input_tokens=tokens, operation="chat", status=200, **fields))
    assert ledger.writer.stop() == 0
    yield ledger
    ledger.close()


def own(ledger, *budgets, counters=None):
    counters = counters or MemoryCounters(lambda: NOW)
    return Own(Reporter(counters, ledger, Grants(counters, lambda: NOW), lambda: NOW), budgets)


def asked(exchange, query="", operation="usage", who=ALICE):
    found = exchange()
    found.request.operation = operation
    found.consumer = who
    found.request.head = RequestHead("GET", f"/v1/{operation}{query}", {})
    return found


async def usage(stage, exchange, query="", **more):
    answer = await stage(asked(exchange, query, **more))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return json.loads(answer.body)


async def code_of(stage, exchange, query="", **more):
    with pytest.raises(Refusal) as caught:
        await stage(asked(exchange, query, **more))
    return caught.value.kind.code


# --- usage


TRICKS = [
    "",
    "?consumer=mallory",
    "?consumer=mallory&consumer=alice",
    "?consumer=alice&consumer=mallory",
    "?c%6Fnsumer=mallory",
    "?team=red",
    "?team=red&team=blue",
    "?group_by=consumer",
    "?group_by=consumer,team,label.run&resolution=hour",
    "?group_by=label.consumer",
    "?label.consumer=alice",
    "?consumer=%00&consumer=*",
    "?format=csv",
    "?start=1970-01-01&end=9999-01-01",
    "?&&consumer=mallory&",
    "?consumer=alice%2Cmallory",
]


@pytest.mark.parametrize("query", TRICKS)
async def test_usage_is_that_of_the_asking_consumer(ledger, exchange, query):
    report = await usage(own(ledger), exchange, query)
    assert report["total"]["requests"] == 2
    assert report["total"]["input_tokens"] == 8
    assert {group["group"].get("consumer", "alice") for group in report["data"]} == {"alice"}


NAMES = st.sampled_from(["consumer", "team", "group_by", "start", "end", "resolution", "label.run", "model", "x", ""])
VALUES = st.one_of(
    st.sampled_from(["mallory", "alice", "alice2", "consumer,label.agent", "total", "2023-11-01", "red", "*", "%"]),
    st.text(max_size=8),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.booleans())
def test_no_parameter_shows_the_usage_of_others(ledger, exchange, parameters, encoded):
    query = "&".join(f"{quote(name) if encoded else name}={quote(value, safe='')}" for name, value in parameters)
    try:
        report = asyncio.run(usage(own(ledger), exchange, f"?{query}"))
    except Refusal:  # of unreadable parameters
        return
    assert report["total"]["input_tokens"] in (0, 3, 5, 8)
    assert not any(word in json.dumps(report["data"]) for word in ("mallory", "alice2", "secret-model"))


async def test_a_name_that_holds_a_comma_is_one_name(ledger, exchange):
    report = await usage(own(ledger), exchange, who=Consumer("alice,mallory", "red"))
    assert report["total"]["input_tokens"] == 13000


@pytest.mark.parametrize(
    "query",
    [
        "?resolution=week",
        "?consumer%3Dmallory=x&consumer=",
        "?start=x",
        "?nope=1",
        "?" + "model=a&" * 65,
        "?group_by=body",
    ],
)
async def test_unreadable_parameters_are_refused(ledger, exchange, query):
    assert await code_of(own(ledger), exchange, query) == "invalid_request"


class Slow:
    """A ledger whose reports wait, or fail."""

    def __init__(self, error=None):
        self.go, self.error, self.asked = threading.Event(), error, 0

    def usage(self, _query):
        self.asked += 1
        if self.error is not None:
            raise self.error
        assert self.go.wait(10)
        return self

    def json(self):
        return {}


async def test_two_reports_run_at_once_and_a_third_is_refused(exchange):
    slow = Slow()
    stage = own(slow)
    two = [asyncio.create_task(stage(asked(exchange))) for _ in range(2)]
    while slow.asked < 2:
        await asyncio.sleep(0.005)
    assert await code_of(stage, exchange) == "overloaded"
    slow.go.set()
    assert [answer.status for answer in await asyncio.gather(*two)] == [200] * 2
    assert (await stage(asked(exchange))).status == 200


async def test_a_client_that_disconnects_does_not_make_room_for_another_report(exchange):
    slow = Slow()
    stage = own(slow)
    for _ in range(2):
        task = asyncio.create_task(stage(asked(exchange)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await code_of(stage, exchange) == "overloaded"
    slow.go.set()
    for _ in range(1000):
        await asyncio.sleep(0.005)
        try:
            assert (await stage(asked(exchange))).status == 200
        except Refusal:
            continue
        break
    else:
        pytest.fail("the places of those that left were never free again")


async def test_a_ledger_that_is_down_is_a_503(exchange):
    stage = own(Slow(LedgerError("the ledger does not answer (OperationalError: secret)")))
    for _ in range(9):  # a failed report frees its slot
        with pytest.raises(Refusal) as caught:
            await stage(asked(exchange))
        assert caught.value.kind.code == "store_unavailable"
        assert "secret" not in caught.value.message


# --- budgets


async def counts(counters, *scopes):
    number = itertools.count()
    for scope in scopes:
        await counters.reserve(f"{scope}{next(number)}", [Hold(scope, 3600, 10, 2)], 60)


@pytest.mark.parametrize(
    ("fields", "held", "shown"),
    [
        ({}, ["b"], ["b"]),
        (
            {"per": ["consumer"]},
            ["b:consumer=alice", "b:consumer=mallory", "b:consumer=alice2", "b:consumer=*"],
            ["b:consumer=alice"],
        ),
        (
            {"per": ["label.run", "consumer"]},
            ["b:label.run=alice:consumer=mallory", "b:label.run=x:consumer=alice"],
            ["b:label.run=x:consumer=alice"],
        ),
        (
            {"per": ["consumer", "label.run"]},
            ["b:consumer=alice:label.run=1", "b:consumer=alice2:label.run=1", "b:consumer=alice%3A:label.run=1"],
            ["b:consumer=alice:label.run=1"],
        ),
        ({"per": ["label.run"]}, ["b:label.run=alice", "b:label.run=1"], []),
        ({"per": ["key"]}, ["b:key=alice%230", "b:key=mallory%230"], []),
        ({"per": ["team"]}, ["b:team=red", "b:team=blue", "b:team="], ["b:team=red"]),
        ({"per": ["team", "label.run"]}, ["b:team=red:label.run=1"], []),
        ({"per": ["model", "team"]}, ["b:model=m:team=red", "b:model=m:team=blue"], ["b:model=m:team=red"]),
    ],
)
async def test_budgets_show_the_counts_of_the_asking_consumer(ledger, exchange, fields, held, shown):
    counters = MemoryCounters(lambda: NOW)
    await counts(counters, *held)
    stage = own(ledger, budget(**fields), counters=counters)
    report = await usage(stage, exchange, "?consumer=mallory&name=b", operation="budgets")
    [found] = report["data"]
    assert [scope["scope"] for scope in found["scopes"]] == shown
    assert all((scope["reserved"], scope["remaining"], scope["used"]) == ("2", "8", 0.2) for scope in found["scopes"])


class Looks(MemoryCounters):
    """A store that records how far it was read, and waits on demand."""

    def __init__(self, wait=None):
        super().__init__(lambda: NOW)
        self.found, self.wait = [], wait

    async def fullest(self, prefix, window, limit=100):
        self.found.append(prefix)
        if self.wait is not None:
            await self.wait.wait()
        return await super().fullest(prefix, window, limit)


@pytest.mark.parametrize(
    ("fields", "looked"),
    [
        ({}, []),
        ({"per": ["consumer"]}, []),
        ({"per": ["team", "consumer"]}, []),
        ({"per": ["label.run"]}, []),
        ({"per": ["team", "key"]}, []),
        ({"per": ["consumer", "label.run"]}, ["b:consumer=alice"]),
        ({"per": ["label.run", "consumer"]}, ["b"]),
        ({"per": ["model"]}, ["b"]),
    ],
)
async def test_the_store_is_not_searched_through_counts_of_others(ledger, exchange, fields, looked):
    counters = Looks()
    await usage(own(ledger, budget(**fields), counters=counters), exchange, operation="budgets")
    assert counters.found == looked


async def test_four_consumers_may_read_their_budgets_at_once(ledger, exchange):
    stage = own(ledger, budget(per=["model"]), counters=(counters := Looks(go := asyncio.Event())))
    four = [asyncio.create_task(stage(asked(exchange, operation="budgets"))) for _ in range(4)]
    while len(counters.found) < 4:
        await asyncio.sleep(0)
    assert await code_of(stage, exchange, operation="budgets") == "overloaded"
    four.pop().cancel()
    await asyncio.sleep(0)
    go.set()
    assert (await stage(asked(exchange, operation="budgets"))).status == 200
    assert [answer.status for answer in await asyncio.gather(*four)] == [200] * 3


@pytest.mark.parametrize("match", [{"consumer": "mallory"}, {"team": "blue"}, {"consumer": "alice", "team": "b*"}])
async def test_budgets_that_cannot_apply_to_the_consumer_are_not_shown(ledger, exchange, match):
    stage = own(
        ledger,
        budget(match=match),
        budget("mine", match={"consumer": "al*"}),
        budget("call", window="call", unit="tokens"),
    )
    report = await usage(stage, exchange, operation="budgets")
    assert [entry["name"] for entry in report["data"]] == ["mine"]


async def test_fuller_counts_of_others_do_not_hide_the_consumers_own(ledger, exchange):
    counters = MemoryCounters(lambda: NOW)
    await counts(counters, *[f"b:consumer=other{number}" for number in range(300)], "b:consumer=alice")
    report = await usage(own(ledger, budget(per=["consumer"]), counters=counters), exchange, operation="budgets")
    assert [scope["scope"] for scope in report["data"][0]["scopes"]] == ["b:consumer=alice"]


class Down(MemoryCounters):
    async def fullest(self, prefix, window, limit=100):
        raise StoreError("redis://user:secret@host")

    async def levels(self, scopes):
        raise StoreError("redis://user:secret@host")


@pytest.mark.parametrize("per", [[], ["model"]])
async def test_a_store_that_is_down_is_a_503(ledger, exchange, per):
    with pytest.raises(Refusal) as caught:
        await own(ledger, budget(per=per), counters=Down())(asked(exchange, operation="budgets"))
    assert caught.value.kind.code == "store_unavailable"
    assert "secret" not in caught.value.message


async def test_other_requests_are_left_alone(ledger, exchange):
    assert await own(ledger)(asked(exchange, operation="chat")) is None


# --- the rate


async def test_reports_of_one_consumer_have_a_rate(ledger, exchange):
    clock = [1000.0]
    counters = MemoryCounters(lambda: NOW)
    reporter = Reporter(counters, ledger, Grants(counters, lambda: NOW), lambda: NOW)
    stage = Own(reporter, [budget()], 6, lambda: clock[0])
    for number in range(6):
        await stage(asked(exchange, operation=("usage", "budgets")[number % 2]))
    with pytest.raises(Refusal, match="more than 6 reports in a minute") as caught:
        await stage(asked(exchange, operation="budgets"))
    assert (caught.value.kind.status, caught.value.headers) == (429, {"retry-after": "10"})
    await stage(asked(exchange, operation="budgets", who=Consumer("bob", "red")))  # others are not affected
    assert await stage(asked(exchange, operation="list_models")) is None
    clock[0] += 10
    await stage(asked(exchange))
    assert await code_of(stage, exchange) == "rate_limited"
    clock[0] += 60
    for _ in range(6):
        await stage(asked(exchange))


def test_rates_of_many_consumers_take_little_memory():
    now = [0.0]
    rate = Rate(30, lambda: now[0])
    for number in range(25_000):
        rate.check(f"consumer-{number}")
    assert len(rate._until) == 10_000
    now[0] += 60
    rate.check("one more")
    assert len(rate._until) == 1
