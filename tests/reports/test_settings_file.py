"""Changes of the settings file by operators."""

import stat

import pytest

from extproc.envoy.server.checking import Checker
from extproc.operate.reports import ReportError
from extproc.operate.reports.settings_file import SettingsFile

TEXT = """\
providers: {p: {kind: mock, base_url: "http://127.0.0.1:9"}}
models: {m: {provider: p}}
budgets:
  - {name: day, unit: requests, limit: 5, window: day}   # of all
auth: {required: false}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def desk(file, *, may=True):
    return SettingsFile(Checker(file), lambda: may)


def change(found, text=None, edits=(), *, apply=False):
    return found.change(found.shown()["digest"], text, edits, apply=apply)


LIMIT = [(["budgets", "day", "limit"], 7)]


def test_a_change_is_judged_shown_and_written_only_on_demand(file):
    found = desk(file)
    told = change(found, edits=LIMIT)
    assert (told["loads"], told["applied"], file.read_text()) == (True, False, TEXT)
    assert "-  - {name: day, unit: requests, limit: 5, window: day}   # of all" in told["difference"]
    assert told["lines"][-1].endswith("gateway.yaml: ok")
    told = change(found, edits=LIMIT, apply=True)
    assert told["applied"]
    assert "limit: 7" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [each.name for each in file.parent.iterdir()] == ["gateway.yaml"]
    assert told["digest"] == found.shown()["digest"]


def test_settings_that_do_not_load_are_never_written(file):
    told = change(desk(file), TEXT.replace("kind: mock", "kind: mokc"), apply=True)
    assert (told["loads"], told["applied"], file.read_text()) == (False, False, TEXT)
    assert any("gateway.yaml:1:" in line and "mokc" in line for line in told["lines"])


def test_a_change_of_a_file_that_has_changed_is_refused(file):
    found = desk(file)
    before = found.shown()["digest"]
    file.write_text(TEXT + "\n")
    with pytest.raises(ReportError, match="changed since"):
        found.change(before, None, LIMIT, apply=True)


def test_files_that_must_not_or_cannot_be_written_stay(file, tmp_path):
    with pytest.raises(ReportError, match=r"admin\.apply_settings is false"):
        change(desk(file, may=False), edits=LIMIT, apply=True)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    with pytest.raises(ReportError, match="the file is a link"):
        change(desk(link), edits=LIMIT, apply=True)
    with pytest.raises(ReportError, match="is not in this file"):
        change(desk(file), edits=[(["budgets", "week", "limit"], 7)])
    with pytest.raises(ReportError, match="cannot be read"):
        desk(tmp_path / "none.yaml").shown()
    assert file.read_text() == TEXT


def test_a_large_file_takes_single_values(file):
    file.write_text(TEXT + "# long\n" * 10_000)
    found = desk(file)
    assert found.shown()["text"] == ""
    told = change(found, edits=LIMIT, apply=True)
    assert (told["text"], told["applied"]) == ("", True)
    assert file.read_text().count("# long") == 10_000
