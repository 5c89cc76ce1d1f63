"""A forgotten consumer, and copies of ledgers and counters that are put in place of the originals."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess

import pytest

from extproc.money.ledger import open_ledger
from extproc.money.ledger.privacy import FORGOTTEN
from extproc.money.ledger.query import ExchangeQuery
from extproc.stores import Hold
from extproc.stores.sqlite import SqliteCounters
from tests.ledger.conftest import row, wait, write
from tests.ledger.test_rollups import END, MIDNIGHT, ask, of_rows, reads, reports, some, sql
from tests.postgres_server import USER, binaries
from tests.redis_server import RedisServer


@pytest.fixture
def kept(shared_url, monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.rollups.PAUSE", 0)
    monkeypatch.setattr("extproc.money.ledger.privacy.BATCH", 40)
    monkeypatch.setattr("extproc.money.ledger.ledger.PRUNE_PAUSE", 0)
    ledger = open_ledger(shared_url)
    write(
        ledger, *some(200), row("own", time=MIDNIGHT, consumer="z", key="z#1", labels={"user": "zoe"}, request_id="r")
    )
    ledger.roll_up(END)
    yield ledger
    ledger.writer.stop()
    ledger.close()


def everything(ledger):
    """All texts of the ledger's tables."""
    tables = ("exchanges", "rollups")
    return [str(value) for table in tables for found in sql(ledger, f"SELECT * FROM {table}") for value in found]


@pytest.mark.parametrize("delete", [False, True])
def test_nothing_of_a_forgotten_consumer_is_left(kept, delete):
    whole, own = ask(kept, ""), ask(kept, "consumer=z")["total"]["requests"]
    assert kept.forget("z", delete=delete) == own > 40
    assert not {"z", "z#1", "zoe"}.intersection(everything(kept))
    assert not any("zoe" in text for text in everything(kept))
    assert kept.exchanges(ExchangeQuery(filters={"consumer": ["z"]})) == []
    left = ask(kept, "")["total"]
    assert left["requests"] == whole["total"]["requests"] - (own if delete else 0)
    assert delete or left["cost_usd"] == whole["total"]["cost_usd"]
    assert ask(kept, f"consumer={FORGOTTEN}")["total"]["requests"] == (0 if delete else own)
    found = reports(kept)
    kept.roll_up(END)
    assert reads(kept, "consumer") == {"rollups"}
    assert reports(kept) == found == of_rows(kept)
    assert kept.forget("z") == 0


@pytest.mark.parametrize("delete", [False, True])
def test_the_files_of_a_ledger_have_no_bytes_of_a_forgotten_consumer(tmp_path, delete):
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    write(ledger, *(row(str(n), time=MIDNIGHT + n, consumer="zoe", request_id=f"zoe-{n}") for n in range(300)))
    ledger.roll_up(END)

    def found():
        return sum(path.read_bytes().count(b"zoe") for path in tmp_path.iterdir())

    assert found() >= 600
    assert ledger.forget("zoe", delete=delete) == 300
    assert found() == 0
    ledger.writer.stop()
    ledger.close()


def test_a_copy_of_a_ledger_in_use_gives_the_same_reports(kept, shared_url, tmp_path, request):
    wanted = reports(kept)
    if shared_url.startswith("sqlite"):
        path = shared_url.removeprefix("sqlite:")
        for number, command in enumerate((".backup {}", "VACUUM INTO '{}'")):
            copy = tmp_path / f"copy{number}.db"
            subprocess.run(["sqlite3", path, command.format(copy)], check=True, timeout=60)
        copies = [f"sqlite:{tmp_path}/copy{number}.db" for number in (0, 1)]
    else:
        server, name = request.getfixturevalue("postgres"), shared_url.rpartition("/")[2]
        where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", USER]
        dump = tmp_path / "usage.dump"
        subprocess.run([binaries() / "pg_dump", "-Fc", *where, "-f", dump, name], check=True, timeout=60)
        copies = [server.create(f"{name}copy")]
        subprocess.run([binaries() / "pg_restore", *where, "-d", f"{name}copy", dump], check=True, timeout=60)
    for url in copies:
        restored = open_ledger(url)
        assert reports(restored) == wanted
        write(restored, row("new", time=MIDNIGHT))
        assert ask(restored, "")["total"]["requests"] == 202
        restored.writer.stop()
        restored.close()


async def test_a_copy_of_counters_has_the_same_counts(tmp_path):
    clock = lambda: MIDNIGHT  # noqa: E731
    counters = SqliteCounters(tmp_path / "counters.db", clock)
    await spend(counters)
    subprocess.run(["sqlite3", tmp_path / "counters.db", f".backup {tmp_path / 'copy.db'}"], check=True, timeout=60)
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy = SqliteCounters(tmp_path / "copy.db", clock)
    assert await spent(copy) == await spent(counters) == (7, 2)
    await counters.close()
    await copy.close()


async def test_a_dump_of_redis_has_the_same_counts(tmp_path):
    RedisServer.need()
    from extproc.stores.redis import RedisURL
    from extproc.stores.redis.counters import RedisCounters

    folders = [tmp_path / "one", tmp_path / "two"]
    found = []
    for folder in folders:
        folder.mkdir(exist_ok=True)
        server = RedisServer(folder)
        server.start()
        try:
            counters = RedisCounters(RedisURL("127.0.0.1", server.port), lambda: MIDNIGHT, 5.0)
            if folder is folders[0]:
                await spend(counters)
                folders[1].mkdir()
                server.cli("--rdb", str(folders[1] / "dump.rdb"))
                assert wait((folders[1] / "dump.rdb").exists)
            found.append(await spent(counters))
            await counters.close()
        finally:
            server.stop()
    assert found == [(7, 2), (7, 2)]


async def spend(counters):
    """7 of 100 are spent, 2 are held."""
    for id, amount in (("done", 5), ("held", 2)):
        await counters.reserve(id, [Hold("team-month:team=x", 3600, 100, amount, False)], 600.0)
    await counters.settle("done", [7])


async def spent(counters):
    [level] = await counters.levels([("team-month:team=x", 3600)])
    return level.settled, level.reserved
