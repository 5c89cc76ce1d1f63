"""Gateway keys made at runtime, and ended sessions."""

import pytest

from extproc.access.auth import IssuedKey
from extproc.money.ledger import LedgerError, open_ledger
from extproc.money.ledger.operators import TooManyKeysError
from tests.ledger.conftest import NOW


def key(number, **more):
    more = {"ending": "wxyz", **more}
    return IssuedKey(f"k{number}", f"hmac-sha256:{number:064x}", "ada", f"n{number}", NOW + number, "me", **more)


def test_keys_are_stored_revoked_and_bounded(ledger, monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.operators.MAX_KEYS", 3)
    desk = ledger.operators
    empty = desk.mark()
    for number in range(3):
        desk.add(key(number, expires=NOW + 90 if number else None))
    assert list(desk.keys()) == [key(0), key(1, expires=NOW + 90), key(2, expires=NOW + 90)]
    with pytest.raises(TooManyKeysError):
        desk.add(key(3))
    full = desk.mark()
    assert desk.revoke("k1", NOW + 5)
    assert not desk.revoke("k1", NOW + 6)
    assert not desk.revoke("none", NOW)
    assert desk.keys()[1].revoked == NOW + 5
    assert len({empty, full, desk.mark()}) == 3
    desk.add(key(3))  # the revoked one gives way
    assert [found.id for found in list(desk.keys())] == ["k0", "k2", "k3"]
    with pytest.raises(TooManyKeysError):
        desk.add(key(89))
    desk.add(key(90))  # an expired one does, too
    assert [found.id for found in list(desk.keys())] == ["k0", "k3", "k90"]


def test_an_examination_of_a_good_ledger_leaves_nothing(ledger):
    ledger.operators.end_session("s", NOW + 9, NOW)
    ledger.examine()
    assert ledger.operators.ended_sessions() == ["s"]


def test_a_ledger_that_can_be_read_and_not_written_is_found(tmp_path):
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    ledger.examine()
    [connection] = ledger._database._idle
    connection.raw.execute("PRAGMA query_only = ON")  # as on a file system that became read only
    assert ledger.operators.keys() == []
    with pytest.raises(LedgerError, match="SQLITE_READONLY"):
        ledger.examine()
    ledger.close()


def test_a_database_that_is_read_only_is_found_and_a_lost_connection_is_not(postgres):
    database = "examined"
    ledger = open_ledger(postgres.create(database))
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    postgres.sql(end)
    ledger.examine()
    postgres.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    postgres.sql(end)
    with pytest.raises(LedgerError, match="ReadOnlySqlTransaction"):
        ledger.examine()
    ledger.close()
