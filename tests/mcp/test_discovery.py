"""Tools that clients search: what is found, and calls through `call_tool` as calls of the tools themselves."""

import json
import random
from pathlib import Path

import msgspec
import pytest

from extproc.access.auth.access import ToolGrants
from extproc.tools.mcp.answers import AnswerLists
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.catalogue import Catalogue
from extproc.tools.mcp.discovery import Discovery, UnwrapCall
from extproc.tools.mcp.pages import Pages
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.refusals import body_of
from extproc.tools.mcp.search import ToolSearch, document
from extproc.tools.mcp.servers import Servers
from extproc.tools.mcp.settings import MCPSettings
from extproc.wire.framing import rpc
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead
from extproc.words.values import Patterns
from tests.exchanges import new_exchange
from tests.mcp import test_listed_callable as listed_callable
from tests.mcp.test_pins import entry

DATA = Path(__file__).parent / "data"
PUBLIC = json.loads((DATA / "public_servers.json").read_text())
SERVERS = json.loads((DATA / "official_servers.json").read_text())["servers"] | PUBLIC["servers"]
QUESTIONS = PUBLIC["questions"]
ALL = ToolGrants([Patterns(["*"])])


def definition(tool):
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in tool.get("arguments", ())}}
    return entry({"inputSchema": schema} | {name: value for name, value in tool.items() if name != "arguments"}, "s")


TOOLS = {f"{server}__{tool['name']}": definition(tool) for server, found in SERVERS.items() for tool in found["tools"]}


def test_questions_about_public_servers_find_their_tools_among_the_first_five():
    search, names = ToolSearch([document({**tool.fields, "name": name}) for name, tool in TOOLS.items()]), list(TOOLS)
    assert (len(names), len(QUESTIONS)) == (216, 241)
    missed = [
        question
        for question, meant in QUESTIONS.items()
        if not {names[at].replace("__", "/", 1) for at in search.find(question, 5, lambda _at: True)} & {*meant}
    ]
    assert len(missed) <= 0.05 * len(QUESTIONS), missed


NAMES = ("deleteIssue", "löschen", "課題を削除", "create_issue")


@pytest.mark.parametrize(
    ("query", "name"), [*zip(("DELETE issues", "issue LÖSCHEN", "削除", "issues creating"), NAMES, strict=True)]
)
def test_words_are_found_in_any_form_and_script(query, name):
    search = ToolSearch([{"name": each} for each in NAMES])
    assert [NAMES[at] for at in search.find(query, 1, lambda _at: True)] == [name]


def test_an_index_without_tools_and_a_query_without_words_find_nothing():
    assert ToolSearch([]).find("create", 5, lambda _at: True) == []
    assert ToolSearch([{"name": "create"}]).find("the !?", 5, lambda _at: True) == []


@pytest.fixture
def made():
    """500 tools of public servers at one server, behind profiles with a list and with search."""
    settings = MCPSettings.model_validate(
        {
            "servers": {"s": {"url": "http://s.test/mcp"}},
            "profiles": {
                "all": {"servers": {"s": {"prefix": ""}}},
                "found": {"servers": {"s": {"prefix": ""}}, "discovery": "search"},
            },
            "tools": {"s/git__git_reset": {"disabled": True}},
        }
    )
    servers = Servers(settings, "/none", "k" * 32)
    many = {f"{name}_{at}" if at else name: found for at in range(3) for name, found in TOOLS.items()}
    tools = {name: entry({**fields(found), "name": name}, "s") for name, found in list(many.items())[:499]}
    tools["call_tool"] = entry({"name": "call_tool", "inputSchema": {}}, "s")
    kinds = {"tools": tools, "prompts": {}, "resources": {}, "templates": {}}
    servers.by_name["s"].learn(Catalogue(True, capabilities={"tools": {}}, entries=kinds), 500)
    servers.by_name["s"].known.set()
    return settings, servers, Profiles(settings, servers, Policy(settings), listed_callable.UNTAINTED)


def fields(found):
    return {name: found.value(name) for name in found.fields}


def asked(settings, method, params, profile="found", grants=ALL):
    body = rpc.request(method, 1, params)
    call = Call(profile, settings.profiles[profile], version="2025-06-18")
    call.message = rpc.read(body, 64, 100_000)
    call.name = params.get("name", "")
    exchange = new_exchange("x", RequestHead("POST", "/mcp/found", {}))
    exchange.features[CALL], exchange.request.operation = call, method
    exchange.request.body, exchange.request.json = body, dict(call.message.tree)
    exchange.consumer = Consumer("ada", tools=grants)
    return exchange


async def answered(made, name, arguments, **more):
    settings, _, profiles = made
    found = await Discovery(profiles)(asked(settings, "tools/call", {"name": name, "arguments": arguments}, **more))
    text = found["content"][0]["text"]
    return json.loads(text) if text.startswith("{") else text


async def test_a_list_of_500_tools_takes_a_tenth_of_the_tokens(made):
    settings, servers, profiles = made
    sizes = {}
    for profile in ("all", "found"):
        answer = await AnswerLists(profiles, servers, Pages(None, listed_callable.UNTAINTED))(
            asked(settings, "tools/list", {}, profile)
        )
        sizes[profile] = len(answer.body)
    assert sizes["found"] < 0.1 * sizes["all"]
    names = [tool["name"] for tool in json.loads(answer.body)["result"]["tools"]]
    assert names == ["find_tools", "describe_tool", "call_tool"]


async def test_indexes_of_words_are_bounded(made, monkeypatch):
    """Each change of a server's definitions, and each session's own list, makes a new one of 499 tools."""
    settings, servers, profiles = made
    monkeypatch.setattr("extproc.tools.mcp.profiles._MOST_SEARCHED", 1000)
    for kept in (1, 2, 2, 2):
        servers.generation += 1
        for _ in range(2):
            assert (await profiles.search(asked(settings, "tools/call", {}), "git commit", 1))[0][
                0
            ] == "git__git_commit"
        assert len(profiles._searches) == kept


async def test_tools_are_found_in_short_and_described_in_whole(made):
    found = await answered(made, "find_tools", {"query": "git create branch", "limit": 3})
    assert "git__git_create_branch" in [tool["name"] for tool in found["tools"]]
    assert len(found["tools"]) == 3
    short = next(tool for tool in found["tools"] if tool["name"] == "git__git_create_branch")
    assert short["arguments"] == {"repo_path": "string", "branch_name": "string", "base_branch?": "any"}
    whole = await answered(made, "describe_tool", {"name": "git__git_create_branch"})
    listed = json.loads(made[2].listed(asked(made[0], "tools/list", {}, "all"), "tools"))
    assert whole == next(tool for tool in listed if tool["name"] == "git__git_create_branch")
    assert "No tool" in await answered(made, "find_tools", {"query": "zzz"})


@pytest.mark.parametrize("name", ["git__git_reset", "call_tool", "git__git_log", "nope", 7, None])
async def test_tools_that_a_list_would_not_show_are_not_described(made, name):
    """Switched off, the gateway's own, not granted, unknown, no name."""
    grants = ToolGrants([Patterns(["found/git__git_reset", "found/call_tool"])])
    with pytest.raises(Refusal) as refused:
        await answered(made, "describe_tool", {"name": name}, grants=grants)
    assert refused.value.message == f"Unknown tool: {name}"
    found = await answered(made, "find_tools", {"query": "git reset log call tool", "limit": 20}, grants=grants)
    assert "No tool" in found


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"query": " "},
        {"query": 7},
        {"query": "x" * 501},
        {"query": "x", "limit": 21},
        {"query": "x", "limit": True},
    ],
)
async def test_a_search_without_a_query_or_beyond_the_limits_is_refused(made, arguments):
    with pytest.raises(Refusal) as refused:
        await answered(made, "find_tools", arguments)
    assert refused.value.kind.code == "invalid_params"


async def test_a_tool_is_found_and_described_only_where_it_is_listed():
    chance, found_at_all = random.Random(20261125), 0
    for _ in range(100):
        settings, servers, names = listed_callable.world(chance)
        profiles = Profiles(settings, servers, Policy(settings), listed_callable.UNTAINTED)
        grants = ToolGrants([Patterns([f"p/{listed_callable.pattern(chance)}"])])
        exchange = new_exchange("id")
        exchange.features[CALL], exchange.consumer = (
            listed_callable.asked(settings, "x"),
            Consumer("alice", tools=grants),
        )
        listed = {each["name"] for each in msgspec.json.decode(profiles.listed(exchange, "tools"))}
        found = {name for name, _ in await profiles.search(exchange, "get set search issue delete all x b", 100)}
        assert found <= listed
        assert set(profiles.shown(exchange, "tools")) == listed <= {*names}
        found_at_all += len(found)
    assert found_at_all > 50


def test_call_tool_becomes_the_call_that_it_names_with_its_bytes(made):
    params = {"name": "call_tool", "_meta": {"a": 1}, "arguments": {"name": "git__git_log", "arguments": {"max": 1}}}
    exchange = asked(made[0], "tools/call", params)
    exchange.request.body = exchange.request.body.replace(b'{"max":1}', b'{"max": 1.00, "s": "\\u0041"}')
    UnwrapCall()(exchange)
    call = exchange.features[CALL]
    assert b'"arguments":{"max": 1.00, "s": "\\u0041"}' in exchange.request.body
    sent = json.loads(exchange.request.body)["params"]
    assert sent == {"name": "git__git_log", "_meta": {"a": 1}, "arguments": {"max": 1.0, "s": "A"}}
    assert (call.name, call.rewritten, exchange.request.ask.model) == ("git__git_log", True, "git__git_log")
    assert call.message.params == exchange.request.json["params"]
    assert call.arguments == {"max": 1}
    assert made[2].find(call, ALL).name == "git__git_log"


def test_call_tool_in_itself_is_an_unknown_tool(made):
    inner = {"name": "call_tool", "arguments": {"name": "git__git_log"}}
    exchange = asked(made[0], "tools/call", {"name": "call_tool", "arguments": inner})
    UnwrapCall()(exchange)
    assert made[2].find(exchange.features[CALL], ALL) is None


@pytest.mark.parametrize(
    "arguments", [None, {}, {"name": 1}, *({"name": "x", "arguments": other} for other in ([], None))]
)
def test_call_tool_without_a_tool_is_refused(made, arguments):
    exchange = asked(made[0], "tools/call", {"name": "call_tool", "arguments": arguments})
    with pytest.raises(Refusal) as refused:
        UnwrapCall()(exchange)
    assert json.loads(body_of(exchange.features[CALL], refused.value))["error"]["code"] == -32602


def test_elsewhere_call_tool_is_a_tool_like_any_other(made):
    params = {"name": "call_tool", "arguments": {"name": "git__git_log"}}
    exchange = asked(made[0], "tools/call", params, "all")
    before = exchange.request.body
    UnwrapCall()(exchange)
    assert exchange.request.body == before
    assert made[2].find(exchange.features[CALL], ALL).name == "call_tool"
