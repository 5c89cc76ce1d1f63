"""A canary that fails, compared through Envoy: its failures count, though the trusted target repaired each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e.conftest import KEY, Ended, Gateway, eventually, run_gateway

YAML = """
providers:
  old: {kind: mock, base_url: "{mock_old}"}
  new: {kind: mock, base_url: "{mock_new}", outlier_detection: {consecutive_5xx: 1000}}
models:
  stable: {provider: old, model: m, price: {input: 1, output: 1}}
  canary: {provider: new, model: m, price: {input: 1, output: 1}}
virtual_models:
  assistant: {strategy: weighted, targets: [{model: stable, weight: 50}, {model: canary, weight: 50}]}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("compare"), YAML, ("old", "new"), {"EXTPROC_DEMO_KEY": KEY})


def test_a_failing_canary_is_called_not_safe(gateway: Gateway, extproc: Callable[..., Ended]) -> None:
    gateway.fault("new", "status=500")
    client = openai.OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    for number in range(60):
        body = [{"role": "user", "content": f"Hello {number}"}]
        assert client.chat.completions.create(model="assistant", messages=body).choices  # type: ignore[arg-type]

    def compared(*options: str) -> Ended:
        return extproc("compare", "stable", "canary", "--url", gateway.admin, *options)

    eventually(
        lambda: (
            sum(json.loads(compared("--format", "json").stdout)["classes"][0][arm]["exchanges"] for arm in "ab") == 60
        )
    )
    found = json.loads(compared("--format", "json", "--model", "assistant").stdout)
    assert found["state"] == "not_safe"
    failed = next(one for one in found["classes"][0]["measures"] if one["name"] == "failed")
    example = gateway.http.get(f"{gateway.admin}/exchanges/{failed['examples'][-1]}").json()
    assert [one["target"] for one in example["tries"]] == ["canary"]
    assert "are failed" in found["sentence"]
    assert found["sentence"] in compared().stdout
    assert compared("--since", "2020-01-01", "--format", "json").stdout.count('"start":"2020-01-01T00:00:00Z"') == 1
    assert "start" in compared("--since", "yesterday").stderr
    assert compared("--model", "another").stdout.startswith("Not enough data")
    assert extproc("compare", "stable", "stable", "--url", gateway.admin).returncode == 1


def test_a_failing_canary_on_trial_stops_by_itself(start: Callable[..., Gateway]) -> None:
    trial = "{strategy: weighted, canary: {target: canary, against: stable}, "
    gateway = start(YAML.replace("{strategy: weighted, ", trial), ("old", "new"))
    texts = itertools.count()

    def asked() -> int:
        """Requests of ten that went to the canary first."""
        gateway.reset()
        gateway.fault("new", "status=500")
        assert {gateway.chat("assistant", f"Hello {next(texts)}").status_code for _ in range(10)} == {200}
        return len(gateway.seen("new"))

    assert asked() > 2
    eventually(lambda: asked() == 0, 60)
    assert gateway.metric("extproc_canaries_stopped_total", model="assistant", target="canary") == 1

    def acts() -> list[dict[str, Any]]:
        trail = [one["event"] for one in gateway.http.get(gateway.admin + "/audit").json()["data"]]
        return [each["extproc"]["detail"] for each in trail if each.get("event", {}).get("action") == "stop-canary"]

    [told] = eventually(acts)
    assert "of its answers are failed" in told["reason"]
    gateway.reset()
    gateway.fault("old", "status=500")  # the canary still serves what fails elsewhere
    assert gateway.chat("assistant", "once more").headers["x-ai-provider"] == "new"
