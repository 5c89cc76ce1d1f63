"""The stores under test. A new store adds one line to STORES."""

import pytest

from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters

# Each opens a store in a directory, on a clock. Opened twice in one, two workers share it, unless it is `memory`.
STORES = {
    "memory": lambda _directory, clock: MemoryCounters(clock),
    "sqlite": lambda directory, clock: SqliteCounters(directory / "counters.db", clock),
}


class Clock:
    now = 1_700_000_040.0  # the beginning of a minute

    def __call__(self):
        return self.now


@pytest.fixture
def stores():
    return STORES


@pytest.fixture(params=STORES)
def store(request):
    """The name of a store; a test that asks for it runs once for each."""
    return request.param


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def counters(store, tmp_path, clock):
    counters = STORES[store](tmp_path, clock)
    yield counters
    await counters.close()
