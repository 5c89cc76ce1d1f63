"""`extproc init` writes settings that load, for every kind of provider."""

import re

import pytest
import yaml

from extproc.cli.init import compose
from extproc.settings.config import parse
from extproc.upstream.providers import kinds


def test_the_settings_of_every_kind_load():
    for kind in kinds():
        settings = parse(compose({kind: kind}))
        assert [*settings.providers] == [kind]
        targets = [target.model for virtual in settings.virtual_models.values() for target in virtual.targets]
        assert targets == ([] if kind in ("jina", "voyage") else [f"{kind}/{kinds()[kind].example[1]}"])
    assert (
        len(
            parse(compose({kind: kind for kind in ("openai", "anthropic", "mock")})).virtual_models["assistant"].targets
        )
        == 3
    )


def test_all_kinds_fit_into_one_file():
    settings = parse(compose({kind: kind for kind in kinds()}))
    assert [*settings.providers] == [*kinds()]
    targets = [target.model for target in settings.virtual_models["assistant"].targets]
    assert len(targets) == 16
    assert not any(target.startswith(("jina/", "voyage/")) for target in targets)


def test_what_one_has_to_set_oneself_is_named(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = run("init", "vllm", "gcp_vertex_ai", "openai")[1]
    assert "  edit gateway.yaml: set your own `base_url` of vllm, `project` of gcp_vertex_ai\n" in out
    assert "edit" not in run("init", "openai", "-c", "other.yaml")[1]


def test_variables_of_keys_name_their_provider():
    for kind, provider in kinds().items():
        for variable in re.findall(r"env:(\w+)", provider.example[0]):
            assert re.search(r"_(KEY|TOKEN)$", variable), kind


def test_it_listens_on_this_machine_only():
    assert yaml.safe_load(compose({"mock": "mock"}))["listener"]["address"] == "127.0.0.1"


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
    unknown = "there is no kind of provider"
    assert run("init", "opnai", "jin", "sagemaker", "none")[2].splitlines() == [
        f"{unknown} 'opnai': did you mean 'openai'?",
        f"{unknown} 'jin': did you mean 'jina'?",
        f"{unknown} 'sagemaker'",
        f"{unknown} 'none'",
        "`extproc init --list` prints the kinds",
    ]
    assert run("init", "-c", "nowhere/gateway.yaml") == (1, "", "nowhere/gateway.yaml: No such file or directory\n")
    assert run("import", "litellm", "none.yaml")[2] == "none.yaml: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


def test_names_that_people_use_stand_for_the_kinds(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ["gemini", "bedrock", "vertex", "azure", "grok", "mistral", "OpenAI"]
    assert run("init", *named)[0] == 0
    found = {name: provider.kind for name, provider in parse((tmp_path / "gateway.yaml").read_text()).providers.items()}
    kinds_of = ("gcp_gemini", "aws_bedrock", "gcp_vertex_ai", "azure_openai", "x_ai", "mistral_ai", "openai")
    assert found == dict(zip(named, kinds_of, strict=True))


@pytest.mark.parametrize("verb", ["check", "envoy", "up"])
def test_without_settings_the_verb_that_writes_them_is_named(run, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    assert run(verb) == (1, "", "gateway.yaml:1:1: file: there is no such file; `extproc init` writes one\n")
