"""Long scans leave the event loop free."""

import asyncio
import threading
import time

import pytest

from extproc.guardrails import _input
from extproc.guardrails._threads import Threads
from extproc.guardrails.topics import Topics
from extproc.wire.outbound.service import Failure
from tests.guardrails.fakes import Guard, Words, fake
from tests.guardrails.streams import PROVIDER, Played, stream
from tests.turns import turns_during


async def test_a_scan_runs_beside_the_loop(exchange):
    class Sleeping(Words):
        def find(self, text, role, where):
            time.sleep(0.2)  # lets go of the interpreter's lock, as RE2 does
            return []

    made = exchange({"model": "m", "messages": [{"role": "user", "content": "x" * (1 << 18)}]})
    guards = Guard(*[fake(Sleeping("k", "k"), f"g{index}") for index in range(2)])
    assert await turns_during(guards.stage(made), 0.001) > 10, "a scan on the loop leaves it two turns"


async def test_work_that_is_late_is_a_failure_and_its_end_is_not_waited_for():
    threads = Threads(1)
    with pytest.raises(Failure) as failure:
        await threads.run(lambda: time.sleep(0.2), 0.02)
    assert failure.value.reason == "timeout"
    with pytest.raises(Failure) as failure:
        await threads.run(lambda: 1, 1)
    assert failure.value.reason == "overload", "the late work still has its thread"
    await asyncio.sleep(0.3)
    assert await threads.run(lambda: 1, 1) == 1


async def test_an_exception_of_the_work_is_raised():
    with pytest.raises(ZeroDivisionError):
        await Threads(1).run(lambda: 1 / 0, 1)


@pytest.mark.parametrize(("size", "aside"), [(1 << 10, False), (1 << 20, True)])
async def test_a_large_body_is_masked_beside_the_loop(exchange, monkeypatch, size, aside):
    threads = []
    usual = _input.rewritten
    monkeypatch.setattr(_input, "rewritten", lambda *what: threads.append(threading.current_thread()) or usual(*what))
    made = exchange({"model": "m", "messages": [{"role": "user", "content": "k" + "x" * size}]})
    await Guard(fake(Words("k", "k"), "g", action="mask")).stage(made)
    assert [thread is not threading.main_thread() for thread in threads] == [aside]
    assert made.request.masked
    assert b"k" not in made.request.json["messages"][0]["content"].encode()


class Noting(Words):
    """Notes the threads that search."""

    def __init__(self, window):
        super().__init__("k", "k")
        self.window, self.threads = window, []

    def find(self, text, role, where):
        self.threads.append(threading.current_thread())
        return ()

    @property
    def aside(self):
        return threading.main_thread() not in self.threads


def said(*texts):
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}


@pytest.mark.parametrize(
    ("texts", "aside"),
    [
        (["short"], (False, False)),
        (["x" * 2000], (False, True)),
        (["x" * 7000], (True, True)),
        (["x"] * 220, (True, True)),
    ],
)
async def test_a_small_body_is_searched_beside_the_loop_where_that_takes_long(exchange, texts, aside):
    cheap, model = Noting(0), Noting(2048)
    await Guard(fake(cheap, "a"), fake(model, "b")).stage(exchange(said(*texts)))
    assert (cheap.aside, model.aside) == aside


async def test_a_small_body_is_searched_on_the_loop_where_no_thread_is_free(exchange, monkeypatch):
    monkeypatch.setattr(Threads, "full", True)
    model = Noting(2048)
    await Guard(fake(model, "b")).stage(exchange(said("x" * 7000)))
    assert not model.aside


async def test_windows_of_a_streamed_answer_are_judged_beside_the_loop(world, monkeypatch):
    threads = []

    def find(self, text, role, where):
        threads.append(threading.current_thread())
        return ()

    monkeypatch.setattr(Topics, "find", find)
    made = world(f"{PROVIDER}guardrails: [{{name: t, kind: topics, banned: {{cats: [a, b, c]}}, on: [output]}}]")
    body = stream("openai_chat", ["Some words. "] * 400)
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    played = await Played(made, "openai_chat").answer(events)
    assert played.out == body
    assert len(threads) >= 3
    assert threading.main_thread() not in threads[:-1], "the rest is judged where the choice ends"
