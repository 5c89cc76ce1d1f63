"""Stores of kept answers: the same promises from memory, SQLite and Redis."""

import asyncio
import gc
import sqlite3
import stat
import sys
import tracemalloc

import pytest

from extproc.cache.answers import Answers
from extproc.cache.entry import MOST, Entry, NoSeal, Sealed, pack, unpack
from extproc.cache.stores import OVERHEAD, CacheError, check, open_store
from extproc.cache.stores.memory import MemoryStore
from extproc.cache.stores.sqlite import SqliteStore
from tests.redis_server import RedisServer

SECRET = b"s" * 32
ENTRY = Entry(5.0, b'{"answer": "It rains."}' * 100, "openai_chat", True, "a/m", 250)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    RedisServer.need()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request, tmp_path):
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/cache/answers.db"}.get(request.param)
    made = open_store(url or request.getfixturevalue("redis"), memory=1 << 20, disk=1 << 20)
    await made.clear()
    yield made
    await made.close()


def key(number):
    return number.to_bytes(32)


async def test_a_store_gives_back_what_it_was_given_until_it_ends(store):
    await store.put(key(1), b"one", b"ada", 100)
    await store.put(key(1), b"two", b"ada", 100)
    await store.put(key(2), b"gone", b"ada", 0.001)
    assert await store.get(key(1)) == b"two"
    assert await store.get(key(3)) is None
    while await store.get(key(2)) is not None:
        await asyncio.sleep(0.001)
    assert await store.get(key(2)) is None
    assert (await store.stats())["entries"] in (1, 2)


async def test_a_store_can_be_asked_outside_of_a_task(store):
    """As the first step of a call does, see `transport.Call`."""
    loop, ended = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    await store.put(key(7), b"seven", b"ada", 100)
    asked = store.get(key(7))

    def step():
        assert asyncio.current_task() is None
        try:
            waited = asked.send(None)
        except StopIteration as done:
            ended.set_result(done.value)
        except (RuntimeError, CacheError) as error:
            ended.set_exception(error)
        else:
            waited._asyncio_future_blocking = False
            waited.add_done_callback(lambda _: step())

    loop.call_soon(step)
    assert await ended == b"seven"


async def test_the_answers_of_one_owner_are_forgotten_and_then_all(store):
    for number in range(10):
        await store.put(key(number), b"value", b"ada" if number % 2 else b"bob", 100)
    assert await store.forget(b"ada") == 5
    assert await store.forget(b"ada") == 0
    assert [await store.get(key(number)) for number in range(2)] == [b"value", None]
    assert await store.clear() == 5
    assert (await store.stats())["entries"] == 0


@pytest.mark.parametrize("make", [MemoryStore, None])
async def test_the_least_recently_used_leave_when_the_limit_is_reached(make, tmp_path, clocks):
    clock, room = clocks(), 4 * (100 + OVERHEAD)
    store = make(room, clock) if make else SqliteStore(str(tmp_path / "a.db"), room, clock)
    for number in range(4):
        clock.now += 100
        await store.put(key(number), bytes(100), b"ada", 10_000)
    clock.now += 100
    assert await store.get(key(0)) is not None  # used again
    for number in (4, 5):
        clock.now += 100
        await store.put(key(number), bytes(100), b"ada", 10_000)
    found = [number for number in range(6) if await store.get(key(number)) is not None]
    assert found == [0, 3, 4, 5]
    assert (await store.stats())["bytes"] == room
    await store.put(key(9), bytes(room), b"ada", 100)  # never fits
    assert (await store.stats())["entries"] == 4
    await store.close()


async def test_memory_keeps_its_limit_under_100_000_distinct_answers():
    limit, size = 8 << 20, 300
    tracemalloc.start()
    try:
        store = MemoryStore(limit)
        for number in range(100_000):
            await store.put(key(number), bytes([number & 255]) * size, key(number)[16:], 1000)
            if not number % 20_000:
                assert (await store.stats())["bytes"] <= limit
        gc.collect()
        real, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert real <= limit * 1.05
    assert (await store.stats())["entries"] == limit // (size + OVERHEAD)


def test_an_entry_is_packed_and_damage_is_noticed():
    packed = pack(ENTRY)
    assert len(packed) < len(ENTRY.body) / 5
    assert unpack(packed) == ENTRY
    small = Entry(1.0, b"short")
    assert unpack(pack(small)) == small
    for damaged in (b"", packed[:-9], b"\1" + packed, packed[:1] + b"y" + packed[2:], b"\0\xc1"):
        assert unpack(damaged) is None
    assert sys.getsizeof(packed) < MOST


def test_a_sealed_entry_opens_under_its_own_key_and_secret_alone():
    seal, packed = Sealed(SECRET), pack(ENTRY)
    sealed = seal.close(key(1), packed)
    assert packed not in sealed
    assert sealed != seal.close(key(1), packed)  # a nonce of its own
    assert seal.open(key(1), sealed) == packed
    assert seal.open(key(2), sealed) is None  # moved to another scope
    assert Sealed(b"t" * 32).open(key(1), sealed) is None
    for changed in (b"", sealed[:-1], sealed[:20] + bytes([sealed[20] ^ 1]) + sealed[21:]):
        assert seal.open(key(1), changed) is None
    assert NoSeal().open(key(1), NoSeal().close(key(1), packed)) == packed


async def test_a_file_holds_no_word_of_an_answer_or_name_and_is_private(tmp_path):
    path = tmp_path / "cache.db"
    answers = Answers(open_store(f"sqlite:{path}", memory=1 << 20, disk=1 << 20), SECRET, Sealed(SECRET))
    await answers.keep(key(1), ENTRY, answers.owner("ada-the-consumer"), 1000)
    assert await answers.find(key(1)) == ENTRY
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for word in (b"rains", b"ada-the", b"openai_chat"):
        assert word not in written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await answers.forget("ada") == 0
    assert await answers.forget("ada-the-consumer") == 1
    await answers.close()


async def test_answers_in_a_file_survive_a_restart_and_another_secret_reads_none(tmp_path):
    url = f"sqlite:{tmp_path}/cache.db"
    for secret, found in ((SECRET, None), (SECRET, ENTRY), (b"t" * 32, None)):
        answers = Answers(open_store(url, memory=1 << 20, disk=1 << 20), secret, Sealed(secret))
        assert await answers.find(key(1)) == found
        if found is None and secret == SECRET:
            await answers.keep(key(1), ENTRY, answers.owner("ada"), 1000)
        await answers.close()


class Broken:
    async def get(self, _key):
        raise CacheError("gone")

    async def put(self, *_):
        raise CacheError("gone")


async def test_a_store_that_does_not_answer_has_no_answers():
    answers = Answers(Broken(), SECRET, NoSeal())
    assert await answers.find(key(1)) is None
    assert answers.failures == 1
    for _ in range(3):  # it is spared for a while
        await answers.keep(key(1), ENTRY, answers.owner("ada"), 10)
        assert await answers.find(key(1)) is None
    assert answers.failures == 1
    answers._rests_until = 0.0
    await answers.keep(key(1), ENTRY, answers.owner("ada"), 10)
    assert answers.failures == 2


async def test_a_redis_that_is_down_does_not_answer():
    store = open_store("redis://127.0.0.1:1", memory=1, disk=1)
    with pytest.raises(CacheError):
        await store.get(key(1))


def test_addresses_are_checked(tmp_path):
    for url in ("memory:", "sqlite:a.db", "redis://127.0.0.1", "rediss://127.0.0.1/1"):
        check(url)
    for url in ("", "memory:x", "sqlite:", "postgresql://x", "redis://", "redis://u:secret@h"):
        with pytest.raises(ValueError, match=r"redis|sqlite|memory") as error:
            check(url)
        assert "secret@" not in str(error.value)
    (tmp_path / "text.db").write_text("no database" * 500)
    with pytest.raises(CacheError):
        open_store(f"sqlite:{tmp_path}/text.db", memory=1, disk=1)
    assert sqlite3.sqlite_version
