"""Faults around calls of tools, and sign-in: a killed processor, silence, tokens of a company's issuer."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.doubles.mcp import McpServers, kinds
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.idp import Issuer
from tests.e2e.mcp_agent import ACCEPT, Agent, answer, message

STAFF = Issuer("https://idp.example/staff")
RESOURCE = "https://ai.acme.test"
YAML = """
mcp:
  key: env:SESSION_KEY
  resource: https://ai.acme.test
  origins: ["https://chat.acme.test"]
  servers:
    modern: {url: "SERVERS/modern", timeout: 2s}
    stateful-sse: {url: "SERVERS/stateful-sse", timeout: 2s}
  profiles:
    dev: {servers: {modern: {}, stateful-sse: {}}}
    other: {servers: {modern: {}}}
auth:
  jwt:
    - {issuer: ISSUER, audiences: ["https://ai.acme.test/mcp/dev"], jwks: "file:KEYS", prefix: "staff:"}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}
  - {name: alice, subjects: ["staff:alice"], tools: ["dev/*"]}
  - {name: bob, subjects: ["staff:bob"]}
limits: {stream_idle: 4s, keep_alive: 1s}
stores: {counters: "memory:"}
"""
CALLS = 50


@pytest.fixture(scope="module")
def servers() -> Iterator[McpServers]:
    with kinds("modern", "stateful-sse").running() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(servers: McpServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "keys.json").write_bytes(STAFF.jwks())
    yaml = YAML.replace("SERVERS", servers.url).replace("ISSUER", STAFF.url).replace("KEYS", str(folder / "keys.json"))
    yield from run_gateway(folder, yaml, (), {"SESSION_KEY": "0123456789abcdef" * 2})


SAME, OTHER = (("modern", "modern"), ("legacy", "stateful-sse")), (("modern", "stateful-sse"), ("legacy", "modern"))
"""Revisions of client and server. Answers to clients of the server's own revision pass unread."""


def silent(gateway: Gateway, pairs: Sequence[tuple[str, str]], seconds: float) -> Iterator[str]:
    """The answers of tools that say nothing for so long, after the answer has begun."""

    def call(era: str, server: str) -> str:
        client = Agent(f"{gateway.url}/mcp/dev", KEY, era=era)
        slow = {"text": "x", "steps": 1, "pause": seconds, "silent": True}
        with httpx.Client(timeout=seconds + 60, trust_env=False) as http:
            return client.call(http, f"{server}__slow", slow).said

    with ThreadPoolExecutor(len(pairs)) as pool:
        yield from pool.map(call, *zip(*pairs, strict=True))


def test_a_tool_may_be_silent_for_longer_than_the_timeout_of_its_server(gateway: Gateway) -> None:
    """`timeout` is the time until the answer begins."""
    pairs = (*SAME, *OTHER)
    assert [*silent(gateway, pairs, 3)] == [f"{server}: x" for _, server in pairs]


@pytest.mark.exhaustive
def test_a_tool_may_be_silent_for_five_minutes(start: Callable[..., Gateway], servers: McpServers) -> None:
    """With the usual settings. Answers that pass unread hold no stream to the processor meanwhile."""
    yaml = YAML.replace("SERVERS", servers.url).replace(", timeout: 2s", "")
    mcp, rest = yaml.partition("auth:")[0], "consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ['*']}]\n"
    gateway = start(mcp + rest, mocks=(), env={"SESSION_KEY": "0123456789abcdef" * 2})
    many = SAME * 25
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: [*silent(gateway, (*many, *OTHER), 305)])
        time.sleep(240)
        streams = gateway.metric("extproc_grpc_streams")
        assert asked.result() == [f"{server}: x" for _, server in (*many, *OTHER)]
    assert streams == len(OTHER), "those of answers that are read"


# --- sign-in


def metadata(gateway: Gateway, profile: str) -> httpx.Response:
    return gateway.http.get(f"{gateway.url}/.well-known/oauth-protected-resource/mcp/{profile}")


def test_a_client_without_a_token_finds_the_issuer(gateway: Gateway) -> None:
    asked = gateway.http.post(f"{gateway.url}/mcp/dev", json=message("tools/list"), headers=ACCEPT)
    assert asked.status_code == 401
    where = f'resource_metadata="{RESOURCE}/.well-known/oauth-protected-resource/mcp/dev"'
    assert where in asked.headers["www-authenticate"]
    document = metadata(gateway, "dev").json()
    assert document["resource"] == f"{RESOURCE}/mcp/dev"
    assert document["authorization_servers"] == [STAFF.url]
    assert metadata(gateway, "nope").status_code == 404


def test_tokens_for_this_profile_alone_are_taken(gateway: Gateway, servers: McpServers) -> None:
    dev, other = f"{RESOURCE}/mcp/dev", f"{RESOURCE}/mcp/other"
    for era in ("modern", "legacy"):
        token = STAFF.token(sub="alice", aud=dev)
        client = Agent(f"{gateway.url}/mcp/dev", token, era=era)
        assert client.call(gateway.http, "modern__echo", {"text": "x"}).said == "modern: x"
    assert not any(
        token.split(".")[2] in str(each.headers) for server in servers.by_name.values() for each in server.seen
    )
    for profile, wrong in (
        ("dev", STAFF.token(sub="alice", aud=other)),
        ("dev", STAFF.token(sub="alice", aud="https://elsewhere.test")),
        ("dev", STAFF.token(sub="alice", aud=None)),
        ("dev", STAFF.token(sub="alice", aud=dev, exp=int(time.time()) - 100)),
        ("dev", Issuer(STAFF.url).token(sub="alice", aud=dev)),
        ("other", STAFF.token(sub="alice", aud=dev)),
    ):
        refused = Agent(f"{gateway.url}/mcp/{profile}", wrong).send(gateway.http, "tools/list")
        assert refused.status in (401, 403), (profile, refused.text)
        assert "resource_metadata" in refused.headers["www-authenticate"]
    scarce = Agent(f"{gateway.url}/mcp/dev", STAFF.token(sub="bob", aud=dev)).send(gateway.http, "tools/list")
    assert scarce.status == 403
    assert 'error="insufficient_scope"' in scarce.headers["www-authenticate"]


def test_web_pages_of_allowed_origins_alone_may_call(gateway: Gateway) -> None:
    client = Agent(f"{gateway.url}/mcp/dev", KEY)
    allowed = client.send(gateway.http, "tools/list", origin="https://chat.acme.test")
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == "https://chat.acme.test"
    assert client.send(gateway.http, "tools/list", origin="https://evil.example").status == 403
    preflight = {"origin": "https://chat.acme.test", "access-control-request-method": "POST"}
    preflight |= {"access-control-request-headers": "authorization,mcp-method,mcp-protocol-version"}
    answered = gateway.http.options(client.url, headers=preflight)
    assert answered.status_code in (200, 204)
    assert "mcp-method" in answered.headers["access-control-allow-headers"]


# --- the last tests: they kill the processor of the file's gateway


async def test_calls_survive_a_killed_processor(gateway: Gateway, servers: McpServers) -> None:
    """Calls of the client's own era pass Python only at their beginning."""
    clients = {
        name: Agent(f"{gateway.url}/mcp/dev", KEY, era=era)
        for name, era in (("modern", "modern"), ("stateful-sse", "legacy"))
    }
    clients["stateful-sse"].open(gateway.http)
    clients["stateful-sse"].call(gateway.http, "stateful-sse__echo", {"text": "x"})
    for server in servers.by_name.values():
        server.seen.clear()

    async def one(number: int) -> str:
        name = ("modern", "stateful-sse")[number % 2]
        params = {"name": f"{name}__slow", "arguments": {"text": str(number), "steps": 8, "pause": 0.25}}
        body, headers = clients[name].request("tools/call", params | {"_meta": {"progressToken": number}}, number)
        return answer(await http.post(clients[name].url, content=body, headers=headers)).said

    async with httpx.AsyncClient(
        timeout=30, trust_env=False, verify=False, limits=httpx.Limits(max_connections=None)
    ) as http:
        calls = asyncio.gather(*map(one, range(CALLS)), return_exceptions=True)
        await asyncio.to_thread(eventually, lambda: sum(len(each.calls) for each in servers.by_name.values()) == CALLS)
        await asyncio.sleep(0.5)  # until the heads of the answers have passed, too: a call lasts two seconds
        os.kill(gateway.process.pid, signal.SIGKILL)
        found = await calls
    assert found == [f"{('modern', 'stateful-sse')[number % 2]}: {number}" for number in range(CALLS)]


def test_without_a_processor_answers_speak_json_rpc(gateway: Gateway) -> None:
    for client in (Agent(f"{gateway.url}/mcp/dev", KEY), Agent(f"{gateway.url}/mcp/nope", KEY)):
        found = client.send(gateway.http, "tools/list")
        assert found.status == 503
        said = found.last
        assert (said["jsonrpc"], "id" in said, said["error"]["code"]) == ("2.0", False, -32603)
        assert said["error"]["data"] == {"code": "gateway_restarting"}
        assert found.headers["retry-after"]
    assert gateway.chat().json()["error"]["code"] == "gateway_restarting"
