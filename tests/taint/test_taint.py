"""Runs in which an untrusted tool has answered: marked, shared with other processes, forgotten, read by guardrails."""

import json

import pytest

import extproc.tools.taint
from extproc.guardrails.untrusted_context import UntrustedContextSettings
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from extproc.tools.taint import TTL, Taint, Tainted


@pytest.fixture
def two(clocks):
    """Two processes that share a store, and the clock."""
    clock = clocks()
    counters = MemoryCounters(clock)
    return Taint(counters, now=clock), Taint(counters, now=clock), clock


async def test_a_run_is_tainted_everywhere_for_an_hour(two, exchange):
    here, there, clock = two
    run, other = exchange(labels={"run": "7"}), exchange(labels={"run": "8"})
    assert here.tools(run) == ()
    await here.mark(run, "web/fetch")
    await here.mark(run, "mail/read")
    assert here.tools(run) == ("web/fetch", "mail/read")
    assert there.tools(run) == ()
    await there.refresh()
    assert there.tools(run) == ("web/fetch", "mail/read")
    assert here.tools(other) == ()
    clock.now += 0.6 * TTL
    await here.mark(run, "web/fetch")  # the hour begins anew
    clock.now += 0.6 * TTL
    await there.refresh()
    assert "web/fetch" in here.tools(run)
    assert "web/fetch" in there.tools(run)
    clock.now += TTL
    await there.refresh()
    assert here.tools(run) == there.tools(run) == ()


async def test_the_run_of_a_request(two, exchange):
    taint, _, _ = two
    session, plain = exchange(labels={"session": "s"}), exchange()
    other = exchange(labels={"session": "t"})
    await taint.mark(session, "a")
    assert (taint.tools(session), taint.tools(other)) == (("a",), ())
    # without a label it is all that the consumer does: leaving the label away frees nothing
    assert taint.tools(plain) == ("a",)
    await taint.mark(plain, "b")
    assert taint.tools(plain) == ("a", "b")
    assert (taint.tools(session), taint.tools(other)) == (("a",), ()), "a label frees its run"
    # another consumer's run of the same name
    stranger = exchange(labels={"session": "s"})
    stranger.consumer = type(plain.consumer)("bob")
    assert taint.tools(stranger) == ()


async def test_a_store_that_fails_leaves_the_taint_here(exchange, monkeypatch):
    class Failing:
        async def share(self, *_):
            raise StoreError

    taint = Taint(Failing())
    with pytest.raises(StoreError):
        await taint.mark(exchange(), "a")
    assert taint.tools(exchange()) == ("a",)
    monkeypatch.setattr(extproc.tools.taint, "MOST", 5)
    counters = MemoryCounters(lambda: 1.0)
    taint = Taint(counters, now=lambda: 1.0)
    for number in range(9):
        await taint.mark(exchange(labels={"run": str(number)}), "a")
    assert sum(bool(taint.tools(exchange(labels={"run": str(number)}))) for number in range(9)) == 4
    assert taint.tools(exchange()) == ("a",), "the fifth is the consumer"
    await counters.share(extproc.tools.taint.BOARD, "x", b"\x93", 60)  # a note of another release
    await taint.refresh()


async def test_requests_to_models_meet_the_taint_of_tools(two, exchange):
    taint, _, _ = two
    tools = [{"type": "function", "function": {"name": name}} for name in ("send_mail", "clock")]
    asked = exchange({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": tools})
    guard = UntrustedContextSettings(name="g", kind="untrusted_context", sensitive=["send_*"], trusted=["*"]).build()
    Tainted(taint)(asked)
    assert guard.for_exchange(asked) is None
    await taint.mark(asked, "web/fetch")
    Tainted(taint)(asked)
    assert guard.for_exchange(asked) is guard
    assert asked.findings.untrusted == ("web/fetch",)
    assert "send_mail" not in json.dumps(
        asked.request.dialect.offers.tools.without(asked.request.json, guard.withheld)[0]
    )
