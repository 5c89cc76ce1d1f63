"""docs/canary.md and docs/sticky-sessions.md, each with its own settings and commands."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.conftest import Gateway, eventually
from tests.e2e.pages import (
    Start,
    edit,
    run,
    shares,
    shell,
    told,
    tries,
)

# --- canary.md


def test_a_canary_gets_its_share_and_testers_always_get_the_canary(start: Start):
    gateway = run(start, "canary.md")
    served = {model: int(count) for count, _, model in map(str.split, shell(gateway, "canary.md").splitlines())}
    assert served["gpt-6-luna"] in (4, 5, 6)
    assert served["gpt-6.1-sol"] == 100 - served["gpt-6-luna"]
    assert shares(gateway, 5, headers={"x-ai-stage": "staging"}) == {"gpt-6-luna": 5}
    assert shares(gateway, 5, key="sk-gw-qa") == {"gpt-6-luna": 5}
    assert shares(gateway, 5, key="sk-gw-qa", headers={"x-ai-stage": "other"}) == {"gpt-6-luna": 5}
    eventually(lambda: tries(gateway, model="canary", outcome="ok") == served["gpt-6-luna"] + 15)
    edit(gateway, ("weight: 95", "weight: 50"), ("weight: 5}", "weight: 50}"))
    assert shares(gateway, 100)["gpt-6-luna"] == pytest.approx(50, abs=3)
    edit(gateway, ("{model: canary, weight: 50}", "{model: canary, weight: 0}"))
    assert shares(gateway, 20) == {"gpt-6.1-sol": 20}


def test_a_failing_canary_is_invisible_and_weight_0_gets_only_failovers(start: Start):
    gateway = run(start, "canary.md")
    edit(gateway, ("model: gpt-6-luna}", "model: gpt-6-luna+status=500}"))
    assert {told(gateway.chat("assistant"))[1:] for _ in range(60)} == {("openai", "gpt-6.1-sol")}
    eventually(lambda: 1 <= tries(gateway, model="canary", outcome="5xx") <= 4)
    assert told(gateway.chat("assistant", headers={"x-ai-stage": "staging"}))[2] == "gpt-6.1-sol"
    gateway.fault("openai", "status=429")
    assert told(gateway.chat("assistant")) == (3, "local", "meta-llama/Llama-3.3-70B-Instruct")


# --- sticky-sessions.md


def placed(gateway: Gateway, sessions: int = 100) -> dict[str, str]:
    """The provider that serves each session, asked twice."""
    found = {}
    for number in range(sessions):
        headers = {"x-ai-session": f"chat-{number}"}
        answers = {told(gateway.chat("assistant", headers=headers))[1] for _ in range(2)}
        assert len(answers) == 1, number
        [found[headers["x-ai-session"]]] = answers
    return found


def test_a_session_stays_and_changed_weights_move_as_few_as_possible(start: Start):
    gateway = run(start, "sticky-sessions.md")
    edit(gateway, ("label.session, ttl: 1h", "label.session, ttl: 365d"))  # so that no ttl ends in the middle
    before = placed(gateway)
    assert 15 <= Counter(before.values())["local"] <= 45
    output = shell(gateway, "sticky-sessions.md").splitlines()
    assert [line for line in output if line.startswith("x-ai-provider:")] == [f"x-ai-provider: {before['chat-42']}"] * 3
    entry = gateway.last(lambda entry: entry.get("labels") == {"session": "chat-42"})
    assert entry["provider"] == before["chat-42"]
    block = "      - {model: gpt, weight: %d}\n      - {model: llama, weight: %d}"
    edit(gateway, (block % (70, 30), block % (60, 40)))
    after = placed(gateway)
    moved = [name for name in before if before[name] != after[name]]
    assert {after[name] for name in moved} == {"local"}
    assert 1 <= len(moved) <= 25
    other = run(start, "sticky-sessions.md")
    edit(other, ("label.session, ttl: 1h", "label.session, ttl: 365d"), (block % (70, 30), block % (60, 40)))
    assert placed(other, 20) == {name: after[name] for name in list(after)[:20]}, "another process decides alike"
    added = f"{block % (60, 40)}\n      - {{model: openai/gpt-6.1-sol, weight: 10}}"
    edit(gateway, (block % (60, 40), added))
    assert {shifted for name, shifted in placed(gateway).items() if shifted != after[name]} <= {"openai"}


def test_a_session_fails_over_to_its_second_choice_and_returns(start: Start):
    gateway = run(start, "sticky-sessions.md")
    edit(gateway, ("label.session, ttl: 1h", "label.session"))
    home = placed(gateway, 10)
    gateway.fault("openai", "status=401")
    away = placed(gateway, 10)
    assert set(away.values()) == {"local"}
    gateway.reset()
    assert placed(gateway, 10) == home


def test_a_session_expires_and_a_consumer_can_be_one(start: Start):
    gateway = run(start, "sticky-sessions.md")
    assert shares(gateway, 50)["gpt-6.1-sol"] == pytest.approx(35, abs=3)
    assert len(shares(gateway, 20, "batch")) == 1
    edit(gateway, ("sticky: {by: consumer}", "sticky: {by: key}"), ("ttl: 1h", "ttl: 1ms"))
    assert len(shares(gateway, 20, "batch")) == 1
    assert len(shares(gateway, 40, headers={"x-ai-session": "chat"})) == 2
