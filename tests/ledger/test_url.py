"""URLs of ledgers: read, checked, and never repeated in messages."""

from __future__ import annotations

import pytest

from extproc.money.ledger import check_ledger, doubt_ledger, open_ledger
from extproc.money.ledger.url import LedgerURL, PostgresServer, parse
from extproc.words.values import Secret


def test_urls_are_read():
    assert parse("memory:") == LedgerURL()
    assert parse("sqlite:data/ledger.db") == LedgerURL(path="data/ledger.db")
    assert parse("postgresql://me@db.internal/usage") == LedgerURL(
        server=PostgresServer("db.internal", 5432, "usage", "me")
    )
    given = parse("postgresql://a%40b@db:6432/us%20age?password=env:PW&sslmode=verify-full&sslrootcert=/ca.pem")
    assert given.server == PostgresServer("db", 6432, "us age", "a@b", Secret("env", "PW"), "verify-full", "/ca.pem")
    assert parse("postgresql://me@/usage?host=/run/pg").server == PostgresServer("/run/pg", 5432, "usage", "me")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "one of"),
        ("sqlite", "one of"),
        ("memory:x", "one of"),
        ("redis://host", "one of"),
        ("postgres://me@host/db", "one of"),
        ("sqlite:", "path"),
        ("sqlite:a\0b", "path"),
        ("postgresql://me:hunter2@host/db", "reference"),
        ("postgresql://me@host/db?password=hunter2", "reference"),
        ("postgresql://host/db?password=env:PW", "needs a user"),
        ("postgresql://me@host", "needs a user"),
        ("postgresql://me@/db", "needs a user"),
        ("postgresql://me@host/db/hunter2", "needs a user"),
        ("postgresql://me@host/db#hunter2", "needs a user"),
        ("postgresql://me@host/d%00b", "needs a user"),
        ("postgresql://me@host:hunter2/db", "cannot be read"),
        ("postgresql://me@[host/db", "cannot be read"),
        ("postgresql://me@host/db?sslmode=hunter2", "sslmode"),
        ("postgresql://me@host/db?hunter2=1", "takes password"),
        ("postgresql://me@host/db?options=-c%20hunter2", "takes password"),
        ("postgresql://me@host/db?sslmode=require&sslmode=disable", "takes password"),
        ("postgresql://me@host/db?host=/run", "unix socket"),
        ("postgresql://me@/db?host=other,hosts", "unix socket"),
    ],
)
def test_an_invalid_url_is_refused_without_being_repeated(url, says):
    with pytest.raises(ValueError, match=says) as raised:
        check_ledger(url)
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ValueError, match=says):
        open_ledger(url)


@pytest.mark.parametrize(
    ("url", "doubts"),
    [
        ("memory:", ["loses all rows"]),
        ("sqlite:x.db", []),
        ("postgresql://me@10.0.0.1/db", []),
        ("postgresql://me@db.example.com/db?sslmode=require", []),
        ("postgresql://me@db.example.com/db", ["not encrypted"]),
        ("postgresql://me@/db?host=/run/pg", []),
        ("postgresql://me@db.example.com/db?password=env:NO_SUCH_PW", ["env:NO_SUCH_PW is not set", "not encrypted"]),
    ],
)
def test_a_doubtful_url_gets_a_warning(url, doubts):
    check_ledger(url)
    found = list(doubt_ledger(url))
    assert len(found) == len(doubts)
    assert all(said in text for said, text in zip(doubts, found, strict=True))


def test_a_missing_driver_is_reported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"llm-extproc\[postgres\]"):
        check_ledger("postgresql://me@host/db")
