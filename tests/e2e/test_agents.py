"""The agents that people use, unchanged: Codex, Claude Code and Gemini CLI as npm has them, with homes of their own and
dummy keys, through Envoy to strict doubles. Each runs a tool and ends.

`make agents` installs them and runs these tests. They take a minute, so other runs leave them out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway

pytestmark = pytest.mark.agents

CLIENTS = Path(os.environ.get("EXTPROC_AGENTS", ".venv/agents")).absolute() / "node_modules" / ".bin"
AI_SDK = Path(__file__).parent / "clients" / "ai_sdk.mjs"
PATIENCE = 90.0  # seconds for one session
SETTINGS = """
providers:
  openai: {kind: openai, base_url: "{mock_openai}"}
  anthropic: {kind: anthropic, base_url: "{mock_anthropic}", hosted_tools: drop}
  groq: {kind: groq, base_url: "{mock_groq}", hosted_tools: drop}
  gemini: {kind: gcp_gemini, base_url: "{at_gemini}/v1beta", hosted_tools: drop}
  bedrock: {kind: aws_bedrock, region: us-east-1, base_url: "{at_bedrock}", api_key: env:EXTPROC_DEMO_KEY,
            hosted_tools: drop}
  down: {kind: openai, base_url: "http://127.0.0.1:9/v1"}
models:
  gpt-5.4: {provider: openai}
  gpt-5.6: {provider: openai}
  claude-sonnet-4-6: {provider: anthropic}
  llama: {provider: groq, model: llama-3.3-70b-versatile}
  gemini-2.5-flash: {provider: gemini}
  gemini-3-pro-preview: {provider: gemini}
  gemini-3.1-pro-preview: {provider: gemini}  # Gemini CLI asks for it in place of the former
  nova: {provider: bedrock, model: "amazon.nova-pro-v1:0"}
  lost: {provider: down, model: gpt-5.4}
virtual_models:
  over: {targets: [{model: lost}, {model: claude-sonnet-4-6}]}
  over-chat: {targets: [{model: lost}, {model: llama}]}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
budgets:
  - {name: tokens-per-minute, per: [consumer], unit: tokens, limit: 1000000, window: minute}
brake: {repeats: 3}
stores: {counters: "memory:"}
"""
MOCKS = ("openai", "anthropic", "groq", "gemini", "bedrock")
TARGETS = (
    *("gpt-5.4", "gpt-5.6", "claude-sonnet-4-6", "llama", "gemini-2.5-flash", "gemini-3-pro-preview", "nova"),
    *("over", "over-chat"),
)
each = pytest.mark.parametrize("model", TARGETS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    for gateway in run_gateway(tmp_path_factory.mktemp("agents"), SETTINGS, MOCKS, {}):
        yield gateway
        assert gateway.metric("extproc_refusals_total", code="run_looping") == 0, "the brake stopped a real agent"


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


class Session(NamedTuple):
    status: int
    told: str  # what the agent wrote


@pytest.fixture
def run(gateway: Gateway, tmp_path: Path) -> Callable[..., Session]:
    """`run("codex", *arguments)`: one session of an agent in an empty folder, with an empty home."""
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir(parents=True)
    (home / ".codex").mkdir(parents=True)
    (home / ".gemini").mkdir()
    (home / ".gemini" / "settings.json").write_text(json.dumps(GEMINI), encoding="utf-8")
    (home / ".codex" / "config.toml").write_text(CODEX.replace("ADDRESS", gateway.base_url), encoding="utf-8")

    def session(name: str, *arguments: str, key: str = KEY, **more: str) -> Session:
        return run_agent(gateway, name, arguments, home=home, work=work, key=key, **more)

    return session


def run_agent(
    gateway: Gateway, name: str, arguments: Iterable[str], *, home: Path, work: Path, key: str, **more: str
) -> Session:
    """One session of an agent. `more` is added to its environment."""
    program = CLIENTS / name
    if not program.exists():
        pytest.skip(f"{name} is not installed: `make agents` does it")
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "GATEWAY_KEY": key, "ANTHROPIC_AUTH_TOKEN": key}
    env |= {"GEMINI_API_KEY": key, "GOOGLE_GEMINI_BASE_URL": gateway.url}
    env |= {"ANTHROPIC_BASE_URL": gateway.url, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", **more}
    done = subprocess.run(
        [program, *arguments],
        cwd=work,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        check=False,
    )
    return Session(done.returncode, done.stdout.decode(errors="replace"))


GEMINI = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "privacy": {"usageStatisticsEnabled": False},
    "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
}
CODEX = """
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "ADDRESS"
env_key = "GATEWAY_KEY"
wire_api = "responses"
"""


def tells(tool: str, **arguments: Any) -> str:
    """What makes the doubles call a tool: see tests/doubles/scene.py."""
    return f"Please call {tool} with {json.dumps(arguments)}"


def of_model(gateway: Gateway, model: str) -> list[dict[str, Any]]:
    return [entry for entry in gateway.exchanges() if entry.get("model") == model]


def check(gateway: Gateway, session: Session, model: str) -> list[dict[str, Any]]:
    """The tool ran, the session ended, and every exchange was answered by a provider. Gives the exchanges."""
    assert session.status == 0, session.told
    assert "The tool said" in session.told, session.told
    assert "0042" in session.told, "the output of the command came back"
    eventually(lambda: len(of_model(gateway, model)) >= 2)
    found = of_model(gateway, model)
    assert {entry["status"] for entry in found} == {200}, found
    return found


RUN = "printf '%04d' $((6*7))"


@each
def test_codex_runs_a_tool_and_ends(gateway: Gateway, run: Callable[..., Session], model: str) -> None:
    arguments = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-m", model)
    check(gateway, run("codex", "exec", *arguments, tells("exec_command", cmd=RUN)), model)


@each
def test_claude_code_runs_a_tool_and_ends(gateway: Gateway, run: Callable[..., Session], model: str) -> None:
    arguments = ("--model", model, "--allowedTools", "Bash")
    told = tells("Bash", command=RUN, description="a number")
    check(gateway, run("claude", "-p", told, *arguments, ANTHROPIC_SMALL_FAST_MODEL=model), model)


@pytest.mark.parametrize(
    "model", [name for name in TARGETS if name != "gemini-3-pro-preview"] + ["gemini-3.1-pro-preview"]
)
def test_gemini_cli_runs_a_tool_and_ends(gateway: Gateway, run: Callable[..., Session], model: str) -> None:
    told = tells("run_shell_command", command="seq -f %04g 42 42")  # it refuses substitutions
    check(gateway, run("gemini", "-p", told, "-m", model, "--yolo", "--skip-trust"), model)


def test_claude_code_asks_the_api_of_openai_that_takes_tools_beside_reasoning(
    gateway: Gateway, run: Callable[..., Session]
) -> None:
    assert run("claude", "-p", "Hello", "--model", "gpt-5.6", ANTHROPIC_SMALL_FAST_MODEL="gpt-5.6").status == 0
    assert {entry["path"] for entry in gateway.seen("openai")} == {"/v1/responses"}


def test_codex_calls_a_tool_of_a_group(gateway: Gateway, run: Callable[..., Session]) -> None:
    """Its name comes back as Codex knows it, or Codex would not run it."""
    arguments = ("--skip-git-repo-check", "-m", "llama")
    session = run("codex", "exec", *arguments, tells("wait_agent", targets=["nobody"], timeout_ms=10000))
    assert session.status == 0, session.told
    assert "unsupported call" not in session.told
    offered = [tool["function"]["name"] for tool in gateway.seen("groq")[0]["body"]["tools"]]
    assert any(name.endswith("__wait_agent") for name in offered)


# --- the Vercel AI SDK


@pytest.fixture
def ai_sdk(gateway: Gateway) -> Callable[..., Session]:
    """`ai_sdk(model, *store)`: two turns, each with a tool in the middle."""

    def session(*arguments: str) -> Session:
        modules = CLIENTS.parent
        if not (modules / "ai").exists():
            pytest.skip("the AI SDK is not installed: `make agents` does it")
        script = modules.parent / AI_SDK.name  # beside its modules, where Node looks for them
        shutil.copy(AI_SDK, script)
        command = ("node", script, gateway.base_url, *arguments)
        env = {"PATH": os.environ["PATH"], "GATEWAY_KEY": KEY}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return Session(done.returncode, done.stdout + done.stderr)

    return session


@each
def test_the_ai_sdk_takes_two_turns_with_a_tool(gateway: Gateway, ai_sdk: Callable[..., Session], model: str) -> None:
    check(gateway, ai_sdk(model, "false"), model)


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "over"])
def test_the_ai_sdk_refers_to_items_that_the_gateway_keeps(
    gateway: Gateway, ai_sdk: Callable[..., Session], model: str
) -> None:
    """By default it refers to what OpenAI would have stored."""
    check(gateway, ai_sdk(model), model)


@pytest.mark.parametrize(("more", "requests"), [("", 6), ("stream_max_retries = 0\n", 1)])
def test_codex_takes_a_wrong_key_as_final_where_it_is_told_to(
    gateway: Gateway, run: Callable[..., Session], tmp_path: Path, more: str, requests: int
) -> None:
    """It reads no header that says so. docs/clients.md has the statuses that it takes as final."""
    config = tmp_path / "home" / ".codex" / "config.toml"
    config.write_text(config.read_text() + more)

    def refused() -> int:
        return sum(entry["error"] == "invalid_key" for entry in gateway.exchanges())

    before = refused()
    session = run("codex", "exec", "--skip-git-repo-check", "-m", "gpt-5.4", "Hello", key="sk-gw-wrong")
    assert session.status != 0
    assert "401" in session.told
    eventually(lambda: refused() >= before + requests)
    assert refused() == before + requests


@pytest.mark.parametrize("agent", ["codex", "claude"])
def test_a_wrong_key_ends_the_session_at_once(run: Callable[..., Session], agent: str) -> None:
    said = {
        "codex": ("exec", "--skip-git-repo-check", "-m", "gpt-5.4", "Hello"),
        "claude": ("-p", "Hello", "--model", "gpt-5.4"),
    }
    session = run(agent, *said[agent], key="sk-gw-wrong")
    assert session.status != 0
