"""A tool is listed exactly when it can be called, for random servers, profiles, policies and grants."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import msgspec

from extproc.access.auth.access import ToolGrants
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.catalogue import Catalogue, Definition
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.servers import McpServer
from extproc.tools.mcp.settings import MCPSettings
from extproc.wire.framing import rpc
from extproc.words.exchange import Consumer
from extproc.words.values import Patterns
from tests.exchanges import new_exchange

WORDS = ("get", "set", "a", "b", "a__b", "search", "get_issue", "", "__", "delete_all", "x")
UNTAINTED: Any = SimpleNamespace(tools=lambda _exchange: ())
ROUNDS = 100  # of ten combinations each


def server(name: str, tools: list[str]) -> Any:
    entries = {
        tool: Definition(
            "tools", name, tool, {"name": msgspec.Raw(msgspec.json.encode(tool)), "inputSchema": msgspec.Raw(b"{}")}
        )
        for tool in tools
    }
    kinds: Any = {"tools": entries, "prompts": {}, "resources": {}, "templates": {}}
    made = McpServer(name, None)  # type: ignore[arg-type]
    made.learn(Catalogue(True, capabilities={"tools": {}}, entries=kinds), 500)
    return made


def pattern(chance: random.Random) -> str:
    word = chance.choice(WORDS)
    return chance.choice((word or "*", word + "*", "*" + word, "*"))


def world(chance: random.Random) -> tuple[MCPSettings, Any, list[str]]:
    """Settings, servers, and all names that a client may try."""
    servers = {name: [word for word in chance.sample(WORDS, 5) if word] for name in ("a", "a__b", "s")}
    shares: dict[str, Any] = {}
    for name in chance.sample([*servers], chance.randint(1, 3)):
        shares[name] = {"tools": [pattern(chance) for _ in range(chance.randint(0, 2))]}
        if chance.random() < 0.5:
            shares[name]["prefix"] = chance.choice(("", "p_", "a__"))
    policies = {
        f"{chance.choice([*servers])}/{pattern(chance)}": {"disabled": True} for _ in range(chance.randint(0, 2))
    }
    settings = MCPSettings.model_validate(
        {
            "servers": {name: {"url": "http://127.0.0.1:9/mcp", "disabled": chance.random() < 0.1} for name in servers},
            "profiles": {"p": {"servers": shares}},
            "tools": policies,
        }
    )
    prefixes = ("", "p_", "a__", "a__b__", "s__", "b__", "A__")
    names = sorted({prefix + word for prefix in prefixes for word in WORDS})
    found = SimpleNamespace(generation=1, by_name={name: server(name, tools) for name, tools in servers.items()})
    return settings, found, names


def test_a_tool_is_listed_exactly_when_it_can_be_called() -> None:
    """A thousand combinations of consumer, profile and servers; every name that any of them could mean."""
    chance, combinations, listed_at_all = random.Random(20261122), 0, 0
    for _ in range(ROUNDS):
        settings, servers, names = world(chance)
        profiles = Profiles(settings, servers, Policy(settings), UNTAINTED)
        for _ in range(10):
            combinations += 1
            lists = [
                Patterns([f"p/{pattern(chance)}" for _ in range(chance.randint(1, 3))])
                for _ in range(chance.randint(0, 3))
            ]
            grants = ToolGrants(lists)
            exchange = new_exchange("id")
            exchange.features[CALL], exchange.consumer = asked(settings, "x"), Consumer("alice", tools=grants)
            listed = [each["name"] for each in msgspec.json.decode(profiles.listed(exchange, "tools"))]
            assert len(set(listed)) == len(listed)
            callable_ = {name for name in [*names, *listed] if profiles.find(asked(settings, name), grants) is not None}
            assert callable_ == set(listed)
            listed_at_all += len(listed)
            if listed:
                assert grants.enters("p"), "who sees a tool gets into the profile"
            for name in listed:
                found = profiles.find(asked(settings, name), grants)
                assert found is not None
                assert found.name in servers.by_name[found.server].catalogue.entries["tools"]
                assert not settings.servers[found.server].disabled
                assert not settings.policy(found.server, found.name).disabled
    assert combinations == 1000
    assert listed_at_all > 400


def asked(settings: MCPSettings, name: str) -> Call:
    message = rpc.message({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}})
    return Call("p", settings.profiles["p"], message=message, name=name)
