"""Requests without room that wait for an operator, through two gateways that share a Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.doubles.mcp import McpServer, McpServers, tool
from tests.e2e.conftest import HERE, KEY, Gateway, eventually
from tests.e2e.test_mcp import MODERN, Client
from tests.e2e.test_mcp_clients import INSTALLED
from tests.e2e.test_mcp_policy import WAYS, Run
from tests.redis_server import RedisServer

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 1000, output: 2000}}}
stores: {counters: "redis://127.0.0.1:PORT"}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
usage: {cost_in_response: true}
budgets:
  - {name: one, unit: requests, limit: 0, window: total, on_exceed: ask, wait: 5m}
"""


@pytest.fixture
def gateways(start: Callable[..., Gateway], tmp_path: Path) -> Iterator[list[Gateway]]:
    RedisServer.need()
    server = RedisServer(tmp_path)
    server.start()
    yield [start(YAML.replace("PORT", str(server.port)), strict=False) for _ in range(2)]
    server.stop()


def say(gateway: Gateway, text: str) -> Any:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        return client.chat.completions.create(model="stub", messages=[{"role": "user", "content": text}], max_tokens=9)


def questions(gateway: Gateway, state: str = "open") -> list[dict[str, Any]]:
    found = gateway.http.get(f"{gateway.admin}/questions").json()["data"]
    return [question for question in found if question["state"] == state]


def decide(gateway: Gateway, id: str, decision: str, reason: str = "") -> httpx.Response:
    body = {"decision": decision, "reason": reason}
    return gateway.http.post(f"{gateway.admin}/questions/{id}", json=body)


def test_operators_decide_once_for_all_replicas(gateways: list[Gateway]):
    here, there = gateways
    with ThreadPoolExecutor(24) as pool:
        asked: list[Future[Any]] = [pool.submit(say, gateways[n % 2], f"request {n}") for n in range(8)]
        assert eventually(lambda: len(questions(here)) == 8)
        waiting = questions(here)
        assert {(each["consumer"], each["amount"], each["model"]) for each in waiting} == {("demo", "1", "stub")}
        assert not any(each.done() for each in asked)
        races = [
            (number, pool.submit(decide, gateways[side], each["id"], "approve" if number < 5 else "deny", "not today"))
            for number, each in enumerate(waiting)
            for side in (0, 1)
        ]
        statuses = [(number, race.result().status_code) for number, race in races]
        assert Counter(statuses) == Counter([*((n, 200) for n in range(8)), *((n, 409) for n in range(8))])
        ended = [each.exception() for each in asked]
    denied = [error for error in ended if error is not None]
    assert len(denied) == 3
    for error in denied:
        assert isinstance(error, openai.APIStatusError)
        assert (error.status_code, error.code) == (402, "approval_denied")
        assert "not today" in error.message
    assert sum(gateway.calls() for gateway in gateways) == 5
    assert next(each.result() for each in asked if each.exception() is None).usage.cost > 0
    assert Counter(each["state"] for each in there.http.get(f"{there.admin}/questions").json()["data"]) == {
        "used": 5,
        "denied": 3,
    }


def test_the_request_of_a_processor_that_was_killed_goes_on_at_another(gateways: list[Gateway]):
    here, there = gateways
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(say, here, "Hello")
        assert eventually(lambda: questions(there))
        [question] = questions(there)
        os.kill(here.process.pid, signal.SIGKILL)
        assert isinstance(lost.exception(), openai.APIError)
        assert decide(there, question["id"], "approve").status_code == 200
        assert say(there, "Hello").choices, "the same request, sent again"
        again = pool.submit(say, there, "Hello")
        assert eventually(lambda: questions(there))
        [other] = questions(there)
        assert other["id"] != question["id"], "an approval is used once"
        assert decide(there, other["id"], "deny").status_code == 200
        assert isinstance(again.exception(), openai.APIStatusError)
    assert (here.calls(), there.calls()) == (0, 1)


def test_a_client_that_leaves_while_its_request_waits_ends_the_wait(gateways: list[Gateway]):
    here = gateways[0]
    with pytest.raises(httpx.ReadTimeout):
        here.post("/v1/chat/completions", {"model": "stub", "messages": [{"role": "user", "content": "x"}]}, timeout=1)
    assert here.last(lambda entry: entry["operation"] == "chat")["error"] == "abandoned"
    assert eventually(lambda: here.metric("extproc_exchanges_in_flight") == 0)
    assert here.calls() == 0


@pytest.mark.exhaustive
def test_a_request_may_wait_longer_than_envoy_waits_for_the_processor(gateways: list[Gateway]):
    """Envoy ends any other message after ten seconds."""
    here = gateways[0]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(say, here, "Hello")
        [question] = eventually(lambda: questions(here))
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 12)
        assert not asked.done()
        assert decide(here, question["id"], "approve").status_code == 200
        assert asked.result().choices


TOOLS = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
stores: {counters: "redis://127.0.0.1:PORT"}
mcp:
  servers: {bank: {url: "SERVERS/bank", refresh: 1s}}
  profiles:
    dev: {servers: {bank: {}}}
    found: {servers: {bank: {changes: {pay: {fixed: {to: DE1}}}}}, discovery: search}
  tools: {bank/pay: {approve: {unless: {/amount: {maximum: 10}}}}}
  approvals: {wait: 5m}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["dev/*", "found/*"]}]
"""


@WAYS
def test_a_call_of_a_tool_waits_for_a_person_at_any_replica(
    start: Callable[..., Gateway], tmp_path: Path, version: str, profile: str
):
    RedisServer.need()
    store = RedisServer(tmp_path)
    store.start()
    bank = McpServer("bank", eras=("legacy",), tools=[tool("pay")])
    with McpServers(bank).running() as servers, ThreadPoolExecutor(8) as pool:
        text = TOOLS.replace("PORT", str(store.port)).replace("SERVERS", servers.url)
        here, there = gateways = [start(text, strict=False) for _ in range(2)]
        clients = [Run(gateway, "pay", version, profile) for gateway in gateways]
        eventually(lambda: all("bank__pay" in client.names() for client in clients))
        assert clients[0].call("bank__pay", amount=10)["result"]["content"], "a small payment needs nobody"
        before = len(bank.calls)
        waiting = [pool.submit(clients[0].call, "bank__pay", amount=amount) for amount in (50, 60)]
        assert eventually(lambda: len(questions(there)) == 2)
        assert len(bank.calls) == before
        by_amount = {one["call"]["arguments"]: one for one in questions(there)}
        fixed = ',"to":"DE1"' if profile == "found" else ""  # people are asked about fixed arguments, too
        first, second = (by_amount[f'{{"amount":{amount}{fixed}}}'] for amount in (50, 60))
        assert (first["call"]["server"], first["call"]["tool"], first["consumer"]) == ("bank", "pay", "demo")
        races = [pool.submit(decide, gateway, first["id"], "approve") for gateway in gateways]
        assert sorted(race.result().status_code for race in races) == [200, 409]
        assert decide(there, second["id"], "deny", "ask finance first").status_code == 200
        paid, denied = [each.result()["result"] for each in waiting]
        assert paid["content"][0]["text"].startswith("bank")
        assert denied["isError"] is True
        assert denied["_meta"]["llm-extproc/refusal"] == {"code": "approval_denied", "approval": second["id"]}
        assert denied["content"][0]["text"].endswith(": ask finance first.")
        assert len(bank.calls) == before + 1
        replay = pool.submit(clients[1].call, "bank__pay", amount=50)
        assert eventually(lambda: questions(here))
        [again] = questions(here)
        assert again["id"] != first["id"], "an approval is used once"
        bank.tools[0] |= {"description": "Pays somebody else."}
        changed = eventually(lambda: _definition(there) != again["call"]["definition"])
        assert changed
        assert decide(here, again["id"], "approve").status_code == 200
        refused = replay.result()["result"]
        assert (refused["isError"], "changed" in refused["content"][0]["text"]) == (True, True)
        assert len(bank.calls) == before + 1
        line = here.line(lambda line: line.get("approval") == first["id"])
        assert (line["decided_by"], line["tool"]) == ("local", "pay")
        acts = eventually(lambda: _acts(here))
        assert {act["arguments_sha256"] for act in acts} >= {first["call"]["arguments_sha256"]}
        assert '{"amount' not in json.dumps(acts)
    store.stop()


@pytest.mark.mcp_clients
def test_the_official_client_asks_its_user(start: Callable[..., Gateway]):
    """By elicitation at 2026-07-28; a client in a session of an older revision is told how to ask again."""
    python = INSTALLED / "bin" / "python"
    if not python.exists():
        pytest.skip("the clients are not installed: `make mcp` does it")
    bank = McpServer("bank", tools=[tool("pay")])
    with McpServers(bank).running() as servers:
        text = TOOLS.replace("redis://127.0.0.1:PORT", "memory:").replace("SERVERS", servers.url)
        gateway = start(text.replace("wait: 5m", "elicit: true"), strict=False)

        def pay(kind: str, amount: int, *, approve: bool) -> Any:
            steps = [["call", "bank__pay", {"amount": amount}]]
            script = {"url": f"{gateway.url}/mcp/dev", "key": KEY, "steps": steps, "answer": {"approve": approve}}
            command = [python, "-W", "ignore", HERE / "clients" / "mcp_python.py", kind, json.dumps(script)]
            env = {**os.environ, "PYTHONPATH": ""}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            return json.loads(done.stdout.splitlines()[-1])[0]

        eventually(lambda: Client(gateway, "dev", MODERN).ask("tools/list")["result"]["tools"])
        text, failed = pay("auto", 50, approve=True)
        assert (failed, len(bank.calls)) == (False, 1)
        text, failed = pay("auto", 60, approve=False)
        assert (failed, "the user said no" in text, len(bank.calls)) == (True, True, 1)
        text, failed = pay("legacy", 70, approve=True)
        assert (failed, "same arguments" in text, len(bank.calls)) == (True, True, 1)
        assert gateway.line(lambda line: line.get("decided_by") == "user")["tool"] == "pay"


def _definition(gateway: Gateway) -> str:
    [server] = gateway.http.get(f"{gateway.admin}/tools").json()["data"]
    return str(server["tools"][0]["digest"])


def _acts(gateway: Gateway) -> list[dict[str, Any]]:
    """The operators' answers in the audit trail."""
    events = [one["event"] for one in gateway.http.get(f"{gateway.admin}/audit").json()["data"]]
    return [one["extproc"]["detail"] for one in events if one["event"]["action"] == "decide"]
