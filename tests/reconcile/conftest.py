import pytest

from extproc.__main__ import main


@pytest.fixture
def run(monkeypatch, capsys):
    """`extproc reconcile` as a call: its exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["extproc", "reconcile", *map(str, arguments)])
        status = main()
        return status, *capsys.readouterr()

    return call
