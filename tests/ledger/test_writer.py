"""The writing thread: full queues, rows that no database accepts, databases that come and go."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import threading
import time
from datetime import UTC, datetime

import pytest

from extproc.money.ledger import Row, open_ledger
from extproc.money.ledger.ledger import Ledger
from extproc.money.ledger.query import Query
from extproc.money.ledger.url import LedgerURL
from extproc.money.ledger.writer import BATCH
from tests.ledger.conftest import NOW, row, wait, write

MONTH = Query.parse([], datetime.fromtimestamp(NOW, UTC))


def count(ledger):
    return ledger.usage(MONTH).total.requests


def test_rows_are_reported_once_they_are_committed(ledger):
    told, threads, counts = [], set(), []

    def on_written(ids):
        told.extend(ids)
        threads.add(threading.current_thread().name)
        counts.append(count(ledger))

    ledger.writer.on_written = on_written
    write(ledger, *[row(str(number)) for number in range(2 * BATCH + 1)])
    assert ledger.writer.stop() == 0
    assert sorted(told, key=int) == [str(number) for number in range(2 * BATCH + 1)]
    assert threads == {"ledger"}
    assert counts[0] > 0
    assert counts[-1] == ledger.writer.written == len(told)


def test_a_failing_listener_stops_nothing(ledger, caplog):
    def on_written(_ids):
        raise RuntimeError("a secret")

    ledger.writer.on_written = on_written
    write(ledger, row("a"))
    write(ledger, row("b"))
    assert count(ledger) == 2
    assert "RuntimeError" in caplog.text
    assert "a secret" not in caplog.text


def test_a_full_queue_accepts_no_more_rows():
    ledger = Ledger(LedgerURL(), max_queued=3)
    assert [ledger.writer.add(row(str(number))) for number in range(5)] == [True, True, True, False, False]
    assert (ledger.writer.queued, ledger.writer.dropped) == (3, 2)
    ledger.writer.start()
    assert wait(lambda: not ledger.writer.queued)
    assert ledger.writer.add(row("4"))
    assert ledger.writer.stop() == 0
    assert count(ledger) == ledger.writer.written == 4
    assert not ledger.writer.add(row("5"))  # it would never be written
    ledger.close()


def test_a_writer_that_was_never_started_can_be_stopped():
    ledger = open_ledger("memory:")
    assert ledger.writer.stop() == 0
    ledger.close()
    ledger = open_ledger("memory:")
    ledger.writer.add(row())
    assert ledger.writer.stop() == 1
    ledger.close()


@pytest.mark.parametrize("at", [0, 7, BATCH - 1])
def test_only_the_row_that_no_database_accepts_is_dropped(ledger, caplog, at):
    told = []
    ledger.writer.on_written = told.extend
    poison = row(f"bad-{at}", consumer=None, labels={"secret": "hunter2"})
    rows = [row(str(number)) for number in range(BATCH)]
    write(ledger, *rows[:at], poison, *rows[at:])
    assert (ledger.writer.refused, ledger.writer.written, count(ledger)) == (1, BATCH, BATCH)
    assert sorted(told, key=int) == [str(number) for number in range(BATCH)]
    assert f"bad-{at}" in caplog.text
    assert "hunter2" not in caplog.text


def test_only_the_row_that_the_database_refuses_is_dropped(ledger, monkeypatch, caplog):
    """Values are made storable before. This covers the ones that were overlooked."""
    from extproc.money.ledger import writer

    monkeypatch.setattr(
        writer, "values", lambda row, made=writer.values: (*made(row)[:1], None if row.id == "3" else 5, *made(row)[2:])
    )
    refused = []
    ledger.writer.on_refused = refused.append
    write(ledger, *[row(str(number), labels={"secret": "hunter2"}) for number in range(9)])
    assert (ledger.writer.refused, ledger.writer.written, refused) == (1, 8, ["3"])
    assert "IntegrityError" in caplog.text or "NotNullViolation" in caplog.text
    assert "hunter2" not in caplog.text


def test_rows_wait_while_a_file_is_locked(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.database.LOCK_TIMEOUT", 0.05)
    caplog.set_level(logging.WARNING)
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.writer.start()
    ledger.writer.add(row("a", labels={"secret": "hunter2"}))
    assert wait(lambda: ledger.writer.failures >= 2)
    assert (ledger.writer.queued, ledger.writer.written) == (1, 0)
    assert count(ledger) == 0  # reports are still answered
    other.execute("ROLLBACK")
    assert wait(lambda: ledger.writer.written == 1)
    assert ledger.writer.stop() == 0
    assert [record.levelname for record in caplog.records] == [
        "ERROR",
        "WARNING",
    ]  # once, however often the write was tried
    assert "SQLITE_BUSY" in caplog.text
    assert "hunter2" not in caplog.text
    other.close()
    ledger.close()


@pytest.mark.parametrize("how", ["deleted", "moved", "restored", "with its folder"])
def test_a_deleted_file_is_created_again(tmp_path, caplog, how):
    folder = tmp_path / "data"
    file = folder / "ledger.db"
    ledger = open_ledger(f"sqlite:{file}")
    write(ledger, row("a"))
    assert count(ledger) == 1
    if how == "deleted":
        for part in folder.iterdir():
            part.unlink()
    elif how == "moved":
        file.rename(folder / "yesterday.db")
    elif how == "restored":
        backup = open_ledger(f"sqlite:{tmp_path}/backup.db")
        write(backup, row("old-1"), row("old-2"))
        backup.writer.stop()
        backup.close()
        for part in folder.iterdir():  # otherwise SQLite takes this journal for that of the copy
            part.unlink()
        (tmp_path / "backup.db").rename(file)
    else:
        shutil.rmtree(folder)
        ledger.writer.add(row("b"))
        assert wait(lambda: ledger.writer.failures >= 1), "there is nowhere to write"
        assert ledger.writer.queued == 1
        folder.mkdir()
    if how != "with its folder":
        assert count(ledger) == (2 if how == "restored" else 0)  # a report shows the current file
        ledger.writer.add(row("b"))
    assert wait(lambda: ledger.writer.written == 2)
    assert ledger.writer.stop() == 0
    ledger.close()
    assert "removed or replaced" in caplog.text
    with contextlib.closing(sqlite3.connect(file)) as there:
        found = {id for (id,) in there.execute("SELECT id FROM exchanges")}
    assert found == {"b"} | ({"old-1", "old-2"} if how == "restored" else set())


def test_rows_wait_while_the_disk_is_full(tmp_path, caplog, monkeypatch):
    """SQLite reports a full disk, because the file cannot grow here."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("extproc.money.ledger.writer.FIRST_RETRY", 0.01)
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    room = [20]
    write_ = ledger._database.write

    @contextlib.contextmanager
    def limited():
        with write_() as cursor:
            cursor.execute(f"PRAGMA max_page_count = {room[0]}")
            yield cursor

    monkeypatch.setattr(ledger._database, "write", limited)
    ledger.writer.start()
    for number in range(500):
        assert ledger.writer.add(row(str(number), labels={"secret": "hunter2" * 30}))
    assert wait(lambda: ledger.writer.failures >= 2)
    assert ledger.writer.written + ledger.writer.queued == 500
    assert ledger.writer.queued
    assert count(ledger) == ledger.writer.written, "reports are read all the same"
    room[0] = 100_000
    assert wait(lambda: ledger.writer.written == 500)
    assert ledger.writer.stop() == 0
    assert count(ledger) == 500
    assert "SQLITE_FULL" in caplog.text
    assert "hunter2" not in caplog.text
    ledger.close()


def test_a_stop_ends_in_time_and_reports_unwritten_rows(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("extproc.money.ledger.database.LOCK_TIMEOUT", 0.05)
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.writer.start()
    for number in range(5):
        ledger.writer.add(row(str(number)))
    begun = time.monotonic()
    assert ledger.writer.stop(0.3) == 5
    assert time.monotonic() - begun < 5
    assert "5 rows unwritten" in caplog.text
    other.close()
    ledger.close()


def test_a_server_killed_again_and_again_loses_and_doubles_no_row(postgres, caplog):
    ledger = open_ledger(postgres.create("killed"))
    told = []
    ledger.writer.on_written = told.extend
    ledger.writer.start()
    added = 0

    def add(seconds):
        nonlocal added
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert ledger.writer.add(row(str(added), cost=added, charges={"b": added}, labels={"secret": "hunter2"}))
            added += 1
            time.sleep(0.0005)

    for _ in range(2):
        add(0.6)
        postgres.kill()
        add(0.6)
        postgres.start()
    add(0.3)
    assert wait(lambda: not ledger.writer.queued, 40)
    assert ledger.writer.stop() == 0
    total = ledger.usage(MONTH).total
    assert (total.requests, total.cost) == (added, sum(range(added)))
    assert ledger.charges_by_scope("b") == {"b": sum(range(added))}
    assert set(told) == {str(number) for number in range(added)}
    assert ledger.writer.failures >= 2
    assert "hunter2" not in caplog.text
    ledger.close()


def test_rows_wait_for_a_server_that_starts_later(postgres, monkeypatch, caplog):
    monkeypatch.setenv("LEDGER_PW", "hunter2")
    url = postgres.url("later") + "?password=env:LEDGER_PW"
    ledger = open_ledger(url)
    ledger.writer.start()
    ledger.writer.add(row("a"))
    assert wait(lambda: ledger.writer.failures)
    postgres.create("later")
    assert wait(lambda: ledger.writer.written == 1)
    assert ledger.writer.stop() == 0
    assert count(ledger) == 1
    assert "hunter2" not in caplog.text
    ledger.close()


def test_postgresql_refuses_the_values_that_rows_are_cleaned_of(postgres):
    """Otherwise the cleaning in `rows.py` would be useless."""
    ledger = open_ledger(postgres.create("raw"))
    with pytest.raises(Exception, match="NUL"), ledger._database.write() as cursor:
        cursor.rows("SELECT ?", ("a\0b",))
    ledger.close()


def test_the_queue_drops_only_rows_of_wrong_types(ledger):
    write(ledger, row("a"), Row(id=5, time=NOW), Row(id="b", time="now"), row("c"))
    assert (ledger.writer.refused, ledger.writer.written) == (2, 2)


def test_reports_take_turns(ledger, monkeypatch):
    from extproc.money.ledger import LedgerError, database

    monkeypatch.setattr(database, "READ_WAIT", 0.05)
    held = [ledger._database._reads.acquire() for _ in range(database.MAX_READS)]
    with pytest.raises(LedgerError, match="too many"):
        count(ledger)
    write(ledger, row("a"))  # a report does not wait for the others
    for _ in held:
        ledger._database._reads.release()
    assert count(ledger) == 1


def test_an_unexpected_error_loses_no_row(ledger, monkeypatch, caplog):
    write_ = ledger._database.write
    monkeypatch.setattr(ledger._database, "write", lambda: 1 / 0)
    ledger.writer.add(row("a"))
    ledger.writer.start()
    assert wait(lambda: ledger.writer.failures >= 2)
    monkeypatch.setattr(ledger._database, "write", write_)
    assert wait(lambda: ledger.writer.written == 1)
    assert "ZeroDivisionError" in caplog.text


def test_a_session_that_takes_no_changes_is_left_when_the_database_takes_them_again(postgres, monkeypatch, caplog):
    """Such as one at a former primary, or of the time in which a full disk was write-protected."""
    monkeypatch.setattr("extproc.money.ledger.writer.LAST_RETRY", 0.25)
    url = postgres.create("protected")
    ledger = open_ledger(url)
    write(ledger, row("a"))
    change = "SET default_transaction_read_only = off; COMMIT; ALTER DATABASE protected"
    postgres.sql(f"{change} SET default_transaction_read_only = on")
    end = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = 'protected'"
    postgres.sql(end)
    ledger.writer.add(row("b"))
    assert wait(lambda: "25006" in caplog.text, 30), caplog.text
    postgres.sql(f"{change} RESET default_transaction_read_only")
    assert wait(lambda: ledger.writer.written == 2, 30), caplog.text
    assert ledger.writer.stop() == 0
    assert count(ledger) == 2
    ledger.close()
