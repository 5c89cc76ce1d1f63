"""Failed tries reach the record of their exchange, whenever Envoy's log tells of them."""

import asyncio

from extproc.money.accounting import tries as module
from extproc.money.accounting.tries import AwaitTries, FailedTries
from extproc.words.exchange import RequestHead, Target
from extproc.words.tries import FailedTry, Try
from tests.exchanges import new_exchange

A, B = Target("t-a", "a", "m"), Target("t-b", "b", "m")


def try_(attempt, outcome="connect", *, id="x", target="t-a", status=503, seconds=0.012):
    return Try(id, target[-1], target, attempt, status, outcome, seconds, None, "")


def ended(attempts, target=B, *, status=200, whole=True, unreached="", forwarded=True):
    exchange = new_exchange("x", RequestHead("POST", "/v1/chat/completions", {}))
    exchange.answer.attempts, exchange.answer.target, exchange.answer.status = attempts, target, status
    exchange.answer.unreached, exchange.route.forwarded = unreached, forwarded
    exchange.end(whole=whole)
    return exchange


def left():
    return ended(0, None, status=0, whole=False)


FIRST = FailedTry("t-a", "a", 503, 12, "connect")
SECOND = FailedTry("t-b", "b", 429, 40, "429")
LATER = try_(2, "429", target="t-b", status=429, seconds=0.04)


def unreached(attempts):
    return ended(attempts, None, status=503, unreached="connect")


def test_a_record_has_the_failed_tries_in_their_order_however_the_log_tells_of_them():
    async def scenario():
        for name, exchange, before, after, wanted in (
            ("the usual one waits for nothing", ended(1), [], None, []),
            ("an error of the only provider", ended(1, status=400), [try_(1, "4xx")], None, []),
            ("told before the end", ended(2), [try_(1)], None, [FIRST]),
            ("told behind the end", ended(2), [], [try_(1)], [FIRST]),
            ("told in another order", ended(3), [LATER], [try_(1)], [FIRST, SECOND]),
            ("none answered", unreached(2), [try_(1)], [LATER], [FIRST, SECOND]),
            ("the last answered with an error", ended(2, status=429), [try_(1)], None, [FIRST]),
            ("broken off by the provider", ended(1, whole=False), [], [try_(1, "cut", status=200)], ["cut"]),
            ("left in mid-answer by the client", ended(1, whole=False), [], [try_(1, "client_left", status=200)], []),
            ("left before an answer began", left(), [try_(1), try_(2, "client_left")], None, [FIRST]),
            ("of other exchanges", ended(1), [try_(1, id="other")], None, []),
        ):
            failed, recorded = FailedTries(), []
            for entry in before:
                failed.tell(entry)
            stage = AwaitTries(failed, [recorded.append])
            held = stage(exchange) is not None
            assert held == (after is not None), name
            for entry in after or []:
                assert recorded == [], name
                failed.tell(entry)
            assert recorded == [exchange] * held, name
            assert [each.outcome if each.outcome == "cut" else each for each in exchange.answer.tries] == wanted, name
            failed.flush()
            assert recorded == [exchange] * held, name

    asyncio.run(scenario())


def test_a_record_does_not_wait_for_a_log_that_says_nothing(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    async def scenario():
        failed, recorded = FailedTries(), asyncio.Event()
        failed.tell(try_(1))
        exchange = unreached(2)
        assert AwaitTries(failed, [lambda _exchange: recorded.set()])(exchange) is not None
        await asyncio.wait_for(recorded.wait(), 5)
        assert exchange.answer.tries == [FIRST]
        failed.tell(LATER)  # too late, and harmless

    asyncio.run(scenario())


def test_the_end_of_the_process_records_what_waits_and_a_bug_stops_none():
    bugs = []

    async def scenario():
        failed, recorded = FailedTries(bugs.append), []

        def broken(_exchange):
            raise ValueError

        for id, step in (("1", broken), ("2", recorded.append)):
            exchange = unreached(1)
            exchange.id = id
            assert AwaitTries(failed, [step])(exchange) is not None
        failed.flush()
        assert [exchange.id for exchange in recorded] == ["2"]

    asyncio.run(scenario())
    assert bugs == ["FailedTries"]


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_EXCHANGES", 3)
    failed = FailedTries()
    for number in range(10):
        failed.tell(try_(1, id=str(number)))
    for number in range(1, 30):
        failed.tell(try_(number, id="9"))
    assert list(failed._failed) == ["7", "8", "9"]
    assert len(failed._failed["9"]) == module.MOST_TRIES
