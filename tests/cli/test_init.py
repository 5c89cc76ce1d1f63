"""`extproc init` writes settings that load, for every kind of provider."""

import pytest
import yaml

from extproc.cli.init import compose
from extproc.providers import kinds
from extproc.settings.config import parse


def test_the_settings_of_every_kind_load():
    for kind in kinds():
        settings = parse(compose([kind]))
        assert [*settings.providers] == [kind]
        assert [target.model for target in settings.virtual_models["assistant"].targets] == [
            f"{kind}/{kinds()[kind].example[1]}"
        ]
    assert len(parse(compose(["openai", "anthropic", "mock"])).virtual_models["assistant"].targets) == 3


def test_it_listens_on_this_machine_only():
    assert yaml.safe_load(compose(["mock"]))["listener"]["address"] == "127.0.0.1"


def test_a_file_is_written_once(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    status, out, _ = run("init", "openai")
    assert status == 0
    assert "export OPENAI_API_KEY=…" in out
    assert "export EXTPROC_KEY=sk-gw-" in out
    assert run("check")[1].endswith("gateway.yaml: ok\n")
    before = (tmp_path / "gateway.yaml").read_text()
    assert run("init") == (1, "", "gateway.yaml exists; remove it, or name another file with --config\n")
    assert (tmp_path / "gateway.yaml").read_text() == before


def test_kinds_are_listed_and_unknown_ones_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("init", "--list")[1].split() == sorted(kinds())
    assert "no kind of provider 'opnai': did you mean 'openai'?" in run("init", "opnai")[2]
    assert run("init", "-c", "nowhere/gateway.yaml") == (1, "", "nowhere/gateway.yaml: No such file or directory\n")
    assert run("import", "litellm", "none.yaml")[2] == "none.yaml: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["check", "envoy", "up"])
def test_without_settings_the_verb_that_writes_them_is_named(run, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    assert run(verb) == (1, "", "gateway.yaml:1:1: file: there is no such file; `extproc init` writes one\n")
