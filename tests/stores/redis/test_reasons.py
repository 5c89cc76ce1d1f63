"""The log says why Redis fails: in the server's own words, each reason once, and when it answers again."""

import asyncio
import logging
import time

import pytest

from extproc.stores import Hold, StoreError
from extproc.stores.redis import RedisURL
from extproc.stores.redis.counters import RedisCounters
from extproc.words.values import Secret
from tests.redis_server import RedisServer


@pytest.fixture
def server(tmp_path):
    RedisServer.need()
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def counters(server, monkeypatch, caplog):
    monkeypatch.setattr("extproc.stores.redis.link._CALM", 0.0)
    caplog.set_level(logging.WARNING, "extproc")
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=10.0)
    yield counters
    await counters.close()


def failures(caplog):
    return [text for record in caplog.records if "of stores.counters fails" in (text := record.getMessage())]


async def reserve(counters, seconds=30.0):
    """One reservation that the server takes. Raises StoreError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await counters.reserve(str(time.monotonic()), [Hold("canary", 0, 10**9, 1)], 60.0)
        except StoreError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def fail(counters, caplog, count):
    """Reserve until the log has so many failures."""
    deadline = time.monotonic() + 30
    while len(failures(caplog)) < count:
        assert time.monotonic() < deadline, caplog.text
        with pytest.raises(StoreError):
            await counters.reserve(str(time.monotonic()), [Hold("canary", 0, 10**9, 1)], 60.0)
        await asyncio.sleep(0.01)


async def test_each_reason_is_logged_once_and_the_end_too(server, counters, caplog):
    await reserve(counters)
    server.cli("config", "set", "maxmemory", "1")
    await fail(counters, caplog, 1)
    assert "maxmemory" in failures(caplog)[0]
    server.cli("replicaof", "127.0.0.1", "1")
    await fail(counters, caplog, 2)
    assert "replica" in failures(caplog)[1]
    server.stop()
    await fail(counters, caplog, 3)
    for _ in range(20):
        with pytest.raises(StoreError):
            await counters.levels([("canary", 0)])
    assert len({*failures(caplog)}) == len(failures(caplog))
    server.start()
    await reserve(counters)
    assert "answers again" in caplog.text
    assert "canary" not in caplog.text


async def test_a_wrong_password_is_named_and_not_shown(server, monkeypatch, caplog):
    monkeypatch.setenv("COUNTERS_PW", "hunter2")
    server.cli("config", "set", "requirepass", "another")
    place = RedisURL("127.0.0.1", server.port, password=Secret("env", "COUNTERS_PW"))
    counters = RedisCounters(place, timeout=10.0)
    with caplog.at_level(logging.ERROR, "extproc"):
        await fail(counters, caplog, 1)
        assert "password" in failures(caplog)[0]
        assert "hunter2" not in caplog.text
    await counters.close()
