"""`extproc check --live` and `extproc exchanges`, through real gateways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.conftest import KEY, Ended, Gateway, eventually


def test_each_provider_is_asked_once(demo: Gateway, extproc: Callable[..., Ended], tmp_path: Path, monkeypatch):
    monkeypatch.delenv("LIVE_MISSING", raising=False)
    file = tmp_path / "gateway.yaml"
    file.write_text(f"""
providers:
  works: {{kind: vllm, base_url: "{demo.mocks["sandbox"]}/v1"}}
  fails: {{kind: vllm, base_url: "{demo.mocks["sandbox"]}/v1"}}
  dead: {{kind: vllm, base_url: "http://127.0.0.1:9/v1"}}
  keyless: {{kind: openai, api_key: env:LIVE_MISSING}}
  unused: {{kind: vllm, base_url: "{demo.mocks["sandbox"]}/v1"}}
  built-in: {{kind: mock}}
models:
  "works/*": {{provider: works}}
  m: {{provider: works, model: stub}}
  f: {{provider: fails, model: stub+status=404}}
  d: {{provider: dead, model: x}}
  "openai/*": {{provider: keyless}}
  b: {{provider: built-in}}
auth: {{required: false}}
""")
    done = extproc("check", "-c", file, "--live")
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(line.startswith("ok    works: m answered 200 in ") for line in lines), done.stdout + done.stderr
    found = next(number for number, line in enumerate(lines) if line.startswith("WRONG fails: f answered 404 in "))
    assert "      the provider does not know this model" in lines[found:]
    assert any(line.startswith("WRONG dead: d answered 503 in ") for line in lines)
    assert "WRONG keyless: its key is not set" in lines
    assert "--    unused: not asked: no model of the settings leads to it" in lines
    assert "--    built-in: not asked: the mock is built in" in lines


def test_an_exchange_is_found_in_the_list_and_by_its_id(demo: Gateway, extproc: Callable[..., Ended]):
    body = {"model": "stub", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "exchanges-of-the-terminal"}
    answer = httpx.post(f"{demo.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200

    def listed() -> list[dict[str, object]]:
        done = extproc("exchanges", "-c", demo.file, "--format", "json", "-n", "200", "--only", "model=stub")
        assert done.returncode == 0, done.stderr
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        return [entry for entry in entries if entry["request_id"] == answer.headers["x-request-id"]]

    entry = eventually(listed)[0]
    shown = extproc("exchanges", "-c", demo.file, str(entry["id"])).stdout.splitlines()
    assert [line.split() for line in shown if line.startswith(("status ", "model "))] == [
        ["model", "stub"],
        ["status", "200"],
    ]
