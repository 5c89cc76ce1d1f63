"""Claude Code, Codex and Gemini CLI as real agents with tools behind the gateway: each lists its team's tools, calls
one, and sees nothing of the others. `make agents` installs them and runs these tests.

The models are strict doubles that call the tool they are told to. Agents reach models and tools through one gateway.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles.mcp import KINDS, McpServer, McpServers, tool
from tests.e2e.conftest import KEY, Gateway, run_gateway
from tests.e2e.test_agents import CODEX, GEMINI, Session, run_agent, tells

pytestmark = pytest.mark.agents

OTHER = "sk-gw-support"
SETTINGS = """
providers:
  openai: {kind: openai, base_url: "{mock_openai}"}
  anthropic: {kind: anthropic, base_url: "{mock_anthropic}", hosted_tools: drop}
  gemini: {kind: gcp_gemini, base_url: "{at_gemini}/v1beta", hosted_tools: drop}
models:
  gpt-5.4: {provider: openai}
  claude-sonnet-4-6: {provider: anthropic}
  gemini-2.5-flash: {provider: gemini}
mcp:
  servers:
    tickets: {url: "SERVERS/tickets"}
    wiki: {url: "SERVERS/wiki"}
  profiles:
    dev: {servers: {tickets: {}, wiki: {}}}
consumers:
  - {name: demo, team: platform, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["dev/*"]}
  - {name: agent, team: support, keys: [{env: SUPPORT_KEY}], tools: ["dev/*"]}
teams:
  platform: {tools: ["dev/tickets__*"]}
  support: {tools: ["dev/wiki__*"]}
stores: {counters: "memory:"}
"""
MODELS = {"claude": "claude-sonnet-4-6", "codex": "gpt-5.4", "gemini": "gemini-2.5-flash"}
AGENTS = pytest.mark.parametrize("agent", MODELS)
TEXT = "0042 tickets"


@pytest.fixture(scope="module", params=["dual", "stateful-sse"])
def servers(request: pytest.FixtureRequest) -> Iterator[McpServers]:
    made = (
        McpServer(name, **KINDS[request.param], tools=[tool("search", f"Searches the {name}."), tool("remove")])
        for name in ("tickets", "wiki")
    )
    with McpServers(*made).running() as running:
        yield running


@pytest.fixture(scope="module")
def shared(servers: McpServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yaml = SETTINGS.replace("SERVERS", servers.url)
    names = ("openai", "anthropic", "gemini")
    yield from run_gateway(tmp_path_factory.mktemp("agents"), yaml, names, {"SUPPORT_KEY": OTHER})


@pytest.fixture
def gateway(shared: Gateway, servers: McpServers, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    monkeypatch.setattr("extproc.upstream.mock.provider.LOGGED_BODY", 4 << 20)  # Claude Code sends its tools in 100 KiB
    shared.begin()
    for server in servers.by_name.values():
        server.seen.clear()
    return shared


@pytest.fixture
def run(gateway: Gateway, tmp_path: Path) -> Callable[..., Session]:
    """`run(agent, prompt, key)`: one session of an agent with the tools of the profile `dev`."""
    url = f"{gateway.url}/mcp/dev"

    def session(agent: str, prompt: str, key: str = KEY) -> Session:
        home, work = tmp_path / "home", tmp_path / "work"
        for folder in (work, home / ".codex", home / ".gemini"):
            folder.mkdir(parents=True, exist_ok=True)
        headers = {"Authorization": f"Bearer {key}"}
        servers = {"tools": {"httpUrl": url, "headers": headers, "trust": True}}
        (home / ".gemini" / "settings.json").write_text(json.dumps(GEMINI | {"mcpServers": servers}), encoding="utf-8")
        codex = CODEX.replace("ADDRESS", gateway.base_url)
        codex += f'\n[mcp_servers.tools]\nurl = "{url}"\nbearer_token_env_var = "GATEWAY_KEY"\n'
        (home / ".codex" / "config.toml").write_text(codex, encoding="utf-8")
        claude = json.dumps({"mcpServers": {"tools": {"type": "http", "url": url, "headers": headers}}})
        model = MODELS[agent]
        arguments = {
            "claude": ("-p", prompt, "--model", model, "--mcp-config", claude, "--allowedTools", "mcp__tools"),
            "codex": (
                "exec",
                "--skip-git-repo-check",
                "--dangerously-bypass-approvals-and-sandbox",
                "-m",
                model,
                prompt,
            ),
            "gemini": ("-p", prompt, "-m", model, "--yolo", "--skip-trust"),
        }[agent]
        more = {"ANTHROPIC_SMALL_FAST_MODEL": model}
        return run_agent(gateway, agent, arguments, home=home, work=work, key=key, **more)

    return session


def offered(gateway: Gateway, agent: str) -> str:
    """The requests that the model got, as text: the tools that the agent offered are in them."""
    provider = {"claude": "anthropic", "codex": "openai", "gemini": "gemini"}[agent]
    return json.dumps([entry["body"] for entry in gateway.seen(provider)])


@AGENTS
def test_an_agent_lists_and_calls_its_teams_tools(
    gateway: Gateway, servers: McpServers, run: Callable[..., Session], agent: str
) -> None:
    session = run(agent, tells("tickets__search", text=TEXT))
    assert session.status == 0, session.told
    assert f"tickets: {TEXT}" in session.told, session.told
    sent = offered(gateway, agent)
    assert "tickets__remove" in sent
    assert "wiki__" not in sent, "the other team's tools are not listed"
    assert [(seen.name, seen.body["params"]["arguments"]) for seen in servers["tickets"].calls] == [
        ("search", {"text": TEXT})
    ]
    assert servers["wiki"].calls == []
    assert [violation for name in ("tickets", "wiki") for violation in servers[name].violations] == []
    row = gateway.last(lambda entry: entry.get("model") == "tickets__search")
    assert (row["consumer"], row["status"]) == ("demo", 200)


@AGENTS
def test_the_other_team_has_the_other_tools(
    gateway: Gateway, servers: McpServers, run: Callable[..., Session], agent: str
) -> None:
    session = run(agent, tells("wiki__search", text=TEXT), OTHER)
    assert f"wiki: {TEXT}" in session.told, session.told
    assert "tickets__" not in offered(gateway, agent)
    assert servers["tickets"].calls == []
