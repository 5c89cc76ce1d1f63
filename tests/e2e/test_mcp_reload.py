"""Changes of the settings while the MCP gateway runs: kill switches, profiles, grants; and a server that restarts."""

from __future__ import annotations

import pytest

from tests.doubles.mcp import McpServer, McpServers, tool
from tests.e2e.conftest import eventually, run_gateway
from tests.e2e.test_mcp import Client

SETTINGS = """
mcp:
  servers:
    one: {url: "SERVERS/one", refresh: 1s}
    two: {url: "SERVERS/two", refresh: 1s}
  profiles:
    dev: {servers: {one: {}, two: {}}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}
stores: {counters: "memory:"}
"""


@pytest.fixture(scope="module")
def servers():
    made = [McpServer(name, tools=[tool("echo"), tool("other")]) for name in ("one", "two")]
    with McpServers(*made).running() as found:
        yield found


@pytest.fixture
def gateway(servers, tmp_path):
    yield from run_gateway(tmp_path, SETTINGS.replace("SERVERS", servers.url), (), {})


def names(client):
    return [each["name"] for each in client.ask("tools/list")["result"]["tools"]]


def test_settings_apply_without_a_restart(gateway, servers):
    client, session = Client(gateway, "dev"), Client(gateway, "dev", "2025-11-25")
    everything = ["one__echo", "one__other", "two__echo", "two__other"]
    assert names(client) == names(session) == everything
    text = gateway.file.read_text()

    def change(*pairs):
        changed = text
        for old, new in pairs:
            assert old in changed
            changed = changed.replace(old, new)
        gateway.file.write_text(changed)

    change(("  profiles:", "  tools: {'one/other': {disabled: true}}\n  profiles:"))
    eventually(lambda: names(client) == [name for name in everything if name != "one__other"])
    before = len(servers["one"].calls)
    assert client.call("one__other")["error"]["code"] == session.call("one__other")["error"]["code"] == -32602
    assert len(servers["one"].calls) == before

    change(('two", refresh: 1s', 'two", refresh: 1s, disabled: true'))
    eventually(lambda: names(client) == everything[:2])
    assert session.call("two__echo")["error"]["code"] == -32602

    change(("two: {}}", 'two: {prefix: "2-", tools: ["e*"]}}'), ('["*"]', '["dev/2-*", "new/*"]'))
    eventually(lambda: names(session) == ["2-echo"])
    assert client.call("2-echo", text="x")["result"]["content"][0]["text"] == "two: x"

    change(("    dev:", "    new: {servers: {one: {prefix: ''}}}\n    dev:"))
    eventually(lambda: Client(gateway, "new").post(b"{}").status_code == 400)
    assert names(Client(gateway, "new")) == ["echo", "other"]

    servers["one"].tools.append(tool("added"))
    eventually(lambda: "added" in names(Client(gateway, "new")))
    servers["one"].tools.pop()
    gateway.file.write_text(text)
    eventually(lambda: names(client) == everything)
