"""The operators' desk over settings in force: keys, models, the trail."""

import logging
import socket
import threading
from pathlib import Path

import pytest

from extproc.access.auth import hash_key
from extproc.envoy.server.checking import Checker
from extproc.money.ledger import LedgerError, open_ledger
from extproc.money.ledger.operators import TooManyKeysError
from extproc.operate.reports import ReportError
from extproc.operate.reports.desk import Desk
from extproc.routing.catalog import Catalog
from extproc.settings import config

NOW = 1_795_000_000.0
YAML = """
providers:
  here: {kind: mock, base_url: "http://127.0.0.1:1/v1"}
  off: {kind: mock, base_url: "http://127.0.0.1:2/v1", disabled: true}
models:
  big: {provider: here, price: {input: 2.5, output: 10}}
  small: {provider: off}
  "any/*": {provider: here}
virtual_models: {assistant: {targets: [{model: big}, {model: small}]}}
auth: {key_secret: env:DESK_SECRET}
consumers:
  - {name: ada, keys: [{env: A, name: own}, {env: B, expires: 2026-11-01}]}
  - {name: bob, keys: [{env: C}], models: [small]}
  - {name: eve, disabled: true, keys: [{env: D}]}
"""


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setenv("DESK_SECRET", "s" * 32)
    settings = config.parse(YAML)
    catalog = Catalog(settings.providers, settings.models, settings.virtual_models)
    ledger = open_ledger("memory:")
    found = Desk(
        ledger,
        lambda: settings,
        lambda: catalog,
        checker=Checker(Path()),
        now=lambda: found.at,
    )
    found.at = NOW
    yield found
    ledger.close()


def states(desk):
    return {(key["consumer"], key["name"]): (key["origin"], key["state"]) for key in list(desk.keys())}


def test_a_key_is_issued_as_a_hash_and_its_state_is_shown(desk):
    made = desk.issue("ada", "laptop", 100.0, "zoe@example.com")
    assert made["key"].startswith("sk-gw-")
    assert made["expires_at"] == "2026-11-18T11:08:20Z"
    [stored] = desk._operators.keys()
    assert desk.keys()[-1]["ending"] == stored.ending == made["key"][-4:]
    assert (stored.hash, stored.created_by) == (hash_key(made["key"], "s" * 32), "zoe@example.com")
    assert made["key"] not in str(desk.keys())
    other = desk.issue("ada", "other", None, "zoe")
    desk.issue("eve", "own", None, "zoe")
    desk.at = NOW + 101
    assert desk.revoke_key(other["id"])
    assert not desk.revoke_key(other["id"])
    assert states(desk) == {
        ("ada", "own"): ("settings", "active"),
        ("ada", "1"): ("settings", "expired"),
        ("bob", "0"): ("settings", "active"),
        ("eve", "0"): ("settings", "disabled"),
        ("ada", "laptop"): ("console", "expired"),
        ("ada", "other"): ("console", "revoked"),
        ("eve", "own"): ("console", "disabled"),
    }
    desk.issue("ada", "other", None, "zoe")  # the name of a revoked key is free


def test_a_key_that_cannot_be_issued_is_refused_with_the_reason(desk, monkeypatch):
    for consumer, name, status in (("nobody", "x", 404), ("ada", "own", 409)):
        with pytest.raises(ReportError) as refused:
            desk.issue(consumer, name, None, "zoe")
        assert refused.value.status == status
    monkeypatch.setattr("extproc.money.ledger.operators.MAX_KEYS", 0)
    with pytest.raises(TooManyKeysError, match="none of them is revoked"):
        desk.issue("ada", "x", None, "zoe")
    monkeypatch.delenv("DESK_SECRET")
    with pytest.raises(ReportError, match=r"auth\.key_secret"):
        desk.issue("ada", "x", None, "zoe")


def test_keys_are_made_while_the_file_of_the_secret_is_away(tmp_path):
    """Requests with hashed keys go on with the last secret, so new keys are hashed with it too."""
    file = tmp_path / "key-secret"
    file.write_text("s" * 32)
    settings = config.parse(YAML.replace("env:DESK_SECRET", f"file:{file}"))
    file.unlink()
    ledger = open_ledger("memory:")
    desk = Desk(ledger, lambda: settings, Catalog, checker=Checker(Path()))
    made = desk.issue("ada", "laptop", None, "zoe")
    assert ledger.operators.keys()[0].hash == hash_key(made["key"], "s" * 32)
    ledger.close()


def test_the_catalogue_has_targets_prices_and_grants(desk):
    found = {model["name"]: model for model in desk.models(None)}
    assert list(found) == ["big", "small", "assistant", "any/*"]
    assert {name: model["consumers"] for name, model in found.items()} == {
        "big": 1,
        "small": 2,
        "assistant": 1,
        "any/*": 1,
    }
    assert found["assistant"]["strategy"] == "fallback"
    assert [target["name"] for target in found["assistant"]["targets"]] == ["big", "small"]
    assert found["big"]["targets"][0]["usd_per_million"] == {"input": 2.5, "cached_input": 2.5, "output": 10.0}
    assert (found["small"]["targets"][0]["unavailable"], found["any/*"]["targets"]) == ("it is disabled", [])
    assert [model["name"] for model in desk.models("bob")] == ["small"]
    assert desk.models("nobody") == []


def test_an_act_is_logged_even_when_the_trail_cannot_be_written(desk, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    desk.record("zoe", "admin", "grant", {"amount": "5"})
    [entry] = desk.trail(5, None)
    assert (entry["number"], entry["event"]["user"]) == (1, {"name": "zoe", "roles": ["admin"]})
    assert (entry["event"]["event"]["action"], entry["event"]["extproc"]) == ("grant", {"detail": {"amount": "5"}})

    def fail(*_):
        raise LedgerError("the ledger does not answer")

    monkeypatch.setattr(desk._trail, "append", fail)
    monkeypatch.setattr(desk._trail, "latest", fail)
    desk.record("zoe", "admin", "revoke", {"id": "g-1"})
    assert "operator 'zoe' (admin): revoke" in caplog.text
    assert "the audit trail has no entry of it" in caplog.text
    with pytest.raises(LedgerError, match="does not answer"):
        desk.trail(1, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{", "the answer ended early"),
        (b"", "the answer ended early|does not answer here"),
        (None, "the gateway's listener does not answer here"),
    ],
)
def test_a_playground_without_an_answer_says_why(desk, monkeypatch, answer, reason):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = config.parse(f"listener: {{port: {listener.getsockname()[1]}}}\n{YAML}")
        monkeypatch.setattr(desk, "_settings", lambda: settings)

        def serve():
            connection, _ = listener.accept()
            with connection:
                asked = b""
                while not asked.endswith(b"{}"):  # else the end of the connection could overtake the answer
                    asked += connection.recv(65536)
                connection.sendall(answer)

        if answer is None:
            listener.close()
        else:
            threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(ReportError, match=reason):
            desk.play("sk-gw-x", b"{}")


def test_a_link_to_traces_is_an_address_with_a_place_for_the_id(desk, monkeypatch):
    assert desk.trace_link() == ""

    def parsed(link):
        return config.parse(f'telemetry: {{traces: {{otlp: "http://127.0.0.1:1", link: "{link}"}}}}\n{YAML}')

    settings = parsed("https://grafana.example.com/explore?q={id}")
    monkeypatch.setattr(desk, "_settings", lambda: settings)
    assert desk.trace_link() == "https://grafana.example.com/explore?q={id}"
    for wrong in ("javascript:alert({id})", "https://grafana.example.com/explore", "https://a b/{id}"):
        with pytest.raises(ValueError, match="link"):
            parsed(wrong)
