"""Runs of agents through Envoy, with an official SDK: stopped when they loop, and shown as one record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.conftest import KEY, Gateway, run_gateway

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 1000, output: 1000}}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
brake: {repeats: 3}
"""
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("runs"), YAML, ("sandbox",), {"EXTPROC_DEMO_KEY": KEY})


def test_an_agent_whose_tool_fails_for_ever_is_stopped_with_the_evidence(gateway: Gateway) -> None:
    """Its SDK does not retry, and the user's next word frees it."""
    client = openai.OpenAI(base_url=gateway.base_url, api_key=KEY, default_headers={"x-ai-run": "loop"})
    messages: list[Any] = [{"role": "user", "content": "What time is it?"}]
    turns = 0
    with pytest.raises(openai.RateLimitError) as refused:
        while turns < 9:
            client.chat.completions.create(model="stub", messages=messages, tools=[CLOCK])  # type: ignore[call-overload]
            turns += 1
            call = {"id": f"c{turns}", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
            messages += [
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": f"c{turns}", "content": "error: no battery"},
            ]
    assert turns == 3
    assert refused.value.code == "run_looping"
    assert "tool 'clock' was called 3 times" in refused.value.message
    messages.append({"role": "user", "content": "Then guess."})
    assert client.chat.completions.create(model="stub", messages=messages).choices
    assert len(gateway.seen("sandbox")) == 4
