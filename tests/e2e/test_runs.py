"""Runs of agents through Envoy, with an official SDK: stopped when they loop, and shown as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e.conftest import KEY, Ended, Gateway, eventually, run_gateway

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


def test_a_run_is_one_record_with_its_calls_cost_and_refusals(gateway: Gateway, extproc: Callable[..., Ended]) -> None:
    """By a label, by the header of a session, and by a trace."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for headers in ({"x-ai-run": "night"}, {"x-ai-session": "day"}, {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}):
        assert gateway.chat("stub", headers=headers).status_code == 200
        assert gateway.chat("none", headers=headers).status_code == 404
    gateway.chat("stub")  # in no run
    for run in ("night", "day", trace):
        [found] = eventually(
            lambda run=run: (
                (answer := gateway.http.get(f"{gateway.admin}/runs/{run}")).status_code == 200
                and (data := answer.json()["data"])[0]["requests"] == 2
                and data
            )
        )
        assert (found["id"], found["consumer"], found["refused"]) == (run, "demo", 1)
        served = next(each for each in found["calls"] if each["provider"] == "sandbox")
        assert (served["operation"], served["model"], served["requests"]) == ("chat", "stub", 1)
        assert float(found["cost_usd"]) == (served["input_tokens"] + served["output_tokens"]) / 1000 > 0
        assert [(each["error"], each["requests"]) for each in found["problems"]] == [("model_not_found", 1)]
        exchanges = gateway.http.get(f"{gateway.admin}/exchanges", params={"run": run}).json()["data"]
        assert [(one["run"], one["status"]) for one in exchanges] == [(run, 404), (run, 200)]
    shown = extproc("runs", "show", trace, "--url", gateway.admin).stdout
    assert f"run {trace} of demo" in shown
    assert "model_not_found" in shown
    listed = extproc("runs", "--url", gateway.admin).stdout
    assert all(run in listed for run in ("night", "day", trace))
    assert gateway.http.get(f"{gateway.admin}/runs/unknown").status_code == 404
