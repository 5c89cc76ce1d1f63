"""Vectors that the processors of a fleet share: a Redis stream of sealed questions, `fleet.lua`.

Every processor writes its new questions behind the stream, and reads the whole stream into its own index: at the start
what is there, in chunks, and then what comes. A search needs no round trip. Deleting is an entry too, so all indexes
change in the same order. A reader that finds that entries left the stream before it read them, or that the stream was
lost, begins anew with an empty index.

Nothing here holds up a request or raises in one. While Redis does not answer, a processor compares with what it knows,
and its new questions wait in a queue of bounded size.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from redis.exceptions import RedisError

from extproc.cache.entry import Seal
from extproc.cache.settings import SharedSettings
from extproc.cache.similar.index import Row, Vector, np
from extproc.cache.similar.wording import Said
from extproc.cache.stores import CacheError
from extproc.cache.stores.redis import connect
from extproc.stores.redis import parse

VERSION = 1
"""Changes with each change of the words and features of a text, and of what is written here. Releases that compare
otherwise then share nothing.
"""
_CHUNK = 32
"""Entries that are read or written at once: about a millisecond of the event loop."""
_BLOCK = 5.0  # seconds that a read waits for a new entry
_REST = 1.0  # seconds without a try after a failure
_DELETED = 3600.0  # seconds that the entry of a deletion stays: indexes that are behind begin anew anyway
_START = b"0-0"

_SCRIPT = Path(__file__).with_name("fleet.lua").read_text(encoding="utf-8")

log = logging.getLogger(__name__)


class _Question(msgspec.Struct, array_like=True, tag="question", frozen=True):
    partition: bytes
    key: bytes
    ends: float
    words: bytes
    names: list[int]
    size: int  # numbers of the vector
    places: bytes  # of those that are not 0; empty: of all
    values: bytes
    text: str


class _Forget(msgspec.Struct, array_like=True, tag="forget", frozen=True):
    pass


class _Clear(msgspec.Struct, array_like=True, tag="clear", frozen=True):
    pass


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Question | _Forget | _Clear).decode


class Local(Protocol):
    """What this process compares with."""

    def take(self, partition: bytes, vector: Vector, row: Row) -> None: ...

    def drop(self, owner: bytes | None) -> None:
        """Forget the questions of an owner, or all."""
        ...


class Fleet:
    """The stream at `url`. `settings` bound it, and the queue of what is not written yet."""

    def __init__(self, url: str, seal: Seal, settings: SharedSettings, now: Callable[[], float]) -> None:
        self._redis: Any = connect(url, connections=3, timeout=_BLOCK + 1)
        self._key = f"{{{parse(url).prefix}-cache}}:similar:{VERSION}"
        self._settings = settings
        self._seal = seal
        self._now = now
        self._script = self._redis.register_script(_SCRIPT)
        self._queue: deque[tuple[bytes, float, bytes]] = deque()  # owner, end, value
        self._queued = 0  # bytes
        self._more = asyncio.Event()
        self._turn = asyncio.Lock()  # of writing
        self._after, self._total = _START, 0  # the last entry that was read, and its bytes so far
        self.failures = 0  # calls that Redis did not answer
        self.lost = 0  # questions that the fleet does not get, for lack of room

    def share(self, partition: bytes, vector: Vector, row: Row) -> None:
        """Have a new question written."""
        value = self._sealed(row.owner, _packed(partition, vector, row))
        if len(value) > min(self._settings.queue, self._settings.size):
            self.lost += 1
            return
        self._queue.append((row.owner, row.ends, value))
        self._queued += len(value)
        while self._queued > self._settings.queue:
            self._queued -= len(self._queue.popleft()[2])
            self.lost += 1
        self._more.set()

    async def delete(self, owner: bytes | None) -> None:
        """Have all processors forget the questions of an owner, or all, and delete them from the stream. Raises
        CacheError. Needs a task.
        """
        whose = b"" if owner is None else owner
        value = self._sealed(whose, _Clear() if owner is None else _Forget())
        try:
            async with self._turn:  # no question of the owner is on its way to the stream
                kept = [one for one in self._queue if owner is not None and one[0] != owner]
                self._queue, self._queued = deque(kept), sum(len(one[2]) for one in kept)
                last = await self._run(*self._add(whose, self._now() + _DELETED, value))
            if owner is None:
                await self._redis.xtrim(self._key, minid=last, approximate=False)
                return
            after: Any = _START
            while after is not None:
                after = await self._run("forget", owner, after, last)
        except (RedisError, OSError, TimeoutError) as error:
            self.failures += 1
            raise CacheError(type(error).__name__) from None

    async def run(self, local: Local) -> None:
        """Read and write without end. Needs a task."""
        try:
            await asyncio.gather(self._reading(local), self._writing())
        finally:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self._redis.aclose(close_connection_pool=True)

    async def _reading(self, local: Local) -> None:
        down = False
        while True:
            try:
                await self._read(local)
                if down:
                    log.info("the Redis of stores.cache answers again: questions of other processors are compared")
                down = False
            except (RedisError, OSError, TimeoutError) as error:
                self.failures += 1
                if not down:
                    log.warning("the Redis of stores.cache shares no questions: %s", type(error).__name__)
                down = True
                await asyncio.sleep(_REST)

    async def _read(self, local: Local) -> None:
        """The next entries, or none for a while."""
        found = await self._redis.xread({self._key: self._after}, count=_CHUNK, block=int(_BLOCK * 1000))
        if not found:
            newest = await self._redis.xrevrange(self._key, count=1)
            if _order(newest[0][0] if newest else _START) < _order(self._after):  # lost, or all of it has ended
                self._anew(local)
            return
        [(_, entries)] = found
        if _before(entries[0][1]) != self._total and await self._missed():
            self._anew(local)
            return
        for id, fields in entries:
            self._take(local, fields.get(b"o", b""), fields.get(b"v", b""))
            self._after, self._total = id, _before(fields) + len(fields.get(b"v", b""))

    async def _missed(self) -> bool:
        """Whether entries left the stream unread. Those of forgotten owners leave from its middle, and are not missed:
        the entry that has them forgotten is there.
        """
        if self._after == _START:
            return False
        first = await self._redis.xrange(self._key, count=1)
        return not first or _order(first[0][0]) > _order(self._after)

    def _anew(self, local: Local) -> None:
        local.drop(None)
        self._after, self._total = _START, 0

    def _take(self, local: Local, owner: bytes, value: bytes) -> None:
        opened = self._seal.open(_bound(owner), value)
        if opened is None:  # written with another `cache.key`, or changed
            return
        try:
            told = _decode(opened)
        except msgspec.DecodeError:
            return
        if isinstance(told, _Question):
            if told.ends > self._now():
                local.take(told.partition, _vector(told), _row(told, owner))
        else:
            local.drop(owner if isinstance(told, _Forget) else None)

    async def _writing(self) -> None:
        while True:
            await self._more.wait()
            try:
                async with self._turn:
                    await self._write()
            except (RedisError, OSError, TimeoutError):
                self.failures += 1
                await asyncio.sleep(_REST)

    async def _write(self) -> None:
        """Write the first of the queue."""
        if not self._queue:
            self._more.clear()
            return
        owner, ends, value = self._queue[0]
        await self._run(*self._add(owner, ends, value))
        if self._queue and self._queue[0][2] is value:  # the queue may have been full in the meantime
            self._queue.popleft()
            self._queued -= len(value)

    def _add(self, owner: bytes, ends: float, value: bytes) -> Sequence[Any]:
        return ["add", self._settings.entries, self._settings.size, repr(ends), owner, value]

    async def _run(self, *arguments: Any) -> Any:
        return await self._script(keys=[self._key], args=arguments)

    def _sealed(self, owner: bytes, told: _Question | _Forget | _Clear) -> bytes:
        return self._seal.close(_bound(owner), _encode(told))


def _bound(owner: bytes) -> bytes:
    """Bound to a sealed value, which opens nowhere else and for no other owner."""
    return b"similar " + owner


def _order(id: bytes) -> tuple[int, ...]:
    """Ids are a time and a number."""
    return tuple(map(int, id.split(b"-")))


def _before(fields: Mapping[bytes, bytes]) -> int:
    """Bytes of the stream before an entry; -1 for one that `fleet.lua` did not write."""
    told = fields.get(b"t", b"")
    return int(told) - len(fields[b"v"]) if told.isdigit() and b"v" in fields else -1


def _packed(partition: bytes, vector: Vector, row: Row) -> _Question:
    places = np.flatnonzero(vector)
    if len(places) * 6 < vector.nbytes:  # words: few numbers are not 0
        where, values = places.astype("<u2").tobytes(), vector[places]
    else:
        where, values = b"", vector
    said = row.said
    words = np.asarray(said.words, "<u4").tobytes()
    numbers = values.astype("<f4").tobytes()
    return _Question(partition, row.key, row.ends, words, [*said.names], len(vector), where, numbers, row.text)


def _vector(told: _Question) -> Vector:
    values = np.frombuffer(told.values, "<f4").astype(np.float32)
    if not told.places:
        return values
    vector = np.zeros(told.size, np.float32)
    vector[np.frombuffer(told.places, "<u2")] = values
    return vector


def _row(told: _Question, owner: bytes) -> Row:
    words = array("I", np.frombuffer(told.words, "<u4").tolist())
    return Row(told.key, owner, told.ends, Said((), words, frozenset(told.names)), told.text)
