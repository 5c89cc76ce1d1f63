"""Events of the audit trail: in ECS, about what happened, bounded, and without a word of a request."""

import json

import pytest

from extproc.operate.telemetry import audit
from tests.talk import QUESTION, answers, asks, sends, streams, talk

# https://www.elastic.co/docs/reference/ecs/ecs-category-field-values-reference
KINDS = {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}
TYPES = {
    "api": {"access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info", "start", "user"},
    "authentication": {"start", "end", "info"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "database": {"access", "change", "info", "error", "deletion"},
    "iam": {"admin", "change", "creation", "deletion", "group", "info", "user"},
    "intrusion_detection": {"allowed", "denied", "info", "error"},
    "process": {"access", "change", "end", "info", "start", "error"},
}
YAML = """
guardrails:
  - {name: words, kind: regex, action: block, patterns: {canary: CANARY}}
  - {name: seen, kind: regex, action: audit, patterns: {hello: Hello}}
budgets: [{name: two, unit: requests, limit: 2, window: day}]
"""


def check(events):
    """The fields of events, which are in the schema."""
    for event in events:
        about = event.fields["event"]
        assert about["kind"] in KINDS
        [category] = about["category"]
        assert set(about["type"]) <= TYPES[category], about
        assert about["outcome"] in {"success", "failure", "unknown"}
        assert about["id"] == event.id
    return [event.fields for event in events]


async def say(gateway, text="Hello"):
    body = QUESTION | {"messages": [{"role": "user", "content": text}]}
    await talk(gateway.stream(), asks(), sends(body), answers(), streams({"choices": []}, end=True))


async def refused(gateway, text="Hello"):
    body = QUESTION | {"messages": [{"role": "user", "content": text}]}
    await talk(gateway.stream(), asks(content_length="99"), sends(body))


async def test_refusals_and_verdicts_are_events_and_usual_requests_are_none(world):
    gateway = world(YAML)
    await say(gateway, "nothing")
    assert gateway.audit_events.take() == []
    await refused(gateway, "CANARY")
    await say(gateway, "Hello")
    for _ in range(3):
        await refused(gateway, "nothing")
    found = check(gateway.audit_events.take())
    seen = [
        (one["event"]["action"], one.get("rule", {}).get("name"), one["event"]["type"], one["extproc"].get("count"))
        for one in found
    ]
    assert seen == [
        ("guardrail", "words", ["denied"], None),
        ("guardrail", "seen", ["info"], None),
        ("refusal", None, ["access", "denied"], 1),
        ("refusal", None, ["access", "denied"], 3),
    ]
    assert [one["extproc"]["code"] for one in found[2:]] == ["guardrail_blocked", "budget_exceeded"]
    assert found[3]["extproc"]["budget"] == "two"
    assert found[0]["extproc"]["findings"] == {"canary": 1}
    assert found[0]["http"]["response"]["status_code"] == 400
    assert "CANARY" not in json.dumps(found)
    assert gateway.audit_events.take() == []


async def test_events_are_bounded_and_a_loss_is_told(world, monkeypatch):
    monkeypatch.setattr(audit, "MOST_WAITING", 3)
    monkeypatch.setattr(audit, "MOST_REFUSALS", 1)
    gateway = world(YAML)
    for _ in range(2):
        await say(gateway)
    for text in ("CANARY", "nothing", "nothing"):
        await refused(gateway, text)
    events = gateway.audit_events.take()
    assert [(one["extproc"]["code"], one["extproc"]["count"]) for one in check(events) if "code" in one["extproc"]] == [
        ("guardrail_blocked", 1),
        ("other", 2),
    ]
    gateway.audit_events.put_back(events)
    *kept, loss = check(gateway.audit_events.take())
    assert kept == [event.fields for event in events[:3]]
    assert loss["extproc"] == {"lost": 2}


@pytest.mark.parametrize("action", [*audit._VERBS, "anything_else"])
def test_acts_of_operators_are_in_the_schema(action):
    [found] = check([audit.act("zoe", "admin", action, {"consumer": "ada"}, 1_795_000_000.0)])
    assert found["user"] == {"name": "zoe", "roles": ["admin"]}
    assert found["@timestamp"] == "2026-11-18T11:06:40.000Z"
    assert check([audit.settings("refused", "line 3", 0.0)])[0]["event"]["outcome"] == "failure"
