"""Recorded texts through Envoy: plain, streamed and masked ones, and how they end."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.conftest import KEY, Ended, Gateway, eventually, run_gateway

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
record: {keys: [env:RECORD_KEY], most: 4KiB}
guardrails:
  - {name: mails, kind: pii, action: mask, on: [input]}
  - {name: codes, kind: regex, patterns: {CODE: "ZEBRA-[0-9]+"}, action: audit}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}, {name: other, keys: [{env: OTHER_KEY}]}]
stores: {counters: "memory:"}
"""
KEYS = {"RECORD_KEY": "r" * 32, "OTHER_KEY": "sk-gw-other"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("texts"), YAML, ("sandbox",), KEYS)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def texts_of(gateway: Gateway, id: str) -> Any:
    def find() -> Any:
        answer: httpx.Response = gateway.http.get(f"{gateway.admin}/exchanges/{id}/texts")
        return answer.json() if answer.status_code == 200 else None

    return eventually(find)


def test_a_plain_request_is_kept_as_it_was_and_each_reading_is_audited(gateway: Gateway, extproc: Callable[..., Ended]):
    answer = gateway.chat("stub", "What is a zebra?")
    id = gateway.exchange_of(answer)["id"]
    found = texts_of(gateway, id)
    assert json.loads(found["request"])["messages"] == [{"role": "user", "content": "What is a zebra?"}]
    assert json.loads(found["answer"]) == answer.json()
    assert (found["cut"], found["withheld"], found["consumer"]) == (False, False, "demo")
    assert "What is a zebra?" in extproc("exchanges", id, "--texts", "--url", gateway.admin).stdout
    assert "needs the ID" in extproc("exchanges", "--texts", "--url", gateway.admin).stderr
    acts = [one["event"] for one in gateway.http.get(gateway.admin + "/audit").json()["data"]]
    assert sum(each.get("event", {}).get("action") == "read-texts" for each in acts) >= 2
    assert "What is a zebra?" not in gateway.log.read_text()
    with closing(sqlite3.connect(gateway.file.parent / "data" / "ledger.db")) as ledger:
        assert "zebra" not in str(ledger.execute("SELECT * FROM texts").fetchall())


def test_a_stream_is_kept_as_its_events_and_masks_stay(gateway: Gateway):
    sdk = OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    told = sdk.chat.completions.with_raw_response.create(
        model="stub", messages=[{"role": "user", "content": "Write to ada@example.com"}], stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in told.parse() if chunk.choices)
    id = gateway.last(lambda entry: entry["request_id"] == told.headers["x-request-id"])["id"]
    found = texts_of(gateway, id)
    assert text
    assert found["answer"].startswith("data: {")
    assert found["answer"].rstrip().endswith("[DONE]")
    assert "ada@example.com" not in str(found)
    assert "EMAIL" in found["request"]


def test_what_a_guardrail_only_noted_is_not_recorded(gateway: Gateway):
    before = gateway.metric("extproc_texts_recorded_total", outcome="withheld")
    answer = gateway.chat("stub", "The code is ZEBRA-1234")
    eventually(lambda: gateway.metric("extproc_texts_recorded_total", outcome="withheld") == before + 1)
    id = gateway.exchange_of(answer)["id"]
    assert gateway.http.get(f"{gateway.admin}/exchanges/{id}/texts").status_code == 404


def test_a_long_request_is_cut_and_a_forgotten_consumer_has_no_texts(gateway: Gateway):
    answer = gateway.chat("stub", "word " * 2000, key="sk-gw-other")
    id = gateway.exchange_of(answer)["id"]
    assert texts_of(gateway, id)["cut"]
    forget = {"consumer": "other", "delete": False}
    assert gateway.http.post(gateway.admin + "/ledger/forget", json=forget).status_code == 200
    assert gateway.http.get(f"{gateway.admin}/exchanges/{id}/texts").status_code == 404


def test_recorded_requests_are_replayed_once_each_at_another_model(
    start: Callable[..., Gateway], extproc: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAY_KEY", "sk-gw-replay")
    monkeypatch.setenv("EXTPROC_DEMO_KEY", KEY)
    more = """
  other: {provider: backup, model: m, price: {input: 1000, output: 1000}}
budgets: [{name: replays, match: {consumer: replayer}, unit: requests, limit: 4, window: month}]
"""
    yaml = YAML.replace(
        "{sandbox: {kind: mock,", '{backup: {kind: mock, base_url: "{mock_backup}"}, sandbox: {kind: mock,'
    )
    yaml = yaml.replace(
        "models: {stub: {provider: sandbox}}",
        "models:\n  stub: {provider: sandbox, price: {input: 1, output: 1}}" + more,
    )
    yaml = yaml.replace("consumers: [", "consumers: [{name: replayer, keys: [{env: REPLAY_KEY}]}, ")
    gateway = start(yaml, ("sandbox", "backup"), {**KEYS, "REPLAY_KEY": "sk-gw-replay"})
    for number in range(6):
        texts_of(gateway, gateway.exchange_of(gateway.chat("stub", f"Question {number}"))["id"])
    asked = "replay", "--to", "other", "--name", "one", "--key", "env:REPLAY_KEY", "--url", gateway.admin

    stopped = extproc(*asked, "--concurrency", "1")
    assert stopped.returncode == 1
    assert "stopped: budget_exceeded" in stopped.stderr
    assert len(gateway.seen("backup")) == 4
    grant = {"budget": "replays", "scope": "replays", "amount": "4"}
    assert gateway.http.post(gateway.admin + "/grants", json=grant).status_code == 201
    eventually(lambda: len([one for one in gateway.exchanges() if one.get("labels", {}).get("replay") == "one"]) == 5)
    ended = extproc(*asked)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "6 of 6 requests are replayed at other (2 ok)" in ended.stdout
    bodies = [each["body"] for each in gateway.seen("backup")]
    assert sorted(body["messages"][0]["content"] for body in bodies) == [f"Question {number}" for number in range(6)]
    assert "nothing left to send" in extproc(*asked).stdout

    def compared(*more: str) -> Ended:
        return extproc("compare", "--replay", "one", "--url", gateway.admin, *more)

    eventually(lambda: json.loads(compared("--format", "json").stdout)["classes"][0]["b"]["exchanges"] == 6)
    eventually(lambda: "6 of 6 pairs" in compared("--judge", "stub", "--key", "env:EXTPROC_DEMO_KEY").stdout)
    assert "A is better in 0, B in 0, alike 6" in compared("--judge", "stub", "--key", "env:EXTPROC_DEMO_KEY").stdout
    nobody = compared("--judge", "nobody", "--key", "env:EXTPROC_DEMO_KEY").stdout
    assert "not judged: 6, the first: the judge: " in nobody
    assert (
        "needs --shadow or --replay" in extproc("compare", "a", "b", "--judge", "stub", "--url", gateway.admin).stderr
    )
    gateway.fault("backup", "status=500")
    failing = extproc(*[each.replace("one", "two") for each in asked], "--limit", "2")
    assert "Failed: 100.0% more than at first" in failing.stdout
    assert "--name has" in extproc(*asked[:3], "--name", "A B", *asked[5:]).stderr
