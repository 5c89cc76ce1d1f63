"""Sessions and questions: ids that say by themselves what they are, and that nobody can make or use for another."""

import asyncio
import random

import pytest

from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from extproc.tools.mcp.sessions import QUESTION, EndedSessions, ServerQuestion, Sessions

ELICITATION = {"elicitation": {"form": {}}}


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


class Away:
    """A store that does not answer."""

    async def reserve(self, *_args, **_more):
        raise StoreError("away")

    levels = reserve


def made(secret="s" * 32, age=3600.0, clock=None):
    return Sessions(secret, age, clock or Clock())


def test_a_session_is_found_again_by_any_replica_with_the_same_secret():
    session = made().begin("dev/bob", "2025-11-25", {**ELICITATION, "experimental": {"x": 1}})
    assert session.id.isascii()
    assert session.id.isprintable()
    assert made().find("dev/bob", session.id) == session
    assert session.capabilities == ELICITATION, "only what servers may ask for is kept"
    assert made("t" * 32).find("dev/bob", session.id) is None
    assert made(None).find("dev/bob", session.id) is None


def test_a_session_is_its_owners_alone():
    sessions = made()
    session = sessions.begin("dev/bob", "2025-11-25", {})
    for owner in ("dev/alice", "ops/bob", "dev/bo", "dev/bobb", ""):
        assert sessions.find(owner, session.id) is None


def test_no_changed_id_is_taken():
    sessions, chance = made(), random.Random(7)
    session = sessions.begin("dev/bob", "2025-11-25", ELICITATION)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=~ \u00e9\n"
    for _ in range(3000):
        text = list(session.id)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(text))
            text[at : at + chance.randint(0, 2)] = chance.choices(letters, k=chance.randint(0, 2))
        changed = "".join(text)
        found = sessions.find("dev/bob", changed)
        assert found is None or changed.rstrip("=") == session.id or found.version == session.version
    for id in ("", "x", "=" * 50, "\ud800", "A" * 100_000):
        assert sessions.find("dev/bob", id) is None


def test_sessions_end_by_age():
    clock = Clock()
    sessions = made(clock=clock)
    session = sessions.begin("dev/bob", "2025-11-25", {})
    clock.now += 3599
    assert sessions.find("dev/bob", session.id) == session
    clock.now += 2
    assert sessions.find("dev/bob", session.id) is None


async def test_an_ended_session_is_known_to_every_process_that_shares_the_store():
    clock = Clock()
    store, sessions = MemoryCounters(clock), made()
    here, there = EndedSessions(store, 3600.0), EndedSessions(store, 3600.0)
    one, other = (sessions.begin("dev/bob", "2025-11-25", {}) for _ in range(2))
    assert await here.add(one)
    assert (await here.has(one), await there.has(one), await there.has(other)) == (True, True, False)
    assert not await there.add(one), "it has ended before"
    assert sorted(await asyncio.gather(here.add(other), there.add(other))) == [False, True]
    clock.now += 3000
    await store.expire()
    assert await there.has(one)
    clock.now += 601
    await store.expire()
    assert not await there.has(one), "by now it is too old anyway"


async def test_without_the_store_sessions_go_on_and_none_is_ended():
    ended = EndedSessions(Away(), 3600.0)
    session = made().begin("dev/bob", "2025-11-25", {})
    with pytest.raises(StoreError):
        await ended.add(session)
    assert not await ended.has(session)


def test_capabilities_of_any_size_make_a_bounded_id():
    session = made().begin("dev/bob", "2025-11-25", {"sampling": {"x": "y" * 100_000}, "elicitation": None})
    assert session.capabilities == {"sampling": {}}
    assert len(session.id) < 2000


def test_the_answer_to_a_question_finds_its_place_in_its_session_alone():
    sessions = made()
    mine, other = (sessions.begin("dev/bob", "2025-11-25", ELICITATION) for _ in range(2))
    for id in (0, -5, "a", "a~b", "x" * 200):
        question = ServerQuestion("github", "their~session", "2025-06-18", id)
        asked = sessions.ask(mine, question)
        assert asked.startswith(QUESTION)
        assert made().asked(mine, asked) == question
        assert sessions.asked(other, asked) is None
        assert sessions.asked(mine, asked.removeprefix(QUESTION)) is None
    for forged in (None, 7, "", "q.", "q.x", "github~session~1~mac", QUESTION + mine.id):
        assert sessions.asked(mine, forged) is None


def test_a_new_secret_voids_sessions_and_none_leaves_them():
    clock = Clock()
    sessions = made(clock=clock)
    session = sessions.begin("dev/bob", "2025-11-25", {})
    sessions.use(None, 3600.0)
    assert sessions.find("dev/bob", session.id) == session
    sessions.use("t" * 32, 3600.0)
    assert sessions.find("dev/bob", session.id) is None
    session = made("t" * 32, clock=clock).begin("dev/bob", "2025-11-25", {})
    assert sessions.find("dev/bob", session.id) == session, "another process has the new secret too"
    clock.now += 120
    sessions.use(None, 60.0)
    assert sessions.find("dev/bob", session.id) is None, "too old by the new settings"
