"""The admin API over a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from extproc.money.ledger import open_ledger
from extproc.money.ledger.query import Query
from extproc.operate.admin.api import admin_app
from extproc.operate.admin.doors import HTTPThread
from tests.admin.fakes import FakeSources


@contextmanager
def ledger_served(path, rows) -> Iterator[str]:
    """The address of an admin API whose usage report is that of a SQLite file with these rows."""
    ledger = open_ledger(f"sqlite:{path}")
    ledger.writer.start()
    for row in rows:
        assert ledger.writer.add(row)
    ledger.writer.stop()
    sources = FakeSources()
    sources.usage = lambda parameters: ledger.usage(Query.parse(parameters, datetime.now(UTC))).json()
    thread = HTTPThread()
    port = thread.add(lambda: admin_app(sources, None), "127.0.0.1", 0)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    thread.stop()
    ledger.close()
