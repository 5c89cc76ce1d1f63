"""The stores under test. A new store adds one line to STORES."""

import atexit
import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest

from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters
from tests.redis_server import RedisServer

# Each opens a store in a directory, with a clock. Two stores opened in one directory are shared, except `memory`.
STORES = {
    "memory": lambda _directory, clock: MemoryCounters(clock),
    "sqlite": lambda directory, clock: SqliteCounters(directory / "counters.db", clock),
}


def open_redis(directory, clock, timeout=5.0):
    """Open with generous timeouts for busy test machines. The directory keeps the stores of two tests apart."""
    from extproc.stores.redis import RedisURL
    from extproc.stores.redis.counters import RedisCounters

    if not _shared:
        RedisServer.need()
        _shared.append(RedisServer(Path(tempfile.mkdtemp(prefix="extproc-redis-"))))
        _shared[0].start()
        atexit.register(_end)  # tests of other folders open stores too
    prefix = hashlib.sha256(str(directory).encode()).hexdigest()
    return RedisCounters(RedisURL("127.0.0.1", _shared[0].port, prefix=prefix), clock, timeout)


def _end():
    _shared[0].stop()
    shutil.rmtree(_shared[0].folder)


_shared = []
STORES["redis"] = open_redis


class Clock:
    now = 1_700_000_040.0  # the beginning of a minute

    def __call__(self):
        return self.now


@pytest.fixture
def stores():
    return STORES


@pytest.fixture(params=STORES)
def store(request):
    """The name of a store. A test with this fixture runs once for each store."""
    return request.param


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def counters(store, tmp_path, clock):
    counters = STORES[store](tmp_path, clock)
    yield counters
    await counters.close()
