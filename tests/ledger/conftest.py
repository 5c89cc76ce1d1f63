"""The ledgers under test: in memory, in a SQLite file, and in a real PostgreSQL of the session."""

from __future__ import annotations

import itertools

import psycopg
import pytest

from extproc.money.ledger import Row, open_ledger
from tests.postgres_server import PostgresServer

NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
_numbers = itertools.count()
_empty: list[str] = []
"""URLs of databases that earlier tests have left. Emptying one takes a tenth of the time of creating another."""


@pytest.fixture(scope="session")
def postgres():
    PostgresServer.need()
    server = PostgresServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.writer.PAUSE", 0.01)


def place(request):
    if request.param == "postgresql":
        url = _empty.pop() if _empty else request.getfixturevalue("postgres").create(f"ledger{next(_numbers)}")
        request.addfinalizer(lambda: _clear(url))
        return url
    folder = request.getfixturevalue("tmp_path")
    return "memory:" if request.param == "memory" else f"sqlite:{folder}/deep/ledger.db"


def _clear(url):
    """Make a database empty for the next test, unless something is still connected to it."""
    with psycopg.connect(url, autocommit=True) as database:
        [others] = database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
        if not others:
            database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            _empty.append(url)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request):
    return place(request)


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request):
    """The URL of a ledger that can be opened twice."""
    return place(request)


@pytest.fixture
def ledger(url):
    ledger = open_ledger(url)
    yield ledger
    ledger.writer.stop()
    ledger.close()


def row(id="id-1", **fields):
    return Row(**{"id": id, "time": NOW, "status": 200, "attempts": 1, "usage_source": "provider", "cost": 0, **fields})


def write(ledger, *rows):
    """Commit the rows in the given order."""
    for each in rows:
        assert ledger.writer.add(each)
    if ledger.writer._thread.ident is None:
        ledger.writer.start()
    assert wait(lambda: not ledger.writer.queued)


def wait(condition, seconds=20.0):
    import time

    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found
