"""The table, its migrations, and the permissions of its file."""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import pytest

from extproc.money.ledger import LedgerError, SchemaError, open_ledger
from extproc.money.ledger.rows import COLUMNS
from extproc.money.ledger.schema import READABLE_FROM, STEPS, VERSION
from tests.ledger.conftest import row, write


def sql(ledger, statement):
    with ledger._database.change() as cursor:
        cursor.execute(statement)


def rows(ledger, statement):
    with ledger._database.look() as cursor:
        return cursor.rows(statement)


def test_a_row_without_a_price_charges_tries_and_tokens_is_kept(ledger):
    write(ledger, row("a", cost=None))
    found = ledger.exchange("a")
    assert set(found) == {*COLUMNS} - {"cost", "saved", "prompt_saved", "prompt_extra"} | {
        *("cost_usd", "saved_usd", "prompt_saved_usd", "prompt_extra_usd")
    }
    assert {name for name, value in found.items() if value is None} == {
        "cost_usd",
        "first_token_ms",
        "charges",
        "traits",
    }


def test_a_database_of_a_newer_release_is_refused(shared_url):
    ledger = open_ledger(shared_url)
    write(ledger, row("a"))
    ledger.writer.stop()
    sql(ledger, f"UPDATE ledger_version SET version = {VERSION + 1}, readable_from = {VERSION + 1}")
    ledger.close()
    with pytest.raises(SchemaError, match="newer release"):
        open_ledger(shared_url)


def test_the_release_before_serves_on_a_schema_that_only_grew(shared_url, monkeypatch):
    """An upgrade and the way back: the newer release's columns have defaults, and its rows stay."""
    open_ledger(shared_url).close()
    step = "ALTER TABLE exchanges ADD COLUMN added {text} NOT NULL DEFAULT 'x'", "CREATE TABLE added (a {text})"
    monkeypatch.setattr("extproc.money.ledger.schema.STEPS", (*STEPS, step))
    monkeypatch.setattr("extproc.money.ledger.schema.VERSION", VERSION + 1)
    newer = open_ledger(shared_url)
    write(newer, row("new"))
    newer.writer.stop()
    newer.close()
    monkeypatch.undo()
    ledger = open_ledger(shared_url)
    write(ledger, row("old"))
    ledger.writer.stop()
    assert rows(ledger, "SELECT id, added FROM exchanges ORDER BY id") == [("new", "x"), ("old", "x")]
    assert ledger.exchange("old")["id"] == "old"
    assert rows(ledger, "SELECT version, readable_from FROM ledger_version") == [(VERSION + 1, READABLE_FROM)]
    ledger.close()


def test_a_database_is_migrated_once(shared_url, monkeypatch):
    open_ledger(shared_url).close()
    monkeypatch.setattr("extproc.money.ledger.schema.STEPS", (*STEPS, ("CREATE TABLE added (a {text}, b {json})",)))
    monkeypatch.setattr("extproc.money.ledger.schema.VERSION", VERSION + 1)
    for _ in range(2):
        ledger = open_ledger(shared_url)
        assert rows(ledger, "SELECT version FROM ledger_version") == [(VERSION + 1,)]
        assert rows(ledger, "SELECT * FROM added") == []
        ledger.close()


def test_a_failed_migration_changes_nothing(shared_url, monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.schema.STEPS", (*STEPS, ("CREATE TABLE added (a {text})", "NO SQL")))
    monkeypatch.setattr("extproc.money.ledger.schema.VERSION", VERSION + 1)
    if shared_url.startswith("sqlite"):
        with pytest.raises(LedgerError):
            open_ledger(shared_url)
    else:
        open_ledger(shared_url).close()  # treated as if it did not answer: it may be repaired while rows wait
    monkeypatch.undo()
    ledger = open_ledger(shared_url)
    assert rows(ledger, "SELECT version FROM ledger_version") == [(VERSION,)]
    with pytest.raises(LedgerError):
        rows(ledger, "SELECT * FROM added")
    ledger.close()


def test_processes_that_start_at_once_create_it_once(shared_url):
    ledgers, errors = [], []

    def start():
        try:
            ledgers.append(open_ledger(shared_url))
        except LedgerError as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rows(ledgers[0], "SELECT version FROM ledger_version") == [(VERSION,)]
    for ledger in ledgers:
        ledger.close()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("not a database, whatever its name says" * 50)
    (tmp_path / "file").touch()
    for path in ("text.db", "file/ledger.db", "."):
        with pytest.raises(LedgerError, match="cannot open"):
            open_ledger(f"sqlite:{tmp_path}/{path}")


def test_a_new_folder_is_private_to_the_user(tmp_path):
    ledger = open_ledger(f"sqlite:{tmp_path}/data/ledger.db")
    write(ledger, row("a"))
    ledger.writer.stop()
    ledger.close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_the_file_is_private_to_the_user(tmp_path):
    for mode in (None, 0o644):  # a new file, and one that others could read
        if mode is not None:
            for file in tmp_path.iterdir():
                file.chmod(mode)
        ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
        write(ledger, row(f"a{mode}"))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
        ledger.writer.stop()
        ledger.close()


def test_a_file_survives_the_process(tmp_path):
    url = f"sqlite:{tmp_path}/ledger.db"
    ledger = open_ledger(url)
    write(ledger, row("a"))
    ledger.writer.stop()
    ledger.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ledger = open_ledger(url)
    assert ledger.exchange("a") is not None
    ledger.close()


def test_a_database_of_another_encoding_is_refused(postgres):
    with pytest.raises(SchemaError, match="LATIN1"):
        open_ledger(postgres.create("latin", "ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'"))


def test_errors_contain_no_address_and_no_row(postgres):
    with pytest.raises(LedgerError, match="does not answer") as raised:
        open_ledger(postgres.url("nowhere").replace("gateway@", "hunter2@")).exchange("hunter2")
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None
