import json
import os
import stat
from pathlib import Path

import pytest

from extproc.envoy.envoy_config import write_secrets
from extproc.envoy.envoy_config.secrets import secret_file, secret_name
from extproc.settings.config import parse
from extproc.upstream.credentials.rotation import write_secret

SETTINGS = parse("""
providers:
  openai: {kind: openai, api_key: env:TEST_OPENAI_KEY}
  custom: {kind: openai, base_url: https://llm.example.com/v1, api_key: env:TEST_CUSTOM_KEY}
  retired: {kind: openai, api_key: env:TEST_OPENAI_KEY, disabled: true}
  stub: {kind: mock}
  vertex: {kind: gcp_vertex_ai, project: p, region: r, credentials: {google: metadata}}
  azure:
    kind: azure_openai
    base_url: https://acme.openai.azure.com
    credentials: {azure: {tenant: t, client_id: c, client_secret: env:TEST_CUSTOM_KEY}}
models: {m: {provider: openai}}
""")
FILES = ["azure", "custom", "openai", "retired", "vertex"]


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("TEST_OPENAI_KEY", 'sk-"quoted": yes')
    monkeypatch.delenv("TEST_CUSTOM_KEY", raising=False)


def key(directory: Path, provider: str) -> str:
    (secret,) = json.loads(Path(secret_file(directory, provider)).read_text())["resources"]
    assert secret["name"] == secret_name(provider)
    return secret["generic_secret"]["secret"]["inline_string"]


def test_each_provider_with_a_key_has_a_file(tmp_path):
    place = tmp_path / "run" / "secrets"
    assert write_secrets(SETTINGS, place) == ["custom", "azure"]
    assert sorted(path.stem for path in place.iterdir()) == FILES
    assert key(place, "openai") == 'sk-"quoted": yes'
    assert key(place, "retired") == 'sk-"quoted": yes'  # it can be enabled while Envoy runs


def test_a_missing_key_is_an_empty_secret(tmp_path):
    write_secrets(SETTINGS, tmp_path)
    assert key(tmp_path, "custom") == ""


def test_a_token_is_an_empty_secret_until_a_processor_has_fetched_one(tmp_path, monkeypatch):
    write_secrets(SETTINGS, tmp_path)
    assert key(tmp_path, "vertex") == key(tmp_path, "azure") == ""
    monkeypatch.setenv("TEST_CUSTOM_KEY", "of-the-application")
    for provider in ("vertex", "azure"):
        write_secret(tmp_path, provider, "token")
    write_secrets(SETTINGS, tmp_path)
    assert key(tmp_path, "vertex") == key(tmp_path, "azure") == "token"
    monkeypatch.delenv("TEST_CUSTOM_KEY")
    write_secrets(SETTINGS, tmp_path)
    assert (key(tmp_path, "vertex"), key(tmp_path, "azure")) == ("token", "")


def test_only_the_owner_can_read_them(tmp_path):
    place = tmp_path / "secrets"
    place.mkdir(mode=0o755)
    previous = os.umask(0)
    try:
        write_secrets(SETTINGS, place)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}


def test_a_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    write_secrets(SETTINGS, tmp_path)
    path = Path(secret_file(tmp_path, "openai"))
    before = path.stat().st_ino
    monkeypatch.setenv("TEST_OPENAI_KEY", "sk-new")
    with path.open() as old:
        write_secrets(SETTINGS, tmp_path)
        assert "quoted" in old.read()  # a reader in the middle keeps the whole old file
    assert path.stat().st_ino != before
    assert key(tmp_path, "openai") == "sk-new"


def test_a_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch):
    write_secrets(SETTINGS, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_secrets(SETTINGS, tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == FILES
    assert key(tmp_path, "openai") == 'sk-"quoted": yes'
