"""Agent frameworks whose default client goes on from `previous_response_id`, at a target that keeps nothing.

Microsoft's agent-framework and Agno as PyPI has them. `make agents` installs them and runs these tests.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import KEY, Gateway

pytestmark = pytest.mark.agents

PYTHON = Path(os.environ.get("EXTPROC_AGENTS", ".venv/agents")).absolute() / "py" / "bin" / "python"
CLIENT = Path(__file__).parent / "clients" / "responses_agents.py"
MODEL = "gpt-5.4-mini"  # the frameworks take it for one that thinks
YAML = """
providers: {claude: {kind: anthropic, base_url: "{mock_anthropic}", api_key: env:EXTPROC_DEMO_KEY}}
models: {gpt-5.4-mini: {provider: claude, model: claude-sonnet-5, max_output_tokens: 1000}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
brake: {repeats: 3}
stores: {counters: "memory:"}
"""


@pytest.mark.parametrize("form", ["plain", "streamed"])
@pytest.mark.parametrize("framework", ["agent_framework", "agno"])
def test_an_agent_calls_its_tool_in_two_turns_of_a_session(start: Callable[..., Gateway], framework: str, form: str):
    gateway = start(YAML, ("anthropic",))
    words = [str(PYTHON), str(CLIENT), framework, form, gateway.base_url, KEY, MODEL]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len([line for line in done.stdout.splitlines() if line.strip()]) == 2
    bodies = [seen["body"]["messages"] for seen in gateway.seen("anthropic")]
    results = [
        block
        for message in bodies[-1]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_result"
    ]
    assert results, "the tool was called"
    assert "sunny" in str(results[0])
    assert str(bodies[-1]).count("How is the weather in Rome?") == 1, "the first turn is there, once"
    assert {entry["status"] for entry in gateway.exchanges()} == {200}
