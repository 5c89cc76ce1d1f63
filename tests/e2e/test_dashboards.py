"""The dashboards' queries and the recording rules in a real Prometheus that scrapes a real gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.conftest import Gateway, eventually, free_ports, run_gateway

MONITORING = Path(__file__).parents[2] / "k8s" / "monitoring"
PANELS = [
    panel
    for file in sorted(MONITORING.glob("dashboards/*.json"))
    if file.name != "tools.json"  # the traffic here is of models
    for panel in json.loads(file.read_text())["panels"]
]
SETTINGS = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
  gone: {kind: mock, base_url: "http://127.0.0.1:1/v1"}
models:
  stub: {provider: sandbox, price: {input: 1, output: 2}}
  lost: {provider: gone, price: {input: 1, output: 2}}
virtual_models: {assistant: {targets: [{model: lost}, {model: stub}]}}
consumers: [{name: demo, team: platform, keys: [{env: EXTPROC_DEMO_KEY}]}]
teams: {platform: {models: ["*"]}}
budgets: [{name: money, match: {consumer: demo}, unit: usd, limit: 100, window: day}]
guardrails: [{name: no-keys, kind: regex, patterns: {aws: 'AKIA[0-9A-Z]{16}'}}]
stores: {counters: "memory:"}
"""
# Panels of events that the gateway of this test does not have.
QUIET = {
    "Answers per hour without a price",
    "Endpoints of pools, and requests that wait",
    "Cache of answers",
    "Cached and reasoning tokens",
    "Duration of guardrail services",
    "Failures of guardrails",
    "Requests that Envoy ended",
    "Requests that budgets and limits refused",
    "Time until the listener's certificate ends",
    "Tokens per hour read from and written to the prompt caches of providers, by team",
    "USD per hour saved by the prompt caches of providers (read), and spent on them (write), by team",
    "USD per hour saved by the cache, by team",
}

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path, SETTINGS, ("sandbox",), {})


@pytest.fixture
def prometheus(gateway: Gateway, tmp_path: Path) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes the gateway every 500 ms."""
    settings = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "200ms"},
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "scrape_configs": [
            {"job_name": "g", "static_configs": [{"targets": [gateway.status.removeprefix("http://")]}]},
        ],
    }
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(settings))
    [port] = free_ports(1)
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
            eventually(lambda: ready(client))
            yield client
    finally:
        process.kill()
        process.wait()


def ready(prometheus: httpx.Client) -> bool:
    try:
        return prometheus.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def ask(prometheus: httpx.Client, query: str) -> list[dict[str, object]]:
    answer = prometheus.get("/api/v1/query", params={"query": query.replace("$__rate_interval", "30s")}).json()
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


def test_every_panel_shows_the_traffic(gateway: Gateway, prometheus: httpx.Client):
    def talk(content: str, model: str, *, stream: bool = False) -> None:
        message = {"role": "user", "content": content}
        gateway.post("/v1/chat/completions", {"model": model, "stream": stream, "messages": [message]})

    def recorded() -> bool:
        for stream in (True, False):
            talk("Hello", "stub", stream=stream)
        talk("Hello", "assistant")
        talk("Hello", "lost")
        talk("AKIA" + "A" * 16, "stub")
        names = (
            "extproc_targets_skipped_total",
            "extproc:cost_usd:rate1h",
            "extproc:provider_failures:ratio_rate5m",
            "extproc_budget_used_ratio",
        )
        return all(ask(prometheus, f"{name} > 0") for name in names)

    eventually(recorded)
    empty = {
        panel["title"]
        for panel in PANELS
        if not [line for target in panel["targets"] for line in ask(prometheus, target["expr"])]
    }
    assert empty == QUIET
