"""Abusive messages of MCP through a real Envoy: none is answered with a 5xx, and none reaches a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.mcp import McpServer, McpServers, tool
from tests.e2e.abuse.mcp import CASES, GOOD, GOOD_LEGACY, LIMIT, Case
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.mcp_agent import Agent
from tests.e2e.raw import Reply, send

YAML = f"""
mcp:
  key: env:SESSION_KEY
  origins: ["https://chat.acme.test"]
  servers:
    a: {{url: "SERVERS/a", refresh: 1h}}
    a__b: {{url: "SERVERS/a__b", refresh: 1h}}
    plain: {{url: "SERVERS/plain", refresh: 1h}}
  profiles:
    dev: {{servers: {{a: {{}}, a__b: {{}}, plain: {{prefix: "", resources: ["test://*"]}}}}}}
    other: {{servers: {{plain: {{prefix: ""}}}}}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}], tools: ["dev/a__b__d", "dev/echo", "other/*"]}}
  - {{name: foreign, keys: [{{env: FOREIGN_KEY}}], tools: ["dev/*"]}}
limits: {{request_body: {LIMIT}B, json_depth: 128}}
stores: {{counters: "memory:"}}
"""
KEYS = {"FOREIGN_KEY": "sk-gw-foreign", "SESSION_KEY": "0123456789abcdef" * 2}


@pytest.fixture(scope="module")
def servers() -> Iterator[McpServers]:
    made = (
        McpServer("a", tools=[tool("b__c")]),
        McpServer("a__b", tools=[tool("d"), tool("secret")]),
        McpServer("plain", tools=[tool("echo")], resources=[{"uri": "hidden://x", "name": "x"}], templates=[]),
    )
    with McpServers(*made).running() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(servers: McpServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("mcp"), YAML.replace("SERVERS", servers.url), (), KEYS)


@pytest.fixture(scope="module")
def sessions(gateway: Gateway) -> dict[str, str]:
    """Good sessions: the consumer's own, that of another consumer, and the own one of another profile."""
    found = {}
    for name, profile, key in (("session", "dev", KEY), ("foreign", "dev", "sk-gw-foreign"), ("other", "other", KEY)):
        client = Agent(f"{gateway.url}/mcp/{profile}", key, era="legacy", able={"elicitation": {}})
        client.open(gateway.http)
        found[name] = client.session["mcp-session-id"]
    return found | {"half": found["session"][: len(found["session"]) // 2], "upper": found["session"].swapcase()}


def filled(piece: bytes, sessions: dict[str, str]) -> bytes:
    for name, session in sessions.items():
        piece = piece.replace(b"{%s}" % name.encode(), session.encode())
    return piece


def calls(servers: McpServers) -> int:
    return sum(len(each.calls) for each in servers.by_name.values())


def check(case: Case, reply: Reply | None) -> None:
    """It was refused: by a 4xx, by an error in the answer, or by the end of the connection."""
    if reply is None:
        return
    assert reply.status < 500, reply.status
    if case.statuses:
        assert reply.status in case.statuses, (reply.status, reply.body[:200])
    if reply.status == 200 and not case.statuses:
        told = json.loads(reply.body)
        assert "error" in told or told["result"].get("isError"), reply.body[:300]
    assert not [name for name in reply.headers if name.startswith(("x-extproc-", "x-envoy-"))]
    if reply.status in (400, 401, 403, 404, 413) and reply.headers.get("x-ai-error-origin") and case.method != "HEAD":
        assert re.match(rb'\{"(jsonrpc|error)"', reply.body), reply.body[:200]


def test_the_table_holds_many_cases() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_good_call_of_each_era_is_served(gateway: Gateway, servers: McpServers, sessions: dict[str, str]) -> None:
    """The refusals below are due to the changes."""
    for pieces in (GOOD, GOOD_LEGACY):
        reply = send(gateway.url, *(filled(piece, sessions) for piece in pieces))
        assert reply is not None
        assert reply.status == 200
        assert json.loads(reply.body)["result"]["content"][0]["text"] == "plain: abuse"
    assert calls(servers) == 2


@pytest.mark.parametrize("group", dict.fromkeys(case.name.partition(":")[0] for case in CASES))
def test_an_abusive_message_is_refused_before_it_reaches_a_server(
    gateway: Gateway, servers: McpServers, sessions: dict[str, str], group: str
) -> None:
    for server in servers.by_name.values():
        server.seen.clear()
    wrong = []
    for case in CASES:
        if case.name.partition(":")[0] == group:
            reply = send(gateway.url, *(filled(piece, sessions) for piece in case.pieces), method=case.method)
            try:
                check(case, reply)
            except (AssertionError, ValueError, KeyError) as error:
                wrong.append((case.name, str(error)[:300]))
            if calls(servers):
                wrong.append((case.name, "reached a server"))
                for server in servers.by_name.values():
                    server.seen.clear()
    assert wrong == [], json.dumps(wrong)


def test_the_abuse_above_left_no_internal_error(gateway: Gateway) -> None:
    eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == 0)
    assert gateway.metric("extproc_internal_errors_total") == 0
    log = Path(gateway.log).read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log
