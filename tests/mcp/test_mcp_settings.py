"""`mcp:` and the grants of tools: what the settings mean, and the contradictions in them."""

import pytest

from extproc.access.auth import Access, ToolGrants
from extproc.access.auth.settings import ConsumerSettings, GroupSettings, TeamSettings
from extproc.settings import checks
from extproc.settings.config import parse
from extproc.settings.document import ConfigError
from extproc.tools.mcp.settings import MCPServerSettings, MCPSettings
from extproc.words.values import Patterns
from tests.guardrails.services import PROVIDERS

BASE = """
providers: {p: {kind: mock}}
models: {m: {provider: p}}
consumers: [{name: bob, keys: [{env: HOME}], tools: ["dev/*"]}]
"""
SERVERS = "mcp: {servers: {github: {url: 'http://localhost:1/mcp'}}, profiles: {dev: {servers: {github: {}}}}}\n"


def wrong(text):
    with pytest.raises(ConfigError) as raised:
        parse(BASE + text)
    return [problem.show("f").partition(": ")[2] for problem in raised.value.problems]


def test_a_server_takes_the_form_of_a_provider():
    server = MCPServerSettings(url="https://mcp.acme.com/mcp/", token="env:T", header="x-key", timeout="5s")
    hop = server.hop
    assert (hop.url.geturl(), hop.timeout, hop.credential.header, hop.credential.prefix) == (
        *("https://mcp.acme.com/mcp", 5.0, "x-key"),
        "",
    )
    assert "mcp-method" in hop.passed
    assert {"authorization", "cookie"}.isdisjoint(hop.passed)
    bearer = MCPServerSettings(url="http://h", token="env:T").hop
    assert (bearer.credential.header, bearer.credential.prefix) == ("authorization", "Bearer ")
    assert MCPServerSettings(url="http://h").hop.credential is None
    settings = parse(BASE + SERVERS)
    assert list(settings.hops) == ["p", "mcp-github"]
    assert list(parse(BASE).hops) == ["p"]


def test_addresses_and_headers_of_servers_are_checked():
    for url in ("ftp://h", "h", "https://u:p@h", "https://h/x?y=1", "https://h/#f", "https://h/%2e%2e/x", "http://h:0"):
        with pytest.raises(ValueError, match="url must be"):
            MCPServerSettings(url=url)
    for headers in ({"mcp-session-id": "x"}, {"x-extproc-id": "x"}, {"host": "x"}, {"cookie": "x"}, {"x-a": "a\nb"}):
        with pytest.raises(ValueError, match=r"gateway sets|printable"):
            MCPServerSettings(url="http://h", headers=headers)
    for more in ({"header": "cookie"}, {"header": "mcp-name"}, {"header": "x-a", "headers": {"x-a": "1"}}):
        with pytest.raises(ValueError, match="cannot carry"):
            MCPServerSettings(url="http://h", token="env:T", **more)


def test_contradictions_have_their_places():
    assert wrong(SERVERS.replace("github: {}", "gitlab: {}")) == [
        "mcp.profiles.dev.servers.gitlab: there is no server 'gitlab' in mcp.servers"
    ]
    [found] = wrong(SERVERS.replace("profiles:", "resource: 'https://h/path', profiles:"))
    assert found.startswith("mcp.resource: resource is the address alone")
    [found] = wrong(SERVERS.replace("profiles:", "tools: {create: {sensitive: true}}, profiles:"))
    assert found.startswith("mcp.tools: 'create': write server/tool")
    settings = parse(BASE + SERVERS)
    clash = settings.model_copy(update={"providers": {"mcp-github": settings.providers["p"], **settings.providers}})
    assert (("mcp", "servers", "github"), "the provider 'mcp-github' would have the same name in Envoy") in [
        *checks.contradictions(clash)
    ]


def test_lints_find_what_can_never_work():
    def doubts(text):
        return [message for path, message in checks.doubts(parse(text)) if path[:1] == ("mcp",) or "tools" in path]

    assert doubts(BASE + SERVERS) == []
    assert doubts(BASE) == ["has no effect without mcp"]
    assert "approve" in doubts(BASE + SERVERS.replace("profiles:", "approvals: {wait: 1m}, profiles:"))[0]
    nobody = BASE.replace('["dev/*"]', '["ops/*"]')
    assert doubts(nobody + SERVERS) == [
        "no consumer may use this profile: grant tools to a consumer, a team or a group"
    ]


def test_names_that_two_servers_share_are_refused_where_they_are_known_and_else_doubted():
    def shared(first, second):
        text = f"""
mcp:
  servers: {{github: {{url: 'http://127.0.0.1:1/mcp'}}, web: {{url: 'http://127.0.0.1:2/mcp'}}}}
  profiles: {{dev: {{servers: {{github: {first}, web: {second}}}}}}}
"""
        return BASE + text

    where = ("mcp", "profiles", "dev", "servers", "web")

    def doubted(first, second):
        return [path for path, _ in checks.doubts(parse(shared(first, second))) if path == where]

    with pytest.raises(ConfigError, match="'search' is also a tool of github in this profile"):
        parse(shared("{prefix: '', tools: [search, get]}", "{prefix: '', tools: ['list_*', search]}"))
    assert doubted("{prefix: a_, tools: ['g*']}", "{prefix: a_, tools: [get]}") == [where]
    assert doubted("{prefix: ''}", "{prefix: ''}") == [where]
    assert doubted("{}", "{}") == doubted("{prefix: ''}", "{}") == []
    assert doubted("{prefix: '', tools: [get]}", "{prefix: '', tools: [search]}") == []


def test_a_file_of_pins_that_is_not_used_is_doubted(tmp_path):
    def doubted():
        text = BASE + SERVERS.replace("{servers", f"{{pins: {{file: {lock}}}, servers", 1)
        return [message for path, message in checks.doubts(parse(text)) if path == ("mcp", "pins", "file")]

    lock = tmp_path / "mcp.lock.yaml"
    assert "no such file yet" in doubted()[0]
    lock.write_text("version: 1\nservers: {}\n")
    assert "renew it with `extproc mcp pin`" in doubted()[0]
    lock.write_text("version: 2\nservers: {}\n")
    assert doubted() == []


def test_the_most_special_policy_applies():
    servers = {"github": {"url": "http://h"}, "web": {"url": "http://h", "untrusted": True}}
    profiles = {"dev": {"servers": {"github": {}}}}
    tools = {
        "*": {"price": 1},
        "github/*": {"sensitive": True},
        "github/get_*": {},
        "github/get_secret": {"disabled": True},
    }
    settings = MCPSettings(servers=servers, profiles=profiles, tools=tools)
    assert settings.policy("github", "create").sensitive
    assert not settings.policy("github", "get_file").sensitive
    assert settings.policy("github", "get_secret").disabled
    assert settings.policy("web", "search").price == 1
    assert settings.policy("web", "search").untrusted


def test_a_copy_with_changes_forgets_what_was_worked_out():
    servers, profiles = {"web": {"url": "http://h", "token": "env:T"}}, {"dev": {"servers": {"web": {}}}}
    settings = MCPSettings(servers=servers, profiles=profiles, tools={"web/*": {"price": 1}})
    assert (settings.policy("web", "x").price, settings.servers["web"].hop.disabled) == (1, False)
    assert settings.model_copy(update={"tools": {}}).policy("web", "x").price is None
    off = settings.servers["web"].model_copy(update={"disabled": True, "untrusted": True})
    assert off.hop.disabled
    assert settings.model_copy(update={"servers": {"web": off}}).policy("web", "x").untrusted
    assert settings.policy("web", "x").price == 1


def test_tools_are_granted_by_every_list_that_names_some_and_by_none_without():
    teams = {"red": TeamSettings(tools=["dev/*"]), "blue": TeamSettings()}
    groups = {"pilots": GroupSettings(tools=["ops/*"]), "pairs": GroupSettings(tools=["dev/a*"])}
    access = Access(teams, groups)

    def may(name, team=None, in_groups=(), tools=None):
        who = access.consumer(ConsumerSettings(name="c", team=team, groups=in_groups, tools=tools))
        return who.tools(name)

    assert not may("dev/x")
    assert not may("dev/x", team="blue")
    assert may("dev/x", team="red")
    assert may("dev/x", tools=["dev/x"])
    assert not may("ops/x", team="red", tools=["*"])
    assert not may("dev/x", team="red", tools=[])
    assert may("dev/ab", team="red", in_groups=["pilots", "pairs"])
    assert not may("dev/b", team="red", in_groups=["pilots", "pairs"])
    assert not may("dev/ab", in_groups=["unknown"])


def test_a_profile_is_entered_where_one_of_its_tools_could_be_granted():
    def enters(*lists):
        return ToolGrants([Patterns(patterns) for patterns in lists]).enters("dev")

    assert [enters(["dev/*"]), enters(["*"]), enters(["d*"]), enters(["dev/a"]), enters(["*/search"])] == [True] * 5
    assert [enters(), enters([]), enters(["dev"]), enters(["develop/*"]), enters(["ops/*"])] == [False] * 5
    assert not enters(["dev/*"], ["ops/*"])


def test_guardrails_and_budgets_of_tools(settings):
    judge = "kind: llm_judge, model: m, consumer: judge, rubric: 'Nothing that is BAD may pass here.'"
    with pytest.raises(ConfigError, match="not by services"):
        settings(f"{PROVIDERS}guardrails: [{{name: g, {judge}, on: [tool_descriptions]}}]")
    found = settings(
        "guardrails: [{name: g, kind: secrets, on: [tool_arguments]}]\n"
        "budgets: [{name: b, unit: tool_calls, limit: 1, window: hour}]"
    )
    told = [path for path, message in checks.doubts(found) if message == "has no effect without mcp"]
    assert told == [("guardrails", 0, "on"), ("budgets", 0, "unit")]
