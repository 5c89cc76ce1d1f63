"""Fuzz target of the MCP gateway: messages of clients."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from extproc.access.auth.access import ToolGrants
from extproc.tools.mcp.call import CALL, CALLS, LEGACY, MODERN, Call
from extproc.tools.mcp.catalogue import Catalogue, Definition
from extproc.tools.mcp.eras import request_for
from extproc.tools.mcp.forward import FindServer
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.servers import McpServer
from extproc.tools.mcp.settings import MCPSettings
from extproc.tools.mcp.stages import ParseRPC
from extproc.wire.framing import rpc
from extproc.wire.framing.json import InvalidJSON
from extproc.words.errors import Refusal
from extproc.words.exchange import RequestHead
from extproc.words.values import Patterns
from tests.e2e.mcp_agent import message, modern
from tests.exchanges import new_exchange, write

DEPTH, NODES = 12, 1 << 16
SETTINGS = MCPSettings.model_validate(
    {"servers": {"s": {"url": "http://127.0.0.1:9/mcp"}}, "profiles": {"p": {"servers": {"s": {}}}}}
)
PARSE = ParseRPC(SETTINGS, DEPTH, NODES, lambda _exchange, _size: None)


def _entry(kind: Any, name: str) -> Definition:
    return Definition(kind, "s", name, {"name": msgspec.Raw(msgspec.json.encode(name))}, ((("text",), "text"),))


_OFFERED: Any = {"tools": "echo", "prompts": "greet", "resources": "test://one", "templates": "test://{id}"}
_CATALOGUE = Catalogue(
    True,
    LEGACY[0],
    capabilities={kind: {} for kind in _OFFERED},
    entries={kind: {name: _entry(kind, name)} for kind, name in _OFFERED.items()},
)
_SERVER = McpServer("s", cast("Any", None))
_SERVER.learn(_CATALOGUE, SETTINGS.limits.tools)
_SERVERS: Any = SimpleNamespace(
    generation=1,
    by_name={"s": _SERVER},
    sessions=SimpleNamespace(asked=lambda _session, _id: None),
)
_UNTAINTED: Any = SimpleNamespace(tools=lambda _exchange: ())
_POLICY = Policy(SETTINGS)
FIND = FindServer(SETTINGS, Profiles(SETTINGS, _SERVERS, _POLICY, _UNTAINTED), _SERVERS, _POLICY)
CONSUMER = SimpleNamespace(tools=ToolGrants([Patterns(["*"])]))
_CALL = {
    "name": "s__echo",
    "arguments": {"text": "é", "list": [1, 2.5, None, {"a": True}]},
    "_meta": {"progressToken": 1},
}
_REF = {"ref": {"type": "ref/prompt", "name": "s__greet"}, "argument": {"name": "who", "value": "A"}}
_HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"sampling": {}},
    "clientInfo": {"name": "c", "version": "1"},
}
_GIVEN = {"inputResponses": {"q": {"action": "accept", "content": {"a": 1}}}, "requestState": "s"}
SEEDS = tuple(
    json.dumps(seed).encode()
    for seed in (
        modern("tools/call", _CALL)[0],
        modern("tools/call", _CALL | _GIVEN, "x")[0],
        message("tools/call", _CALL, 2**53 - 1),
        message("initialize", _HELLO, 0),
        message("notifications/initialized", None, None),
        message("notifications/cancelled", {"requestId": "x", "reason": "late"}, None),
        message("resources/read", {"uri": "test://one"}, -1),
        modern("completion/complete", _REF)[0],
        message("tools/list", {"cursor": "abc"}),
        {"jsonrpc": "2.0", "id": "s~1~m", "result": {"action": "accept", "content": {}}},
        {"jsonrpc": "2.0", "id": 3, "error": {"code": -32601, "message": "no"}},
    )
)


def read_message(body: bytes) -> None:
    """A message is refused, or means the same to Python's own decoder; then the gateway's stage refuses it, or knows
    what it is about. Nothing else is raised, and a refusal can be shown.
    """
    found, why = None, "read"
    try:
        found = rpc.read(body, DEPTH, NODES)
    except (InvalidJSON, rpc.InvalidMessageError) as error:
        why = str(error)
    assert 0 < len(why) < 500
    if found is not None:
        _means_the_same(found, json.loads(body.decode()))
    call = Call("p", SETTINGS.profiles["p"])
    exchange = new_exchange("id", RequestHead("POST", "", {}, length=len(body)))
    exchange.features[CALL], exchange.consumer = call, CONSUMER
    write(exchange, body=body, operation="mcp")
    refused = None
    try:
        PARSE(exchange)
    except Refusal as refusal:
        refused = refusal
    if refused is not None:
        assert refused.kind.status in (400, 413)
        assert 0 < len(refused.message) < 1000
        return
    assert found is not None, "the stage takes what the reader refuses"
    assert call.message == found
    if found.kind == "response" or (found.kind == "request" and found.method in CALLS):  # others go to no server
        _leads(exchange, call)


def _leads(exchange: Any, call: Call) -> None:
    """The message leads to a server's own name, or is refused; it can be written for a server of each era."""
    call.version = MODERN
    try:
        FIND(exchange)
    except Refusal:
        return
    assert call.server == "s"
    for server_version in (MODERN, LEGACY[0]):
        call.server_version = server_version
        edits, headers = request_for(call, None, "own")
        assert all(isinstance(value, str) and value.isprintable() for value in headers.values())
        assert edits.keys() <= {"id", "params._meta", "params.name", "params.uri", "params.ref"}


def _means_the_same(found: rpc.RpcMessage, tree: Any) -> None:
    assert isinstance(tree, dict)
    assert found.tree == tree
    assert tree["jsonrpc"] == "2.0"
    assert found.kind in ("request", "notification", "response")
    assert found.method == tree.get("method", "")
    assert found.params == tree.get("params", {})
    assert isinstance(found.params, dict)
    assert isinstance(found.meta, dict)
    assert ("id" in tree) is (found.kind != "notification")
    if found.kind != "notification":
        assert type(found.id) in (str, int)
        assert found.id == tree["id"]
        again = json.loads(rpc.result(found.id, {}))
        assert (again["id"], type(again["id"])) == (tree["id"], type(tree["id"]))
