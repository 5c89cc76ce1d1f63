"""Three processors that share their counters in Redis: budgets of calls, rows, and sessions of MCP clients."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.doubles.mcp import McpServers, kinds
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.mcp_agent import Agent, Answer, answer
from tests.e2e.test_workers import socket_of, worker
from tests.redis_server import RedisServer

YAML = """
processor: {workers: 3}
stores: {counters: "redis://127.0.0.1:REDIS"}
mcp:
  key: env:SESSION_KEY
  servers:
    modern: {url: "SERVERS/modern"}
    stateful: {url: "SERVERS/stateful"}
    free: {url: "SERVERS/stateful-sse"}
  profiles:
    dev: {servers: {modern: {}, stateful: {}, free: {}}}
  tools:
    free/echo: {untrusted: true}
    free/told: {sensitive: true}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}]
budgets:
  - {name: three-hundred, match: {mcp_server: modern}, unit: tool_calls, limit: 300, window: total}
  - {name: two-hundred, match: {mcp_server: stateful}, unit: tool_calls, limit: 200, window: total}
limits: {lease: 5s}
"""
AT_ONCE = 200


@pytest.fixture(scope="module")
def servers() -> Iterator[McpServers]:
    with kinds("modern", "stateful", "stateful-sse").running() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(servers: McpServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    RedisServer.need()
    folder = tmp_path_factory.mktemp("fleet")
    redis = RedisServer(folder)
    redis.start()
    yaml = YAML.replace("REDIS", str(redis.port)).replace("SERVERS", servers.url)
    try:
        yield from run_gateway(folder, yaml, (), {"SESSION_KEY": "0123456789abcdef" * 2}, up=True)
    finally:
        redis.stop()


def outcome(found: Answer | BaseException) -> str:
    """`done`, the code of a refusal, or `cut` for a call without an answer of its server or a processor."""
    if isinstance(found, BaseException) or not found.messages:
        return "cut"
    if "error" in found.last:
        code = str(found.last["error"].get("data", {}).get("code", found.code))
        return "cut" if code in ("gateway_restarting", "internal_error") else code  # Envoy's own answers
    return str(found.result["_meta"]["llm-extproc/refusal"]["code"]) if found.result.get("isError") else "done"


async def calls(gateway: Gateway, tool: str, count: int) -> list[Answer | BaseException]:
    """So many calls of a tool that takes half a second, `AT_ONCE` of them in flight."""
    client, room = Agent(f"{gateway.url}/mcp/dev", KEY), asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(timeout=60, trust_env=False, verify=False, limits=limits) as http:

        async def one(number: int) -> Answer:
            params = {"name": tool, "arguments": {"text": str(number), "steps": 1, "pause": 0.5}}
            body, headers = client.request("tools/call", params, number)
            async with room:
                return answer(await http.post(client.url, content=body, headers=headers))

        return await asyncio.gather(*map(one, range(count)), return_exceptions=True)


def rows(gateway: Gateway, tool: str) -> Counter[str]:
    """The rows of the ledger about a tool, by error: `` for calls that were done."""
    found = gateway.http.get(f"{gateway.admin}/usage?group_by=error&model={tool}").json()
    return Counter({str(each["group"]["error"] or ""): int(each["requests"]) for each in found["data"]})


def count(gateway: Gateway, budget: str) -> tuple[int, int]:
    """Settled and reserved calls."""
    [found] = gateway.http.get(f"{gateway.admin}/budgets/{budget}").json()["data"]
    return sum(int(each["settled"]) for each in found["scopes"]), sum(int(each["reserved"]) for each in found["scopes"])


def legacy(gateway: Gateway) -> Agent:
    client = Agent(f"{gateway.url}/mcp/dev", KEY, era="legacy")
    client.open(gateway.http)
    return client


async def test_a_budget_of_calls_is_exact_over_three_processors(gateway: Gateway, servers: McpServers) -> None:
    tool = "modern__slow"
    found = Counter(map(outcome, await calls(gateway, tool, 500)))
    assert found == {"done": 300, "budget_exceeded": 200}
    assert len(servers["modern"].calls) == 300
    shares = [gateway.metric("extproc_requests_total", worker=str(number)) for number in range(3)]
    assert min(shares) > 50, "all three decided"
    eventually(lambda: count(gateway, "three-hundred") == (300, 0))
    eventually(lambda: rows(gateway, tool) == {"": 300, "budget_exceeded": 200})


async def test_rows_are_the_calls_although_a_processor_is_killed(gateway: Gateway, servers: McpServers) -> None:
    """Every call that reached its server has a row and was counted once, and none went beyond the budget. A call that
    the dead processor reserved and that did not leave is counted too, once its lease is over.
    """
    tool, socket = "stateful__slow", socket_of(gateway)
    killed = worker(1, socket)
    sending = asyncio.create_task(calls(gateway, tool, 400))
    await asyncio.to_thread(eventually, lambda: len(servers["stateful"].calls) >= 50)
    os.kill(killed, signal.SIGKILL)
    found = Counter(map(outcome, await sending))
    reached = len(servers["stateful"].calls)
    assert set(found) <= {"done", "cut", "budget_exceeded", "mcp_server_unavailable"}, found
    assert found["done"] <= reached <= 200
    eventually(lambda: count(gateway, "two-hundred")[1] == 0)
    charged = count(gateway, "two-hundred")[0]
    assert reached <= charged <= 200
    assert charged - reached <= found["cut"]
    eventually(lambda: rows(gateway, tool).total() - rows(gateway, tool)["budget_exceeded"] == charged)


def test_a_session_that_its_client_has_ended_is_refused_by_every_processor(gateway: Gateway) -> None:
    client = legacy(gateway)
    assert {client.send(gateway.http, "ping").status for _ in range(12)} == {200}, "any processor takes it"
    ended = [gateway.http.delete(client.url, headers=client.headers | client.session).status_code for _ in range(3)]
    assert ended == [204, 404, 404]
    assert {client.send(gateway.http, "ping").status for _ in range(12)} == {404}


def test_a_cancellation_reaches_the_server_whichever_processor_gets_it(gateway: Gateway, servers: McpServers) -> None:
    server, names = servers["stateful-sse"], [f"given up {number}" for number in range(6)]
    for name in names:
        client = legacy(gateway)
        body, headers = client.request("tools/call", {"name": "free__slow", "arguments": {"pause": 10}}, name)
        with gateway.http.stream("POST", client.url, content=body, headers=headers):
            assert client.send(gateway.http, "notifications/cancelled", {"requestId": name}, None).status == 202

    def told() -> set[str]:
        return {each.body["params"]["requestId"] for each in server.seen if each.method == "notifications/cancelled"}

    eventually(lambda: told() >= {*names})


def test_the_end_of_a_session_ends_those_that_all_processors_have_at_servers(
    gateway: Gateway, servers: McpServers
) -> None:
    client, server = legacy(gateway), servers["stateful-sse"]
    server.forget()
    for _ in range(12):
        client.send(gateway.http, "prompts/get", {"name": "free__greet", "arguments": {"name": "Ada"}})
    used = {each.session for each in server.calls}
    assert len(used) > 1, "one for each processor"
    assert used <= {*server.opened}
    assert gateway.http.delete(client.url, headers=client.headers | client.session).status_code == 204
    eventually(lambda: not used & {*server.opened})


def test_an_untrusted_answer_taints_the_run_for_every_processor(gateway: Gateway) -> None:
    client = Agent(f"{gateway.url}/mcp/dev", KEY)

    def outcomes(run: str) -> set[str]:
        params = {"name": "free__told", "arguments": {}}
        return {outcome(client.send(gateway.http, "tools/call", params, x_ai_run=run)) for _ in range(12)}

    assert outcomes("one") == {"done"}
    echo = {"name": "free__echo", "arguments": {"text": "x"}}
    assert outcome(client.send(gateway.http, "tools/call", echo, x_ai_run="one")) == "done"
    eventually(lambda: outcomes("one") == {"untrusted_context"})
    assert outcomes("two") == {"done"}


def test_calls_go_on_in_new_sessions_when_a_server_ends_those_of_all_processors(
    gateway: Gateway, servers: McpServers
) -> None:
    client, server = legacy(gateway), servers["stateful-sse"]

    def done() -> int:
        found = (client.send(gateway.http, "prompts/get", {"name": "free__greet"}, n) for n in range(12))
        return sum("result" in each.last for each in found)

    assert done() == 12
    server.opened.clear()
    assert done() == 12
    server.forget()
    assert done() == 12
    assert len(server.calls) <= 12 + 3, "each processor had one session that ended"
