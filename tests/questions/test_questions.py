"""Questions to operators about requests without room: decided once, spent once, by whichever process."""

import asyncio
import contextlib
import random
from functools import partial
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.access import questions
from extproc.access.questions import DecidedError, Questions, State
from extproc.money.budgets import ReserveTools
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, Usage
from tests.samples import examples
from tests.spending import Spending
from tests.stores.conftest import STORES

BUDGET = {
    "unit": "output_tokens",
    "limit": 150,
    "window": "total",
    "per": ["consumer"],
    "on_exceed": "ask",
    "wait": "10m",
}
COUNT = "b:consumer=alice"


def body(number=0):
    return {"model": "m", "messages": [{"role": "user", "content": f"Hello {number}"}], "max_tokens": 100}


@pytest.fixture
def asks(exchange):
    """Exchanges with ids of their own."""
    return partial(ask, exchange, count())


def ask(exchange, ids, number=0, **more):
    found = exchange(body(number), **more)
    found.id = f"id-{next(ids)}"
    return found


class Replica(Spending):
    """A process with its own view of the store."""

    def __init__(self, counters, clock, **budget):
        self.asked = []
        self.questions = Questions(counters, self.asked.append, clock, look=0.0)
        tools = ReserveTools(questions=self.questions)
        super().__init__(clock, budget, defaults=BUDGET, tools=tools, counters=counters)


@pytest.fixture
def replica(clocks):
    clock = clocks()
    return Replica(STORES["memory"](None, clock), clock)


async def serve(here, sent, used):
    """Let an admitted exchange be answered with so many tokens, and settle it."""
    sent.route.forwarded, sent.answer.status, sent.answer.target = True, 200, sent.route.targets[0]
    sent.money.usage = Usage(1, used)
    sent.answer.report = None
    sent.end(whole=True)
    amounts = [claim.budget.charge(sent.money.usage, None) for claim in sent.money.reservation.claims]
    await here.counters.settle(sent.money.reservation.id, amounts)


async def refusal_of(stage, exchange):
    with pytest.raises(Refusal) as caught:
        await stage(exchange)
    return caught.value


async def open_question(here, known=()):
    async with asyncio.timeout(20):
        while True:
            for question, state in await here.questions.all():
                if state is State.OPEN and question.id not in known:
                    return question
            await asyncio.sleep(0)


async def test_a_request_waits_until_an_operator_approves_it_at_any_replica(clocks, asks, store_of):
    mine, theirs, clock = await store_of()
    here, there = Replica(mine, clock), Replica(theirs, clock)
    await here.reserve(asks(1))
    waiting = asyncio.create_task(here.reserve(sent := asks(2)))
    question = await open_question(there)
    assert (question.consumer, question.team, question.amount, question.scope) == ("alice", "red", 100, COUNT)
    assert [asked.question.id for asked in here.asked] == [question.id]
    assert not waiting.done()
    await there.questions.decide(question.id, approve=True, by="ada", reason="a demo")
    await waiting
    assert [(claim.scope, claim.amount) for claim in sent.money.reservation.claims] == [(question.count, 100)]
    [(_, state)] = await here.questions.all()
    assert state is State.USED
    assert await here.level(COUNT, 0) == (0, 100), "the budget's own count is as full as before"
    await serve(here, sent, 40)
    assert here.counted == [("b", "asked"), ("b", "approved")]


async def test_a_denial_is_told_with_its_reason_also_when_the_request_comes_again(replica, asks):
    await replica.reserve(asks(1))
    waiting = asyncio.create_task(refusal_of(replica.reserve, asks(2)))
    question = await open_question(replica)
    await replica.questions.decide(question.id, approve=False, by="ada", reason="too dear")
    for refusal in (await waiting, await refusal_of(replica.reserve, asks(2))):
        assert (refusal.kind.status, refusal.kind.code) == (402, "approval_denied")
        assert "too dear" in refusal.message
        assert refusal.headers["x-ai-approval"] == question.id
    with pytest.raises(DecidedError) as error:
        await replica.questions.decide(question.id, approve=True, by="bob", reason="")
    assert (error.value.state, error.value.question.by) == (State.DENIED, "ada")


async def test_without_a_wait_the_same_request_is_sent_again_once_it_is_approved(clocks, asks):
    clock = clocks()
    here = Replica(STORES["memory"](None, clock), clock, wait="0s")
    await here.reserve(asks(1))
    refusal = await refusal_of(here.reserve, asks(2))
    assert refusal.kind.code == "approval_required"
    id = refusal.headers["x-ai-approval"]
    assert id in refusal.message
    assert (await refusal_of(here.reserve, asks(2))).headers["x-ai-approval"] == id, "one question for one request"
    await here.questions.decide(id, approve=True, by="ada", reason="")
    assert (await refusal_of(here.reserve, asks(3))).headers["x-ai-approval"] != id
    await here.reserve(sent := asks(2))
    assert (await refusal_of(here.reserve, asks(2))).headers["x-ai-approval"] != id, "an approval is used once"
    await here.counters.settle(sent.money.reservation.id, [0])
    await here.reserve(asks(2))  # its provider failed: what was approved is still there


async def test_room_in_the_budget_ends_the_wait(clocks, asks):
    for giver in ("a grant", "a settled reservation"):
        clock = clocks()
        here = Replica(STORES["memory"](None, clock), clock)
        here.reserve._grants = here.grants
        await here.reserve(first := asks(1))
        waiting = asyncio.create_task(here.reserve(sent := asks(2)))
        await open_question(here)
        if giver == "a grant":
            await here.grants.add("b", COUNT, 50, "output_tokens", None)
        else:
            await serve(here, first, 10)
        await waiting
        assert [claim.scope for claim in sent.money.reservation.claims] == [COUNT]


async def test_a_question_that_is_over_cannot_be_answered(replica, asks, clocks):
    await replica.reserve(asks(1))
    waiting = asyncio.create_task(refusal_of(replica.reserve, asks(2)))
    question = await open_question(replica)
    replica.clock.now += questions.OPEN + 1
    assert await replica.questions.decide(question.id, approve=True, by="ada", reason="") is None
    assert await replica.questions.all() == []
    waiting.cancel()


async def test_a_processor_that_dies_gives_the_approval_back(clocks, asks, store_of):
    mine, theirs, clock = await store_of()
    here, there = Replica(mine, clock), Replica(theirs, clock)
    await here.reserve(held := asks(1))
    dies = asyncio.create_task(here.reserve(asks(2)))
    question = await open_question(there)
    dies.cancel()  # while it waits
    with contextlib.suppress(asyncio.CancelledError):
        await dies
    await there.questions.decide(question.id, approve=True, by="ada", reason="")
    await here.reserve(asks(2))  # it dies here again, before the request has left
    again = asyncio.create_task(there.reserve(asks(2)))
    other = await open_question(there, {question.id})
    again.cancel()
    clock.now += 61
    await there.counters.renew([held.id], 1000)
    while await there.counters.expire():
        pass
    await there.reserve(sent := asks(2))
    assert [claim.scope for claim in sent.money.reservation.claims] == [question.count]
    assert other.count != question.count


@pytest.mark.parametrize("most", ["MOST", "MOST_OF_ONE"])
async def test_questions_are_bounded(clocks, asks, monkeypatch, most):
    monkeypatch.setattr(questions, most, 3)
    clock = clocks()
    here = Replica(STORES["memory"](None, clock), clock, wait="0s", limit=0)
    for number in range(3):
        assert "x-ai-approval" in (await refusal_of(here.reserve, asks(number))).headers
    refusal = await refusal_of(here.reserve, asks(9))
    assert (refusal.kind.code, refusal.headers) == ("approval_required", {})
    bob = await refusal_of(here.reserve, asks(9, consumer=Consumer("bob", "red")))
    assert ("x-ai-approval" in bob.headers) == (most == "MOST_OF_ONE")


async def test_requests_that_wait_are_bounded(replica, asks, monkeypatch):
    monkeypatch.setattr(questions, "MOST_WAITING", 1)
    await replica.reserve(asks(1))
    waiting = asyncio.create_task(replica.reserve(asks(2)))
    await open_question(replica)
    refusal = await refusal_of(replica.reserve, asks(3))
    assert "x-ai-approval" in refusal.headers
    waiting.cancel()


async def test_an_approved_request_holds_all_that_it_can_use(replica, asks, exchange):
    await replica.reserve(asks(1))
    unlimited = exchange({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
    waiting = asyncio.create_task(replica.reserve(unlimited))
    question = await open_question(replica)
    await replica.questions.decide(question.id, approve=True, by="ada", reason="")
    await waiting
    reservation = unlimited.money.reservation
    assert question.amount == reservation.output == reservation.output_tokens


@pytest.fixture
async def store_of(store, tmp_path, clocks):
    """Call it: the counters of two processes over one store, and its clock."""
    opened = []

    async def make():
        opened[:], clock = [], clocks()
        first = STORES[store](tmp_path, clock)
        opened.append(first)
        opened.append(first if store == "memory" else STORES[store](tmp_path, clock))
        return *opened, clock

    yield make
    for each in {*opened}:
        await each.close()


@pytest.fixture(params=STORES)
def store(request):
    return request.param


# --- histories


@pytest.mark.parametrize("kind", STORES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=examples(100), deadline=None)
def test_nothing_is_spent_twice(kind, tmp_path_factory, clocks, exchange, seed):
    folder = tmp_path_factory.mktemp("store")
    asyncio.run(_history(kind, folder, clocks(), partial(ask, exchange, count(seed)), random.Random(seed)))


async def _history(store, folder, clock, asks, chance):
    """Two processors, two operators, requests that are sent again, that fail and that die, in any order."""
    mine = STORES[store](folder, clock)
    theirs = mine if store == "memory" else STORES[store](folder, clock)
    replicas = [Replica(mine, clock), Replica(theirs, clock)]
    won, spent, ends = {}, {}, []
    requests = [asks(chance.randrange(4)) for _ in range(8)]

    async def send(here, sent, fate):
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        try:
            await here.reserve(sent)
        except Refusal as refusal:
            assert refusal.kind.code == "approval_denied"  # noqa: PT017 - no other refusal may come
            return
        [claim] = sent.money.reservation.claims
        if fate == "dies":
            return
        used = 0 if fate == "fails" else chance.choice((1, 60, 100))
        spent[claim.scope] = spent.get(claim.scope, 0) + used
        ends.append(asyncio.create_task(serve(here, sent, used)))  # a client that leaves does not stop it

    async def decide(here, name):
        while not done.is_set():
            for question, _ in await here.questions.all():
                try:
                    found = await here.questions.decide(
                        question.id, approve=chance.random() < 0.7, by=name, reason=name
                    )
                except DecidedError:
                    continue
                won.setdefault(question.id, []).append(found.by)
            await asyncio.sleep(0)

    done = asyncio.Event()
    operators = [asyncio.create_task(decide(here, name)) for here, name in zip(replicas, ("ada", "bob"), strict=True)]
    fates = [chance.choice(("served", "served", "fails", "dies", "leaves")) for _ in requests]
    sends = [asyncio.create_task(send(chance.choice(replicas), *pair)) for pair in zip(requests, fates, strict=True)]
    for task, fate in zip(sends, fates, strict=True):
        if fate == "leaves":
            asyncio.get_running_loop().call_later(chance.random() / 100, task.cancel)
    async with asyncio.timeout(60):
        await asyncio.gather(*sends, return_exceptions=True)
    done.set()
    await asyncio.gather(*operators, *ends)
    assert [task.exception() for task in sends if not task.cancelled() and task.exception() is not None] == []
    assert all(len(names) == 1 for names in won.values()), "a question was decided twice"
    known = [question for question, _ in await replicas[1].questions.all()]
    clock.now += 61
    for here in replicas:  # what left had no answer, and what died had not left
        await here.leases.turn()
        while await here.counters.expire():
            pass
    own = await replicas[0].level(COUNT, 0)
    assert own == (spent.get(COUNT, 0), 0)
    assert own[0] <= 150, "beyond the limit without an approval"
    for question in known:
        settled, reserved = await replicas[0].level(question.count, 0)
        used = spent.get(question.count, 0)
        assert used <= question.amount, "beyond what was approved"
        assert reserved == 0
        assert settled - used in (0, 1, question.amount + 1), (settled, used)
        assert used == 0 or settled - used == question.amount + 1, "spent without an approval"
    for each in {mine, theirs}:
        await each.close()
