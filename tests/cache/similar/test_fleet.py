"""Questions that processors share through a Redis: what reaches whom, in which order, and what stays bounded."""

import asyncio
import contextlib
import itertools
import time

import pytest

pytest.importorskip("numpy", reason="the extra `semantic`")

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.cache.entry import Sealed
from extproc.cache.settings import SharedSettings, SimilarSettings
from extproc.cache.similar.finder import Similar
from extproc.cache.similar.fleet import Fleet
from extproc.cache.similar.index import Row, np
from extproc.cache.similar.wording import said
from extproc.cache.stores import CacheError
from extproc.guardrails import Around
from tests.redis_server import RedisServer
from tests.samples import examples

SECRET = b"s" * 32
HOUR = 3600.0
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    RedisServer.need()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


class Processor:
    """The questions of one process. `ask` keeps one, `knows` says whether an equal one would be found."""

    def __init__(self, url, secret=SECRET, **shared):
        self.fleet = Fleet(url, Sealed(secret), SharedSettings(**shared), time.time)
        self.similar = Similar(SimilarSettings(), Around(), self.fleet)
        self._task = None

    def start(self):
        self._task = asyncio.create_task(self.fleet.run(self.similar))

    async def stop(self):
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _asked(self, text, scope):
        return self.similar.asked(scope.encode(), text, guard=True)

    async def ask(self, text, *, owner=b"ada", scope="ada", ttl=HOUR, texts=False):
        asked = self._asked(text, scope)
        await self.similar.nearest(asked, 0.95, time.time())
        self.similar.add(asked, f"{scope} {text}".encode(), owner, time.time() + ttl, texts=texts)

    async def finds(self, text, scope="ada"):
        """The key of the answer to the nearest question; None where there is none."""
        found = await self.similar.nearest(self._asked(text, scope), 0.95, time.time())
        return None if found is None or found.score < 0.95 else found.row.key

    async def settled(self):
        """Wait until all that is in the stream was read, and all that is to be written is there."""
        while self.fleet._queue or await last(self.fleet) != self.fleet._after:
            assert not self._task.done()
            await asyncio.sleep(0.002)


async def last(fleet):
    found = await fleet._redis.xrevrange(fleet._key, count=1)
    return found[0][0] if found else b"0-0"


@pytest.fixture
async def fleet(server):
    """Makes processors that share a stream of this test's own."""
    made, prefix = [], f"t{next(_numbers)}"

    def make(*, starts=True, **options):
        processor = Processor(f"{server.url}?prefix={prefix}", **options)
        made.append(processor)
        if starts:
            processor.start()
        return processor

    yield make
    for processor in made:
        await processor.stop()


async def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)
    return found


async def test_a_question_reaches_the_processors_that_run_and_those_that_start_later(fleet):
    one, other = fleet(), fleet()
    await one.ask("What is the capital of Australia?", texts=True)
    await one.ask("What ends at once?", ttl=0.001)
    for processor in (one, other, fleet()):
        await processor.settled()
        assert (
            await processor.finds("please, what is the capital of australia")
            == b"ada What is the capital of Australia?"
        )
        assert await processor.finds("what is the capital of austria") is None
        assert await processor.finds("what ends at once") is None
    mine, theirs = ([*each.similar.index._parts.items()] for each in (one, other))
    assert theirs[0][1].rows == mine[0][1].rows
    np.testing.assert_array_equal(theirs[0][1].vectors, mine[0][1].vectors)


async def test_vectors_of_a_model_are_shared_number_by_number(fleet):
    one, other = fleet(), fleet()
    vector = np.random.default_rng(16).standard_normal(1536).astype(np.float32)
    asked = one._asked("a text", "ada")
    asked.vector = vector
    one.similar.add(asked, b"key", b"ada", time.time() + HOUR, texts=False)
    await other.settled()
    await one.settled()
    await other.settled()
    found = await other.similar.index.best(asked.partition, vector, asked.said, 0.999, time.time())
    assert found.row.key == b"key"


async def test_a_forgotten_consumer_and_a_cleared_cache_are_forgotten_everywhere_and_later(fleet):
    one, other = fleet(), fleet()
    for owner in (b"ada", b"bob"):
        for text in ("What is open?", "Where is it?"):
            await one.ask(text, owner=owner, scope=owner.decode())
    await one.settled()
    await other.settled()
    await other.similar.forget(b"ada")
    assert other.similar.index.count == 2
    late = fleet()
    for processor in (one, late):
        await processor.settled()
        assert processor.similar.index.count == 2
        assert await processor.finds("where is it?", "ada") is None
        assert await processor.finds("where is it?", "bob") == b"bob Where is it?"
    owners = [fields[b"o"] for _, fields in await one.fleet._redis.xrange(one.fleet._key)]
    assert owners == [b"bob", b"bob", b"ada"]  # the last one is the deletion
    await one.ask("What is open?")  # again
    await one.settled()
    await late.settled()
    assert await late.finds("what is open?") is not None
    await late.similar.forget(None)
    for processor in (one, other, late, fleet()):
        await processor.settled()
        assert processor.similar.index.count == 0
    assert await one.fleet._redis.xlen(one.fleet._key) == 1


async def test_a_question_that_waits_to_be_shared_is_forgotten_too(fleet):
    one = fleet(starts=False)
    for owner in (b"ada", b"bob"):
        await one.ask("What is open?", owner=owner, scope=owner.decode())
    await one.similar.forget(b"ada")
    one.start()
    await one.settled()
    other = fleet()
    await other.settled()
    assert (await other.finds("what is open?", "ada"), other.similar.index.count) == (None, 1)


async def test_redis_holds_no_word_and_no_vector_that_can_be_read_or_moved(fleet, server):
    one = fleet()
    await one.ask("Where is the sesame door?", texts=True)
    await one.settled()
    [(_, fields)] = await one.fleet._redis.xrange(one.fleet._key)
    assert set(fields) == {b"t", b"x", b"o", b"v"}
    for word in (b"sesame", b"door", b"question"):
        assert word not in b"".join(fields.values())
    stranger = fleet(secret=b"t" * 32)
    await stranger.settled()
    assert stranger.similar.index.count == 0
    moved = {**fields, b"o": b"bob"}
    await one.fleet._redis.xadd(one.fleet._key, moved)
    await one.fleet._redis.xadd(one.fleet._key, {"strange": "entry"})
    other = fleet()
    await other.settled()
    await one.settled()
    assert [row.owner for part in other.similar.index._parts.values() for row in part.rows] == [b"ada"]


async def test_the_stream_keeps_its_bound_of_entries_of_bytes_and_of_time(fleet):
    one = fleet(entries=10, size=1 << 16)
    client, key = one.fleet._redis, one.fleet._key
    for number in range(25):
        await one.ask(f"What is the number {number}?")
    await one.settled()
    assert await client.xlen(key) == 10
    wide = fleet(entries=10_000, size=1 << 16)
    for number in range(300):
        await wide.ask(f"What is the longer number {number}?")
        if number % 50 == 49:
            await wide.settled()
            assert sum(len(fields[b"v"]) for _, fields in await client.xrange(key)) <= 1 << 16
    size = sum(len(fields[b"v"]) for _, fields in await client.xrange(key))
    assert size > (1 << 16) * 0.95
    assert HOUR < await client.ttl(key) <= HOUR + 61
    await client.delete(key)
    ends = time.time() + 0.1
    await wide.ask("What ends soon?", ttl=0.1)
    await wide.settled()
    await until(lambda: _is_past(client, ends))
    await wide.ask("What lasts?")
    await wide.settled()
    assert await client.xlen(key) == 1
    row = Row(b"key", b"ada", time.time() + HOUR, said("a text"))
    wide.fleet.share(b"p", np.ones(16_384, np.float32), row)
    assert (wide.fleet.lost, len(wide.fleet._queue)) == (1, 0)  # larger than the whole


async def _is_past(client, moment):
    return (await client.time())[0] > moment


async def test_without_redis_a_processor_compares_its_own_and_shares_later_what_its_queue_holds(tmp_path):
    RedisServer.need()
    server = RedisServer(tmp_path)
    processors = [Processor(server.url, queue=1 << 16) for _ in range(2)]
    one, other = processors
    for processor in processors:
        processor.start()
    await one.ask("What is the first?")
    assert await one.finds("what is the first?") is not None
    for number in range(300):
        await one.ask(f"What is the number {number}?")
    assert 0 < one.fleet._queued <= 1 << 16
    assert 0 < one.fleet.lost < 300
    with pytest.raises(CacheError):
        await other.similar.forget(b"bob")
    server.start()
    try:
        await until(lambda: _knows(other, "what is the number 299?"))
        assert await other.finds("what is the first?") is None
        assert other.fleet.failures > 0
        server.stop()  # all is lost
        server.start()
        await one.ask("What is the last?")
        await until(lambda: _knows(other, "what is the last?"))
        assert await other.finds("what is the number 299?") is None  # as no answer of that time is there
    finally:
        for processor in processors:
            await processor.stop()
        server.stop()


async def _knows(processor, text):
    return await processor.finds(text) is not None


async def test_a_processor_that_missed_entries_begins_anew(fleet):
    one, other = fleet(entries=20), fleet(entries=20)
    await one.ask("What is the first?", owner=b"bob")
    await one.settled()
    await other.settled()
    await other.stop()  # it is cut off
    await one.similar.forget(b"bob")
    for number in range(30):
        await one.ask(f"What is the number {number}?")
    await one.settled()
    other.start()
    await other.settled()
    assert other.similar.index.count == 20
    assert await other.finds("what is the first?") is None


SCOPES = {"ada": [b"ada"], "bob": [b"bob"], "team": [b"ada", b"bob"]}
TEXTS = ["What is open?", "Where is Oslo?", "please, what is open"]
_owned = st.sampled_from([(scope, owner) for scope, owners in SCOPES.items() for owner in owners])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 1), _owned, st.sampled_from(TEXTS)),
        st.tuples(st.just("forget"), st.integers(0, 1), st.sampled_from([b"ada", b"bob", None])),
        st.tuples(st.just("start"), st.integers(0, 1)),
    ),
    max_size=12,
)


@settings(max_examples=examples(60), deadline=None)
@given(steps=_steps)
def test_no_step_leads_a_question_across_scopes_or_back_from_a_deletion(server, steps):
    """Any steps at two processors: each finds what is kept in its scope, and nothing else."""

    async def run():
        url = f"{server.url}?prefix=p{next(_numbers)}"
        processors = [Processor(url) for _ in range(2)]
        kept = {}  # by scope and text: the owner
        for processor in processors:
            processor.start()
        for step in steps:
            match step:
                case ("ask", at, (scope, owner), text):
                    if (scope, text) in kept:
                        continue  # a hit: it is not kept again
                    await processors[at].ask(text, owner=owner, scope=scope)
                    kept[scope, text] = owner
                case ("forget", at, owner):
                    await processors[at].similar.forget(owner)
                    kept = {name: whose for name, whose in kept.items() if owner is not None and whose != owner}
                case ("start", at):
                    await processors[at].settled()
                    await processors[at].stop()
                    processors[at] = Processor(url)
                    processors[at].start()
            for processor in (*processors, *processors):  # the second time what the other one wrote
                await processor.settled()
            for processor in processors:
                for scope in SCOPES:
                    for text in TEXTS:
                        near = [TEXTS[0], TEXTS[2]] if "open" in text else [text]
                        allowed = {f"{scope} {one}".encode() for one in near if (scope, one) in kept}
                        found = await processor.finds(text, scope)
                        assert found in allowed if allowed else found is None
        for processor in processors:
            await processor.stop()

    asyncio.run(run())
