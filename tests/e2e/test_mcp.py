"""The MCP gateway through Envoy: strict servers of every era behind profiles."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.doubles.mcp import KINDS, kinds
from tests.e2e.conftest import KEY, run_gateway

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
OTHER = "sk-gw-other"
SETTINGS = """
mcp:
  resource: https://ai.acme.test
  origins: [https://chat.acme.test]
  servers:
SERVERS
  profiles:
PROFILES
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}
  - {name: other, keys: [{env: OTHER_KEY}], tools: ["all/dual__echo", "dual/*"]}
  - {name: nobody, keys: [{env: NOBODY_KEY}]}
stores: {counters: "memory:"}
"""


@pytest.fixture(scope="module")
def servers():
    with kinds().running() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(servers, tmp_path_factory):
    listed = "".join(f'    {name}: {{url: "{servers.url}/{name}", timeout: 5s}}\n' for name in KINDS)
    profiles = "".join(f"    {name}: {{servers: {{{name}: {{}}}}}}\n" for name in KINDS)
    profiles += f"    all: {{servers: {{{', '.join(f'{name}: {{}}' for name in KINDS)}}}}}\n"
    profiles += '    bare: {servers: {dual: {prefix: ""}}}\n'
    yaml = SETTINGS.replace("SERVERS", listed).replace("PROFILES", profiles)
    env = {"OTHER_KEY": OTHER, "NOBODY_KEY": "sk-gw-nobody"}
    yield from run_gateway(tmp_path_factory.mktemp("mcp"), yaml, (), env)


def _read(line: str) -> list[Any]:
    """The message of a line; none where it cannot be read, as the official clients take it."""
    try:
        return [json.loads(line)]
    except ValueError:
        return []


class Client:
    """A client of one profile; `version` is of the protocol."""

    def __init__(self, gateway: Any, profile: str, version: str = MODERN, key: str = KEY, **capabilities: Any) -> None:
        self.url = f"{gateway.url}/mcp/{profile}"
        self.version, self.key, self.capabilities = version, key, capabilities
        self.session = ""
        if version != MODERN:
            params = {
                "protocolVersion": version,
                "capabilities": capabilities,
                "clientInfo": {"name": "t", "version": "1"},
            }
            answer = self.post({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params}, version="")
            self.session, self.hello = answer.headers["mcp-session-id"], answer.json()["result"]
            told = self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
            assert (told.status_code, told.content) == (202, b"")

    def post(self, message: Any, *, version: str | None = None, **headers: str) -> httpx.Response:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        sent = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {self.key}",
            "mcp-protocol-version": self.version if version is None else version,
            "mcp-session-id": self.session,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return httpx.post(
            self.url, content=body, headers={name: value for name, value in sent.items() if value}, timeout=20
        )

    def message(self, method: str, params: dict[str, Any] | None = None, id: Any = 1) -> dict[str, Any]:
        params = dict(params or {})
        if self.version == MODERN:
            own = {META + "protocolVersion": MODERN, META + "clientCapabilities": self.capabilities}
            params["_meta"] = {**params.get("_meta", {}), **own}
        return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}

    def ask(self, method: str, params: dict[str, Any] | None = None, id: Any = 1) -> Any:
        """The last message of the answer."""
        return self.events(method, params, id)[-1]

    def events(self, method: str, params: dict[str, Any] | None = None, id: Any = 1) -> list[Any]:
        name = (params or {}).get("uri" if method == "resources/read" else "name", "")
        headers = {"mcp_method": method, "mcp_name": name} if self.version == MODERN else {}
        answer = self.post(self.message(method, params, id), **headers)
        assert "mcp-session-id" not in answer.headers or method == "initialize"
        assert "server" not in answer.headers
        if answer.headers["content-type"].startswith("text/event-stream"):
            return [each for line in answer.text.splitlines() if line.startswith("data: {") for each in _read(line[6:])]
        return [answer.json()]

    def call(self, name: str, **arguments: Any) -> Any:
        return self.ask("tools/call", {"name": name, "arguments": arguments})


@pytest.mark.parametrize("version", [MODERN, "2025-11-25", "2025-03-26"])
@pytest.mark.parametrize("server", KINDS)
def test_clients_of_each_era_use_servers_of_each(gateway, servers, server, version):
    servers[server].forget()
    client = Client(gateway, server, version)
    own = f"{server}__"
    listed = client.ask("tools/list")["result"]
    assert [tool["name"] for tool in listed["tools"]][:3] == [own + "echo", own + "told", own + "slow"]
    assert client.call(own + "echo", text="x")["result"]["content"] == [{"type": "text", "text": f"{server}: x"}]
    assert client.call(own + "fail")["result"]["isError"] is True
    assert client.call(own + "broken")["error"]["code"] == -32050
    assert client.call(own + "nope")["error"]["code"] == -32602
    assert client.call("echo")["error"] == {
        "code": -32602,
        "message": "Unknown tool: echo",
        "data": {"code": "tool_not_found"},
    }
    prompt = client.ask("prompts/get", {"name": own + "greet", "arguments": {"name": "Ada"}})["result"]
    assert prompt["messages"][0]["content"]["text"] == "Greet Ada."
    for uri in ("test://one", "test://two/%20"):
        read = client.ask("resources/read", {"uri": uri})["result"]
        assert read["contents"] == [{"uri": uri, "text": f"{server}: {uri}"}]
    ref = {"type": "ref/prompt", "name": own + "greet"}
    found = client.ask("completion/complete", {"ref": ref, "argument": {"name": "name", "value": "A"}})
    assert found["result"]["completion"]["values"] == [server, "A"]
    *told, last = client.events("tools/call", {"name": own + "slow", "_meta": {"progressToken": 7}}, id="s")
    assert last["id"] == "s"
    assert [each["params"]["progress"] for each in told] in ([1, 2, 3], [])
    if version == MODERN:
        assert {"resultType", "ttlMs", "cacheScope"} <= read_keys(client.ask("resources/read", {"uri": "test://one"}))
        assert (listed["resultType"], listed["cacheScope"]) == ("complete", "private")
    assert servers[server].violations == []


def read_keys(answer: Any) -> set[str]:
    return set(answer["result"])
