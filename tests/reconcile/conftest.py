from contextlib import ExitStack

import pytest

from extproc.__main__ import main
from tests.admin.ledgers import ledger_served


@pytest.fixture
def run(monkeypatch, capsys):
    """`extproc reconcile` as a call: its exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["extproc", "reconcile", *map(str, arguments)])
        status = main()
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def serve_ledger(tmp_path):
    """Starts the admin API over a ledger of these rows, and gives its address."""
    with ExitStack() as stack:
        yield lambda rows: stack.enter_context(ledger_served(tmp_path / "ledger.db", rows))
