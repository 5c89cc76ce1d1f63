"""docs/latency.md and docs/cheap-models.md, each with its own settings and commands."""

from __future__ import annotations

from collections import Counter

import yaml

from tests.e2e.conftest import eventually
from tests.e2e.pages import (
    DOCS,
    EASY,
    HARD,
    Start,
    edit,
    places,
    refused,
    run,
    shell,
    told,
)

# --- latency.md


def test_latency_sends_requests_to_the_fastest_provider(start: Start):
    gateway = run(start, "latency.md")
    gateway.fault("openai", "delay=400ms")
    eventually(lambda: gateway.chat("assistant") and {seen["path"] for seen in gateway.seen("openai")})
    found = Counter(told(gateway.chat("assistant"))[1] for _ in range(60))
    assert found["eu"] >= 45
    eventually(lambda: set(places(gateway)) == {"openai/gpt-6.1-sol", "eu/gpt-6.1-sol"})
    known = yaml.safe_load(shell(gateway, "latency.md"))["data"]
    assert known["openai/gpt-6.1-sol"]["plain_s"] > known["eu/gpt-6.1-sol"]["plain_s"]
    assert known["eu/gpt-6.1-sol"]["failing"] == 0


# --- cheap-models.md


def test_simple_requests_go_to_the_small_model_and_hard_ones_to_the_large_one(start: Start):
    gateway = run(start, "cheap-models.md")
    assert "x-ai-model: gpt-6-luna\n" in shell(gateway, "cheap-models.md")
    assert told(gateway.chat("auto", EASY)) == (1, "openai", "gpt-6-luna")
    assert told(gateway.chat("auto", HARD)) == (1, "openai", "gpt-6.1-sol")
    edit(gateway, ("model: gpt-6-luna", "model: gpt-6-luna+status=500"))
    assert told(gateway.chat("auto", EASY)) == (2, "openai", "gpt-6.1-sol")
    effort = "{model: large, override: {reasoning_effort: low}, max_complexity: 0.4}"
    assert effort in (DOCS / "cheap-models.md").read_text()
    edit(gateway, ("{model: small, max_complexity: 0.4}", effort))
    gateway.reset()
    for text in (EASY, HARD):
        assert told(gateway.chat("auto", text))[2] == "gpt-6.1-sol"
    assert [seen["body"].get("reasoning_effort") for seen in gateway.seen("openai")] == ["low", None]


def test_cost_takes_the_cheapest_target_with_a_known_price(start: Start):
    gateway = run(start, "cheap-models.md")
    llama = "meta-llama/Llama-3.3-70B-Instruct"
    assert told(gateway.chat("cheapest"))[2] == llama
    gateway.fault("local", "status=500")
    assert told(gateway.chat("cheapest")) == (2, "openai", "gpt-6-luna")
    gateway.reset()
    edit(gateway, (", price: {input: 0.2, output: 0.2}", ""))
    assert told(gateway.chat("cheapest"))[2] == "gpt-6-luna"
    gateway.fault("openai", "status=429")
    assert told(gateway.chat("cheapest")) == (3, "local", llama)


def test_downshifting_by_team_and_by_label_works(start: Start):
    gateway = run(start, "cheap-models.md")
    assert told(gateway.chat("gpt-5.4"))[2] == "gpt-6.1-sol"
    assert "max_completion_tokens" not in gateway.seen("openai")[-1]["body"]
    assert told(gateway.chat("gpt-5.4", headers={"x-ai-step": "summary"}))[2] == "gpt-6-luna"
    answer = gateway.chat("gpt-5.4", key="sk-gw-intern")
    assert told(answer)[2] == "gpt-6-luna"
    assert gateway.seen("openai")[-1]["body"]["max_completion_tokens"] == 500
    assert gateway.exchange_of(answer)["skipped"]["large"] == "not_granted"
    assert refused(gateway.chat("large", key="sk-gw-intern")) == (403, "model_not_allowed")
    edit(gateway, ("model: gpt-6-luna", "model: gpt-6-luna+status=500"))
    assert gateway.chat("gpt-5.4", key="sk-gw-intern").status_code == 500


def test_an_exhausted_budget_refuses_and_does_not_downshift(start: Start):
    gateway = run(start, "cheap-models.md")
    budget = "budgets:\n  - {name: large, match: {model: large}, unit: requests, limit: 1, window: hour}\nteams:\n"
    edit(gateway, ("teams:\n", budget))
    assert told(gateway.chat("auto", HARD))[2] == "gpt-6.1-sol"
    assert refused(gateway.chat("auto", HARD)) == (429, "rate_limited")
    assert refused(gateway.chat("auto", EASY)) == (429, "rate_limited")
