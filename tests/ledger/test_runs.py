"""Runs of agents in the ledger: sums by consumer, calls, problems; in every database."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from extproc.money.ledger import runs as module
from tests.ledger.conftest import NOW, row, write

SERVED = {"operation": "chat", "model": "m", "target": "m", "provider": "a", "provider_model": "m-1"}
CALLED = {"operation": "tools/call", "model": "gh_add", "target": "dev", "provider": "github", "provider_model": "add"}
SINCE = datetime.fromtimestamp(NOW, UTC) - timedelta(hours=1)


@pytest.fixture
def filled(ledger):
    tokens = {"input_tokens": 100, "cached_tokens": 40, "output_tokens": 10, "cost": 1 << 33}
    write(
        ledger,
        *(row(f"s{number}", run="r", consumer="alice", team="red", **SERVED, **tokens) for number in range(3)),
        row("t", time=NOW + 60, run="r", consumer="alice", team="red", **CALLED),
        row("f", run="r", consumer="alice", error="run_looping", outcome="refused", status=429, operation="chat"),
        row("b", run="r", consumer="bob", **SERVED, **{**tokens, "cost": None}),
        row("o", time=NOW - 7200, run="old", consumer="alice", **SERVED),
        row("n", consumer="alice", **SERVED),
    )
    return ledger


def test_a_run_is_one_record_for_each_consumer(filled):
    mine, others = filled.run("r")
    assert (mine["id"], mine["consumer"], mine["team"]) == ("r", "alice", "red")
    assert (mine["requests"], mine["refused"], mine["input_tokens"], mine["cache_share"]) == (5, 1, 300, 0.4)
    assert mine["cost_usd"] == "25.769803776"
    assert datetime.fromisoformat(mine["latest"]) - datetime.fromisoformat(mine["start"]) == timedelta(minutes=1)
    calls = {(one["operation"], one["model"], one["provider"]): one["requests"] for one in mine["calls"]}
    assert calls == {("chat", "m", "a"): 3, ("tools/call", "gh_add", "github"): 1, ("chat", "", ""): 1}
    assert [(one["error"], one["outcome"], one["requests"]) for one in mine["problems"]] == [
        ("run_looping", "refused", 1)
    ]
    assert (others["consumer"], others["unpriced"]) == ("bob", 1)
    assert [one["consumer"] for one in filled.run("r", "bob")] == ["bob"]
    assert filled.run("none") == []


def test_the_latest_runs_are_listed(filled, monkeypatch):
    assert [(one["id"], one["consumer"], one["requests"]) for one in filled.runs(SINCE)] == [
        ("r", "alice", 5),
        ("r", "bob", 1),
    ]
    assert [one["id"] for one in filled.runs(SINCE - timedelta(hours=2), "alice")] == ["r", "old"]
    monkeypatch.setattr(module, "MOST_RUNS", 1)
    monkeypatch.setattr(module, "MOST_CALLS", 2)
    assert len(filled.runs(SINCE)) == 1
    assert len(filled.run("r")[0]["calls"]) == 2


def test_a_consumer_who_is_forgotten_leaves_no_run(filled):
    filled.forget("alice")
    assert [one["consumer"] for one in filled.run("r")] == ["bob"]


@pytest.mark.parametrize("consumer", [None, "alice"])
@pytest.mark.parametrize("names", [2, 40])
@pytest.mark.parametrize("look", [1, 20, 400])
def test_however_the_latest_runs_are_found_they_are_the_same(ledger, monkeypatch, consumer, names, look):
    rng = random.Random(f"{names} {look}")
    rows = [
        row(
            f"{number}",
            time=NOW + number,
            run=rng.choice(["", *(f"run-{rng.randrange(names)}" for _ in range(5))]),
            consumer=rng.choice(("alice", "bob")),
        )
        for number in range(200)
    ]
    write(ledger, *rows)
    since = datetime.fromtimestamp(NOW + 50, UTC)
    wanted = {}
    for each in rows:
        if each.run and each.time >= NOW + 50 and consumer in (None, each.consumer):
            wanted.setdefault((each.run, each.consumer), []).append(each.time)
    latest = sorted(wanted, key=lambda run: max(wanted[run]), reverse=True)[:10]
    monkeypatch.setattr(module, "MOST_RUNS", 10)
    monkeypatch.setattr(module, "LOOK", look)
    found = [(one["id"], one["consumer"], one["requests"]) for one in ledger.runs(since, consumer)]
    assert found == [(*run, len(wanted[run])) for run in latest]
