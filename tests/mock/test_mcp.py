"""The mock's MCP server in both eras of the protocol."""

from __future__ import annotations

import json
from typing import Any

MODERN = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


async def test_a_legacy_client_gets_a_session_lists_and_calls(asking):
    async with asking() as mock:
        opened = await mock.post("/mcp", message("initialize", protocolVersion="2025-06-18", capabilities={}))
        assert opened.json()["result"]["protocolVersion"] == "2025-06-18"
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
        told = await mock.post("/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)
        assert (told.status_code, told.content) == (202, b"")
        tools = (await mock.plain("/mcp", message("tools/list"), **session))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["echo", "add", "slow", "fail", "read_page"]
        added = await mock.plain("/mcp", message("tools/call", name="add", arguments={"a": 1, "b": 2}), **session)
        assert added["result"]["structuredContent"] == {"sum": 3}
        unknown = await mock.plain("/mcp", message("tools/call", name="drop_table"), **session)
        assert unknown["error"]["code"] == -32602
        assert (await mock.client.delete("/mcp", headers=session)).status_code == 200
        assert (await mock.client.get("/mcp")).status_code == 405
        assert (await mock.seen())["dialect"] == "mcp"


async def test_a_modern_client_states_its_version_in_headers_and_body(asking):
    async with asking() as mock:
        for method, name, params in (
            ("server/discover", "", {}),
            ("tools/call", "echo", {"name": "echo", "arguments": {"text": "hi"}}),
            ("resources/read", "mock://notes/today", {"uri": "mock://notes/today"}),
            ("prompts/get", "greet", {"name": "greet", "arguments": {"name": "Ada"}}),
            ("completion/complete", "", {"ref": {}, "argument": {"name": "name", "value": "a"}}),
        ):
            body = message(method, **params, _meta=META)
            headers = {"mcp-protocol-version": MODERN, "mcp-method": method, "mcp-name": name}
            result = (await mock.plain("/mcp", body, **headers))["result"]
            assert result["resultType"] == "complete"
            assert ("ttlMs" in result) is (method in ("server/discover", "resources/read"))
            for wrong in ({"mcp-method": "ping"}, {"mcp-protocol-version": "2025-11-25"}):
                status, refused = await mock.refused("/mcp", body, **headers | wrong)
                assert (status, refused["error"]["code"]) == (400, -32020)
        encoded = headers | {"mcp-method": "tools/call", "mcp-name": "=?base64?ZWNobw==?="}
        body = message("tools/call", name="echo", arguments={"text": "hi"}, _meta=META)
        assert (await mock.plain("/mcp", body, **encoded))["result"]["content"][0]["text"] == "hi"


async def test_progress_and_asked_streams_are_events(asking):
    async with asking() as mock:
        params = {"name": "slow", "arguments": {"seconds": 0.01, "steps": 2}, "_meta": {"progressToken": "p"}}
        events = await mock.stream("/mcp", message("tools/call", **params))
        assert [event["params"]["progress"] for _, event in events[:-1]] == [1, 2]
        assert events[-1][1]["result"]["content"][0]["text"] == "Done in 2 steps."
        ((name, answer),) = await mock.stream("/mcp?sse", message("tools/list"))
        assert (name, len(answer["result"]["tools"])) == ("message", 5)


async def test_nonsense_is_refused_and_the_connection_lives(asking):
    async with asking() as mock:
        for body in ([], 1, {"jsonrpc": "2.0"}, message("tools/call", arguments=[]), message("tools/call", name={})):
            answer = await mock.client.post("/mcp", content=json.dumps(body))
            assert answer.json()["error"]["code"] in (-32600, -32602)
        assert (await mock.client.post("/mcp", content=b"{")).json()["error"]["code"] == -32700
        for name, given in (("add", {"a": "1", "b": True}), ("slow", {"steps": "x"}), ("echo", {})):
            answer = await mock.plain("/mcp", message("tools/call", name=name, arguments=given))
            assert answer["result"]["isError"]


async def test_a_description_is_poisoned_on_demand(asking):
    async with asking() as mock:
        before = (await mock.plain("/mcp", message("tools/list")))["result"]["tools"]
        assert (await mock.client.put("/control", json={"poisoned": True})).json() == {"poisoned": True}
        after = (await mock.plain("/mcp", message("tools/list")))["result"]["tools"]
        assert after[0]["description"].startswith(before[0]["description"] + " <IMPORTANT>")
        assert after[1:] == before[1:]
        await mock.client.delete("/control")
        assert (await mock.plain("/mcp", message("tools/list")))["result"]["tools"] == before
