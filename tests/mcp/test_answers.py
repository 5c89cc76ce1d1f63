"""Messages as they come in, and the gateway's own answers: versions, sessions, limits, promises."""

import json
from types import SimpleNamespace

import msgspec
import pytest

from extproc.access.auth import ToolGrants
from extproc.stores.memory import MemoryCounters
from extproc.tools.mcp.answers import AnswerLists, Era
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.catalogue import Catalogue, Definition
from extproc.tools.mcp.names import LONGEST
from extproc.tools.mcp.pages import Pages
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.servers import Servers
from extproc.tools.mcp.sessions import EndedSessions
from extproc.tools.mcp.settings import MCPSettings
from extproc.tools.mcp.stages import ParseRPC
from extproc.wire.framing import rpc
from extproc.words.errors import Refusal
from extproc.words.exchange import RequestHead
from extproc.words.values import Patterns
from tests.exchanges import new_exchange, write

MODERN, META = "2026-07-28", "io.modelcontextprotocol/"
OWN = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
UNTAINTED = SimpleNamespace(tools=lambda _exchange: ())


def entry(name):
    return Definition(
        "tools", "a", name, {"name": msgspec.Raw(json.dumps(name).encode()), "inputSchema": msgspec.Raw(b"{}")}
    )


def instructions(text, server="a"):
    return Definition("instructions", server, "instructions", {"instructions": msgspec.Raw(json.dumps(text).encode())})


@pytest.fixture
def made():
    servers = {name: {"url": f"http://{name}"} for name in ("a", "b")}
    profiles = {"one": {"servers": {"a": {"prefix": ""}}}, "two": {"servers": {"a": {}, "b": {}}, "instructions": "Hi"}}
    settings = MCPSettings(servers=servers, profiles=profiles, limits={"message": "1KiB"})
    found = Servers(settings, "/none", "k" * 32)
    tools = {name: entry(name) for name in ("x", "y" * LONGEST, "z" * (LONGEST + 1))}
    said = {"instructions": instructions("Mind the step.")}
    kinds = {"tools": tools, "prompts": {}, "resources": {}, "templates": {}, "instructions": said}
    can = {"tools": {}, "logging": {}}
    found.by_name["a"].learn(Catalogue(True, "2025-11-25", True, can, kinds), 500)
    for server in found.by_name.values():
        server.known.set()
    profiles = Profiles(settings, found, Policy(settings), UNTAINTED)
    return SimpleNamespace(settings=settings, servers=found, profiles=profiles)


def exchange(made, message, profile="one", **headers):
    call = Call(profile, made.settings.profiles[profile])
    consumer = SimpleNamespace(name="bob", tools=ToolGrants([Patterns(["*"])]))
    head = RequestHead("POST", "", {name.replace("_", "-"): value for name, value in headers.items()})
    body = message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode()
    found = new_exchange("id", head)
    found.features[CALL], found.consumer = call, consumer
    write(found, body=body, operation="mcp")
    return found


async def asked(made, message, profile="one", **headers):
    """The answer to a message: its parsed body and its headers."""
    sent = exchange(made, message, profile, **headers)
    ParseRPC(made.settings, 32, 1000, lambda _exchange, _size: None)(sent)
    await Era(made.servers, EndedSessions(MemoryCounters(), 60.0))(sent)
    reply = await AnswerLists(made.profiles, made.servers, Pages(None, UNTAINTED))(sent)
    return (json.loads(reply.body) if reply.body else None), reply


def hello(version="2025-06-18", **capabilities):
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
    return {"id": 1, "method": "initialize", "params": params}


async def test_a_handshake_agrees_on_a_revision_and_promises_what_every_path_holds(made):
    for version, agreed in (("2025-03-26", "2025-03-26"), ("2024-11-05", "2025-11-25"), (MODERN, "2025-11-25")):
        answer, _ = await asked(made, hello(version))
        assert answer["result"]["protocolVersion"] == agreed
    assert answer["result"]["capabilities"] == {"tools": {}, "logging": {}}
    assert answer["result"]["instructions"] == "a: Mind the step."
    answer, _ = await asked(made, hello(), "two")
    assert answer["result"]["instructions"] == "Hi"


async def test_sessions_of_one_server_take_all_questions_and_those_of_several_elicitation_alone(made):
    for profile, kept in (("one", {"elicitation", "sampling"}), ("two", {"elicitation"})):
        _, reply = await asked(made, hello(elicitation={}, sampling={}, other={}), profile)
        session = made.servers.sessions.find(f"{profile}/bob", reply.headers["mcp-session-id"])
        assert set(session.capabilities) == kept


async def test_the_new_revision_discovers_lists_and_listens(made):
    answer, _ = await asked(
        made, {"id": 1, "method": "server/discover", "params": {"_meta": OWN}}, **modern("server/discover")
    )
    assert answer["result"]["supportedVersions"] == [MODERN]
    assert answer["result"]["_meta"][META + "serverInfo"]["name"]
    answer, _ = await asked(made, {"id": 1, "method": "tools/list", "params": {"_meta": OWN}}, **modern("tools/list"))
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["x", "y" * LONGEST], "models refuse longer names"
    assert {name: answer["result"][name] for name in ("ttlMs", "cacheScope")} == {
        "ttlMs": 60000,
        "cacheScope": "private",
    }
    listen = {"id": 5, "method": "subscriptions/listen", "params": {"_meta": OWN, "notifications": {}}}
    sent = exchange(made, listen, **modern("subscriptions/listen"))
    ParseRPC(made.settings, 32, 1000, lambda _exchange, _size: None)(sent)
    await Era(made.servers, EndedSessions(MemoryCounters(), 60.0))(sent)
    reply = await AnswerLists(made.profiles, made.servers, Pages(None, UNTAINTED))(sent)
    first, last = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert (last["id"], last["result"]["resultType"]) == (5, "complete")


def modern(method, **more):
    return {"mcp_protocol_version": MODERN, "mcp_method": method, **more}


async def test_messages_that_contradict_their_headers_or_lack_a_session_are_refused(made):
    listed = {"id": 1, "method": "tools/list", "params": {"_meta": OWN}}
    called = {"id": 1, "method": "tools/call", "params": {"name": "x", "_meta": OWN}}
    old = {"id": 1, "method": "tools/list"}
    _, reply = await asked(made, hello())
    session = reply.headers["mcp-session-id"]
    for message, headers, code in (
        (listed, {}, "header_mismatch"),
        (listed, modern("tools/call"), "header_mismatch"),
        (listed, {**modern("tools/list"), "mcp_protocol_version": f"{MODERN},{MODERN}"}, "header_mismatch"),
        (called, modern("tools/call"), "header_mismatch"),
        (called, modern("tools/call", mcp_name="y"), "header_mismatch"),
        (called, modern("tools/call", mcp_name="=?base64?eA?="), "header_mismatch"),
        (old, modern("tools/list"), "invalid_params"),
        (old, {"mcp_protocol_version": "2024-11-05"}, "version_unsupported"),
        (old, {}, "invalid_request"),
        (old, {"mcp_session_id": session[:-1]}, "session_not_found"),
        ({"id": 1, "method": "ping", "params": {"_meta": OWN}}, modern("ping"), "method_unknown"),
        ({"id": 1, "method": "server/discover"}, {"mcp_session_id": session}, "method_unknown"),
        ({"id": 1, "method": "_cacheable"}, {"mcp_session_id": session}, "method_unknown"),
        ({"id": 1, "method": "prompts/list"}, {"mcp_session_id": session}, "method_unknown"),
        ({"id": 1, "method": "tools/list", "params": {"cursor": "2"}}, {"mcp_session_id": session}, "invalid_params"),
        ({"id": 1, "method": "tools/call", "params": {"name": "x", "Name": "y"}}, {}, "invalid_request"),
    ):
        with pytest.raises(Refusal) as raised:
            await asked(made, message, **headers)
        assert raised.value.kind.code == code, (message, headers)
    with pytest.raises(Refusal) as raised:
        await asked(made, old, "two", mcp_session_id=session)
    assert raised.value.kind.code == "session_not_found", "it is of another profile"


async def test_notifications_are_taken_and_do_nothing(made):
    _, reply = await asked(made, hello())
    for method in ("notifications/initialized", "notifications/cancelled", "tools/call", "unknown"):
        _, taken = await asked(made, {"method": method}, mcp_session_id=reply.headers["mcp-session-id"])
        assert (taken.status, taken.body) == (202, b"")


async def test_a_message_beyond_the_limit_is_refused_unread(made):
    with pytest.raises(Refusal) as raised:
        await asked(made, rpc.request("ping", "x" * 1024))
    assert raised.value.kind.status == 413
