import pytest

from extproc.__main__ import main


@pytest.fixture
def run(monkeypatch, capsys):
    """`run("check", "-c", file)`: the command line as a call. Returns its exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["extproc", *map(str, arguments)])
        status = main()
        return status, *capsys.readouterr()

    return call
