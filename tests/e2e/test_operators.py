"""Operators of a running gateway: keys that they make, records that they end, and the trail of both."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.admin.idp import CLIENT, SECRET, Provider
from tests.e2e.conftest import Gateway, eventually, run_gateway

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
auth: {key_secret: env:KEY_SECRET}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: ada, team: blue, models: [stub]}
teams: {blue: {models: ["*"]}}
processor: {workers: 2}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("operators"), YAML, ("sandbox",), {"KEY_SECRET": "s" * 64})


def made(gateway: Gateway, name: str, **more: Any) -> Any:
    answer = gateway.http.post(gateway.admin + "/keys", json={"consumer": "ada", "name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def several(gateway: Gateway, key: str) -> list[httpx.Response]:
    """Answers to enough requests to meet every worker."""
    return [gateway.chat(key=key) for _ in range(24)]


def statuses(gateway: Gateway, key: str) -> set[int]:
    return {answer.status_code for answer in several(gateway, key)}


def test_every_worker_knows_a_key_and_its_end_within_seconds(gateway: Gateway):
    key = made(gateway, "laptop")
    eventually(lambda: statuses(gateway, key["key"]) == {200})
    entry = gateway.exchange_of(gateway.chat(key=key["key"]))
    assert (entry["consumer"], entry["team"]) == ("ada", "blue")
    report = gateway.admin + "/usage?group_by=key"
    eventually(lambda: "ada#laptop" in gateway.http.get(report).text)
    assert key["key"].encode() not in b"".join(
        path.read_bytes() for path in (gateway.file.parent / "data").iterdir() if path.is_file()
    )
    body = {"key": key["key"], "body": {"model": "stub", "messages": [{"role": "user", "content": "Hello"}]}}
    played = gateway.http.post(gateway.admin + "/playground", json=body).json()
    assert played["status"] == 200
    assert "choices" in played["content"]
    assert gateway.last(lambda entry: entry["request_id"] == played["headers"]["x-request-id"])["consumer"] == "ada"
    assert gateway.http.get(gateway.admin + "/models?consumer=ada").json()["data"][0]["name"] == "stub"
    door = gateway.http.get(gateway.admin + "/me").json()["door"]
    assert gateway.url.endswith(f":{door['port']}")
    assert gateway.http.delete(f"{gateway.admin}/keys/{key['id']}").status_code == 204
    eventually(lambda: statuses(gateway, key["key"]) == {401})
    trail = [entry["event"] for entry in gateway.http.get(gateway.admin + "/audit").json()["data"]]
    acts = [entry["event"]["action"] for entry in trail if "roles" in entry.get("user", {})]
    assert acts[:3] == ["revoke-key", "playground", "issue-key"]
    assert key["key"] not in gateway.log.read_text()


def test_the_audit_trail_is_whole_and_so_is_its_copy(
    start: Any, extproc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = tmp_path / "copy" / "audit.jsonl"
    more = f"""
audit: {{file: "{copy}"}}
guardrails: [{{name: words, kind: regex, action: block, patterns: {{canary: CANARY}}}}]
budgets: [{{name: many, unit: requests, limit: 1000000, window: total}}]
"""
    gateway = start(YAML + more, env={"KEY_SECRET": "s" * 64})
    key = gateway.http.post(gateway.admin + "/keys", json={"consumer": "ada", "name": "laptop"}).json()["key"]
    eventually(lambda: statuses(gateway, key) == {200})
    for _ in range(8):
        assert gateway.chat("stub", "CANARY", key=key).status_code == 400
    assert int(gateway.http.post(f"{gateway.admin}/budgets/many/reset", json={"scope": "many"}).json()["settled"]) > 0
    assert gateway.http.get(f"{gateway.admin}/budgets/many").json()["data"][0]["scopes"] == []

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in copy.read_text().splitlines()] if copy.exists() else []

    wanted = {"issue-key", "guardrail", "refusal", "reset-count"}
    assert eventually(lambda: wanted <= {line["event"]["action"] for line in lines()})
    refused = [line for line in lines() if line["event"]["action"] == "refusal"]
    assert {line["user"]["name"] for line in refused if "user" in line} == {"ada"}
    assert key not in copy.read_text()
    status, out, _ = extproc("audit", "verify", str(copy))
    assert (status, out.splitlines()[0].startswith("whole: entries 1 to ")) == (0, True)
    noted = out.splitlines()[-1].removeprefix("last: ")
    for name in ("KEY_SECRET", "EXTPROC_DEMO_KEY"):
        monkeypatch.setenv(name, "s" * 64)
    monkeypatch.chdir(gateway.file.parent)  # the ledger's path is relative
    status, out, err = extproc("audit", "verify", "--config", str(gateway.file), "--holds", noted)
    assert err == ""
    assert (status, out.splitlines()[0].startswith("whole: ")) == (0, True)
    first, second, *rest = copy.read_text().splitlines(keepends=True)
    for changed in ([first.replace("laptop", "server"), second], [second, first], [first]):
        copy.write_text("".join([*changed, *rest]))
        status, out, _ = extproc("audit", "verify", str(copy))
        assert (status, out.startswith("broken: ")) == (1, True), changed
    copy.write_text("".join([second, *rest]))
    assert extproc("audit", "verify", str(copy))[0] == 0, "older entries may be deleted"
    assert extproc("audit", "verify", str(copy), "--holds", f"1:{'0' * 64}")[0] == 1


def test_a_consumer_is_exported_and_forgotten(gateway: Gateway, extproc: Any):
    key = made(gateway, "other")["key"]
    answers: list[httpx.Response] = []

    def all_accept() -> bool:
        answers.extend(latest := several(gateway, key))
        return {answer.status_code for answer in latest} == {200}

    eventually(all_accept)
    wanted = {answer.headers["x-request-id"] for answer in answers if answer.status_code == 200}

    def exported() -> list[dict[str, Any]]:
        lines = extproc("ledger", "export", "--consumer", "ada", "--url", gateway.admin).stdout.splitlines()
        return [json.loads(line) for line in lines]

    eventually(lambda: wanted <= {row["request_id"] for row in exported()})
    assert {row["consumer"] for row in exported()} == {"ada"}
    eventually(
        lambda: (
            "rows anonymised"
            in (told := extproc("ledger", "forget", "--consumer", "ada", "--url", gateway.admin).stdout)
            and told
        )
    )
    assert all(entry.get("consumer") != "ada" for entry in gateway.exchanges())
    assert exported() == []
    assert extproc("ledger", "forget", "--consumer", "ada", "--delete", "--url", gateway.admin).returncode == 0
    assert "made anew" in extproc("ledger", "rebuild", "--url", gateway.admin).stdout
    for wrong in (("forget",), ("rebuild", "--consumer", "ada"), ("export", "--consumer", "ada", "--delete")):
        assert extproc("ledger", *wrong, "--url", gateway.admin).returncode == 1


def first_worker(gateway: Gateway) -> int:
    """The process id of the worker that serves the admin API, by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(gateway.file) in words and words[-3:-1] == ["--worker", "0"]:
            return int(folder.name)
    return 0


def test_a_session_outlives_the_process_that_began_it_and_its_end_does_too(start: Callable[..., Gateway]):
    with Provider().running() as provider:
        console = "http://127.0.0.1:1"  # the redirect of the client; the test follows it to the API itself
        oidc = f"issuer: '{provider.url}', client_id: {CLIENT}, client_secret: env:OIDC_SECRET, url: '{console}'"
        oidc += ", roles: realm.groups, viewers: ['*'], operators: [ops]"
        env = {"KEY_SECRET": "s" * 64, "OIDC_SECRET": SECRET}
        gateway = start(YAML, env=env, admin=f"oidc: {{{oidc}}}")
        with httpx.Client(base_url=gateway.admin, trust_env=False) as browser:

            def status() -> int:
                try:
                    return browser.get("/audit").status_code
                except httpx.TransportError:
                    return 0  # the worker is away

            def restarted() -> None:
                killed = first_worker(gateway)
                os.kill(killed, signal.SIGKILL)
                eventually(lambda: first_worker(gateway) not in (0, killed) and status() != 0, 30)

            assert status() == 401
            begun = browser.get("/auth/login")
            back = httpx.get(begun.headers["location"], trust_env=False).headers["location"]
            restarted()
            assert browser.get(back.removeprefix(console)).headers["location"] == f"{console}/"
            assert status() == 403, "an operator's role has no audit trail"
            restarted()
            assert status() == 403
            assert browser.get("/me").json()["name"] == "zoe@example.com"
            ended = browser.cookies.get("extproc_session")
            assert browser.post("/auth/logout", json={}).status_code == 204
            browser.cookies.set("extproc_session", ended, domain="127.0.0.1")
            assert status() == 401
            restarted()
            assert status() == 401


def test_a_change_that_an_operator_writes_takes_effect(start: Callable[..., Gateway]):
    gateway = start(YAML, env={"KEY_SECRET": "s" * 64}, admin="apply_settings: true")

    def change(path: list[str | int], value: Any) -> Any:
        file = gateway.http.get(gateway.admin + "/settings").json()
        asked = {"digest": file["digest"], "edits": [{"path": path, "value": value}], "apply": True}
        return gateway.http.post(gateway.admin + "/settings", json=asked).json()

    assert gateway.chat().status_code == 200
    assert change(["models", "stub", "disabled"], value=True)["applied"]
    eventually(lambda: gateway.chat().status_code == 503)
    refused = change(["models", "stub", "context"], value="wide")
    assert (refused["loads"], refused["applied"]) == (False, False)
    assert "models.stub.context" in refused["lines"][0]
    assert change(["models", "stub", "disabled"], value=False)["applied"]
    eventually(lambda: gateway.chat().status_code == 200)
