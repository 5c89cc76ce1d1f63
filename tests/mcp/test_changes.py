"""Tools that a profile renames, describes anew, and whose arguments it fixes or hides."""

import json

import pytest
from pydantic import ValidationError

from extproc.access.auth.access import ToolGrants
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.catalogue import Catalogue
from extproc.tools.mcp.changes import ChangeCall
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.profile_settings import MCPShareSettings
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.servers import Servers
from extproc.tools.mcp.settings import MCPSettings
from extproc.wire.framing import rpc
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead
from extproc.words.values import Patterns
from tests.exchanges import new_exchange
from tests.mcp.test_listed_callable import UNTAINTED
from tests.mcp.test_pins import entry

CHANGES = {
    "create_issue": {
        "name": "file_bug",
        "description": "Files a bug of the shop.",
        "fixed": {"repo": {"owner": "acme", "name": "shop"}, "draft": False},
        "hidden": ["milestone"],
    },
    "old": {"name": "new"},
    "search": {"description": "Searches bugs."},
}
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("title", "repo", "draft", "milestone")},
    "required": ["title", "repo", {}],
}
GRANTED = ToolGrants([Patterns(["p/*"])])


@pytest.fixture
def made():
    settings = MCPSettings.model_validate(
        {
            "servers": {"hub": {"url": "http://hub.test/mcp"}},
            "profiles": {
                "p": {"servers": {"hub": {"changes": CHANGES}}},
                "plain": {"servers": {"hub": {}}},
            },
        }
    )
    servers = Servers(settings, "/none", "k" * 32)
    names = ("create_issue", "old", "new", "search", "file")
    tools = {
        name: entry({"name": name, "description": "Its own.", "inputSchema": SCHEMA, "title": "T"}, "hub")
        for name in names
    }
    kinds = {"tools": tools, "prompts": {}, "resources": {}, "templates": {}}
    servers.by_name["hub"].learn(Catalogue(True, capabilities={"tools": {}}, entries=kinds), 500)
    return settings, Profiles(settings, servers, Policy(settings), UNTAINTED)


def asked(made, name, arguments=None, profile="p"):
    settings, profiles = made
    body = rpc.request("tools/call", 1, {"name": name, **({} if arguments is None else {"arguments": arguments})})
    call = Call(profile, settings.profiles[profile], name=name, message=rpc.read(body, 64, 10_000))
    exchange = new_exchange("x", RequestHead("POST", "/mcp/p", {}))
    exchange.features[CALL], exchange.request.operation = call, "tools/call"
    exchange.request.body, exchange.request.json = body, dict(call.message.tree)
    exchange.consumer = Consumer("ada", tools=ToolGrants([Patterns(["*"])]))
    if (found := profiles.find(call, exchange.consumer.tools)) is not None:
        call.server, call.tool, call.entry = found.server, found.name, found.entry
    return exchange


def listed(made, profile="p"):
    return {one["name"]: one for one in json.loads(made[1].listed(asked(made, "x", profile=profile), "tools"))}


def test_clients_see_the_changed_definitions(made):
    found = listed(made)
    assert [*found] == ["hub__file_bug", "hub__new", "hub__search", "hub__file"]
    bug, plain = found["hub__file_bug"], listed(made, "plain")
    assert (bug["description"], bug["title"]) == ("Files a bug of the shop.", "T")
    assert bug["inputSchema"] == {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title", {}],
    }
    assert (found["hub__search"]["description"], found["hub__search"]["inputSchema"]) == ("Searches bugs.", SCHEMA)
    assert found["hub__file"] == plain["hub__file"]
    assert plain["hub__create_issue"]["inputSchema"] == SCHEMA
    hidden = [(one.name, one.entry.name, one.reason) for one in made[1].index("p").hidden]
    assert hidden == [("hub__new", "new", "another tool of its server has this name in the profile")]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        *(("hub__file_bug", "create_issue"), ("hub__new", "old"), ("hub__search", "search")),
        *((name, "") for name in ("hub__create_issue", "hub__old", "file_bug", "hub__")),
    ],
)
def test_a_call_reaches_the_tool_of_that_name_in_the_profile_alone(made, name, own):
    assert asked(made, name).features[CALL].tool == own


def test_a_call_gets_the_fixed_arguments_before_policy_sees_it(made):
    exchange = asked(made, "hub__file_bug", {"title": "A"})
    exchange.request.body = exchange.request.body.replace(b'"A"', b'"\\u0041"')
    ChangeCall()(exchange)
    call, wanted = exchange.features[CALL], {"title": "A", "repo": {"owner": "acme", "name": "shop"}, "draft": False}
    assert json.loads(exchange.request.body)["params"]["arguments"] == wanted
    assert b'"title":"\\u0041"' in exchange.request.body
    assert call.arguments == exchange.request.json["params"]["arguments"] == wanted
    assert call.rewritten
    bare = asked(made, "hub__file_bug")
    ChangeCall()(bare)
    assert bare.features[CALL].arguments == CHANGES["create_issue"]["fixed"]
    bare.request.json["params"]["arguments"]["repo"]["owner"] = "***"  # as a guardrail masks it
    ChangeCall()(again := asked(made, "hub__file_bug"))
    assert again.features[CALL].arguments == CHANGES["create_issue"]["fixed"]


def test_arguments_that_are_null_are_none_and_those_that_are_no_object_are_refused(made):
    exchange = asked(made, "hub__file_bug", {})
    exchange.request.body = exchange.request.body.replace(b'"arguments":{}', b'"arguments":null')
    exchange.features[CALL].message.params["arguments"] = None
    ChangeCall()(exchange)
    assert json.loads(exchange.request.body)["params"]["arguments"] == CHANGES["create_issue"]["fixed"]
    for wrong in ([1], "x", 7):
        with pytest.raises(Refusal, match="as an object") as refused:
            ChangeCall()(asked(made, "hub__file_bug", wrong))
        assert refused.value.kind.code == "invalid_params"


@pytest.mark.parametrize("argument", ["repo", "draft", "milestone", "Repo", "MILE\u017fTONE"])
def test_a_call_that_gives_a_fixed_or_hidden_argument_is_refused_in_any_spelling(made, argument):
    with pytest.raises(Refusal, match="takes no argument") as refused:
        ChangeCall()(asked(made, "hub__file_bug", {"title": "A", argument: None}))
    assert refused.value.kind.code == "invalid_params"


@pytest.mark.parametrize(("name", "profile"), [("hub__new", "p"), ("hub__search", "p"), ("hub__create_issue", "plain")])
def test_other_calls_stay(made, name, profile):
    exchange = asked(made, name, {"repo": "x"}, profile)
    before = exchange.request.body
    ChangeCall()(exchange)
    assert (exchange.request.body, exchange.features[CALL].rewritten) == (before, False)


@pytest.mark.parametrize(
    "changes",
    [
        *({"a": {}}, {"a": {"name": "x"}, "b": {"name": "x"}}, {"a": {"name": "x y"}}, {"a": {"name": ""}}),
        {"a": {"fixed": {"x": 1}, "hidden": ["x"]}},
    ],
)
def test_changes_without_effect_or_of_one_name_are_refused(changes):
    with pytest.raises(ValidationError):
        MCPShareSettings(changes=changes)
