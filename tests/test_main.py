"""The command line, as far as it needs no Envoy."""

from __future__ import annotations

import json

import pytest

from extproc.__main__ import main
from extproc.auth import hash_key

TWO_NAMES = """
providers: {a: {kind: mock}, b: {kind: mock, base_url: "http://127.0.0.1:1/v1"}}
models: {one: {provider: a}, two: {provider: b}}
virtual_models: {both: {targets: [{model: one}, {model: two}]}}
auth: {required: false}
"""


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["extproc", *map(str, arguments)])
        status = main()
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(TWO_NAMES)
    return path


def test_check_says_that_settings_are_good(run, file):
    assert run("check", "-c", file) == (0, f"{file}: ok\n", "")


def test_check_says_what_is_wrong_and_where(run, file):
    file.write_text(TWO_NAMES.replace("provider: b", "provider: c"))
    status, out, err = run("check", "-c", file)
    assert (status, out) == (1, "")
    assert err == f"{file}:3:36: models.two.provider: there is no provider 'c'\n"


def test_check_says_what_attach_mode_cannot_do(run, file):
    status, _, err = run("check", "--attach", "-c", file)
    assert status == 1
    assert err.startswith(f"{file}:4:")
    assert "attach mode cannot give each try its own model name" in err
    assert run("envoy", "--attach", "-c", file)[0] == 1


def test_a_file_that_is_not_there(run, tmp_path):
    status, _, err = run("check", "-c", tmp_path / "none.yaml")
    assert status == 1
    assert "cannot be read" in err


def test_keys_makes_a_key_whose_hash_the_settings_take(run, monkeypatch):
    monkeypatch.setenv("EXTPROC_KEY_SECRET", "s3cret")
    status, out, _ = run("keys")
    key, hashed = (line.split()[1] for line in out.splitlines())
    assert status == 0
    assert hashed == hash_key(key, "s3cret")


def test_keys_needs_its_secret(run, monkeypatch):
    monkeypatch.delenv("EXTPROC_KEY_SECRET", raising=False)
    status, out, err = run("keys")
    assert (status, out) == (1, "")
    assert "EXTPROC_KEY_SECRET is not set" in err


def test_the_schema_is_json_schema(run):
    schema = json.loads(run("schema")[1])
    assert schema["additionalProperties"] is False
    assert {"providers", "models"} == set(schema["required"])
