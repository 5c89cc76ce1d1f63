"""Two targets compared over rows: a planted difference is found, equal targets are safe, few rows are too few."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from extproc.money.ledger import comparing, open_ledger
from extproc.money.ledger.comparing import CompareQuery
from extproc.money.texts import Traits
from extproc.words.tries import FailedTry
from tests.ledger.conftest import NOW, row, write

END = datetime.fromtimestamp(NOW, UTC) + timedelta(hours=1)
START = END - timedelta(days=1)


def answers(seed, count, *, broken=0.0, slower=1.0, dearer=1.0):
    """Rows of two targets; the words say how `new` differs from `old`."""
    rng = random.Random(seed)
    for number in range(count):
        new = rng.random() < 0.5
        took, cost = 1000 * rng.lognormvariate(0, 0.5), 1e6 * rng.lognormvariate(0, 0.3)
        failed = new and rng.random() < broken
        yield row(
            f"{seed}-{number}",
            time=NOW + number / 1000,
            target="old" if failed or not new else "new",
            model="assistant",
            operation="chat",
            input_tokens=rng.choice((10, 5_000, 20_000)),
            duration_ms=int(took * (slower if new and rng.random() < 0.2 else 1)),
            cost=int(cost * (dearer if new else 1)),
            labels={"agent": "triage" if number % 2 else "coder"},
            tries=[FailedTry("new", "p", 503, 10, "5xx")] if failed else (),
        )


@pytest.fixture
def compared():
    """`compared(rows)`: the comparison over rows."""
    ledgers = []

    def run(rows, **more):
        ledgers.append(ledger := open_ledger("memory:"))
        write(ledger, *rows)
        return ledger.compare(CompareQuery("old", "new", START, END, **more))

    yield run
    for ledger in ledgers:
        ledger.writer.stop()
        ledger.close()


@pytest.mark.parametrize(
    ("planted", "measure"),
    [({"broken": 0.03}, "failed"), ({"slower": 4.0}, "slow"), ({"dearer": 1.5}, "dear")],
)
def test_a_planted_difference_is_found_and_named(compared, planted, measure):
    rows = list(answers(1, 3000, **planted))
    found = compared(rows)
    assert found["state"] == "not_safe"
    examples = next(one["examples"] for one in found["classes"][0]["measures"] if one["name"] == measure)
    asked = {each.id: each.tries[0].target if each.tries else each.target for each in rows}
    assert len(examples) == comparing.MOST_EXAMPLES
    assert {asked[id] for id in examples} == {"new"}
    assert f"are {measure}" in found["sentence"]
    assert {one["name"] for one in found["classes"][0]["measures"] if one["state"] == "worse"} == {measure}


def test_equal_targets_are_never_called_unsafe(compared):
    states = [compared(answers(seed, 600))["state"] for seed in range(10)]
    assert set(states) == {"not_enough_data"}


def test_enough_answers_of_equal_targets_are_safe(compared):
    few, many = compared(answers(3, 1000)), compared(answers(3, 8000))
    assert (few["state"], few["sentence"][:15]) == ("not_enough_data", "Not enough data")
    assert few["more"] > 0
    assert (many["state"], many["more"]) == ("safe", 0)


def test_exchanges_are_sorted_into_classes(ledger, monkeypatch):
    write(ledger, *answers(4, 60), row("x", target="old", outcome="refused"), row("y", target="old", cache="hit"))
    found = ledger.compare(CompareQuery("old", "new", START, END, "agent"))
    sizes = {each["name"]: each["a"]["exchanges"] + each["b"]["exchanges"] for each in found["classes"]}
    assert sizes.pop("all requests") == sizes.pop("operation chat") == 60
    assert (sizes.pop("agent triage"), sizes.pop("agent coder")) == (30, 30)
    assert (len(sizes), sum(sizes.values())) == (3, 60)
    only = ledger.compare(CompareQuery("old", "new", START, END, filters={"model": ["another"]}))
    assert [each["a"]["exchanges"] for each in only["classes"]] == [0]
    monkeypatch.setattr(comparing, "MOST_ROWS", 10)
    monkeypatch.setattr(comparing, "MOST_CLASSES", 2)
    few = ledger.compare(CompareQuery("old", "new", START, END, "agent"))
    assert len(few["classes"]) == 3


def test_a_failure_counts_for_the_target_that_was_asked_first(ledger):
    write(
        ledger,
        row("repaired", target="old", tries=[FailedTry("new", "p", 503, 1, "5xx")]),
        row("left", target="new", outcome="error", error="client_left"),
        row("cut", target="new", complete=False),
    )
    [whole, *_] = ledger.compare(CompareQuery("old", "new", START, END))["classes"]
    measures = {one["name"]: (one["bad_b"], one["of_b"]) for one in whole["measures"]}
    assert (whole["a"]["exchanges"], measures["failed"], measures["cut off"]) == (0, (1, 2), (1, 2))


# --- pairs


def answered(rng, *, refuses=0.0, malformed=0.0, drops=0.0, other=0.0, tail=1.0):
    """Facts of an answer; the words say how often a model refuses, breaks its JSON, and so on."""
    call = () if rng.random() < drops else ("look_up 1" if rng.random() >= other else "look_up 2",)
    return {
        "traits": Traits(rng.random() < refuses, rng.random() < malformed, call),
        "duration_ms": int(1000 * rng.lognormvariate(0, 0.3) * (tail if rng.random() < 0.2 else 1)),
    }


def pairs(seed, count, **planted):
    """Rows of a virtual model and of its shadow."""
    rng = random.Random(seed)
    for number in range(count):
        common = {"operation": "chat", "model": "assistant", "input_tokens": 10, "cost": 1_000_000}
        labels = {"agent": "triage" if number % 2 else "coder"}
        at = NOW + number / 1000
        yield row(f"a{number}", time=at, target="old", labels=labels, **answered(rng), **common)
        labels = {"shadow": "assistant", "shadow-of": f"a{number}"}
        yield row(f"b{number}", time=at, target="new", labels=labels, **answered(rng, **planted), **common)


@pytest.mark.parametrize(
    ("planted", "measure"),
    [
        ({"refuses": 0.02}, "refused"),
        ({"malformed": 0.02}, "malformed"),
        ({"drops": 0.02}, "without a call"),
        ({"tail": 4.0}, "slow"),
    ],
)
def test_a_planted_difference_of_answers_is_found_in_pairs(compared, planted, measure):
    found = compared(pairs(1, 1200, **planted), pairs=("shadow", "assistant"), label="agent")
    assert (found["state"], f"are {measure}" in found["sentence"]) == ("not_safe", True)
    whole = {one["name"]: one for one in found["classes"][0]["measures"]}
    assert {name for name, one in whole.items() if one["state"] == "worse"} == {measure}
    assert sum(whole["failed"]["pairs"].values()) == 1200
    assert all(id.startswith("b") for id in whole[measure]["examples"])
    names = {each["name"]: each["a"]["exchanges"] for each in found["classes"]}
    assert (names["with tools"], names["agent triage"], names["agent coder"]) == (1200, 600, 600)


def test_equal_answers_in_pairs_are_safe_and_their_calls_are_counted(compared):
    found = compared(pairs(2, 4000, other=0.25), pairs=("shadow", "assistant"))
    assert found["state"] == "safe"
    calls = found["classes"][0]["calls"]
    assert (calls["with_tools"], calls["same_tools"], 2900 < calls["same_calls"] < 3100) == (4000, 4000, True)


def test_arms_that_are_split_by_chance_are_compared_by_their_traits_too(compared):
    rng = random.Random(3)
    rows = [
        row(f"{number}", time=NOW + number / 1000, target=target, **answered(rng, refuses=0.08 * (target == "new")))
        for number, target in enumerate(rng.choices(("old", "new"), k=2000))
    ]
    found = compared(rows)
    assert (found["state"], "are refused" in found["sentence"]) == ("not_safe", True)


def test_a_pair_without_one_of_its_answers_does_not_count(ledger, monkeypatch):
    monkeypatch.setattr(comparing, "_BATCH", 2)
    common = {"labels": {"replay": "r", "replay-of": "a"}}
    write(
        ledger,
        *(row(id) for id in "abcde"),
        row("1", labels={"replay": "r", "replay-of": "a"}, time=NOW + 1, outcome="error"),
        row("2", labels={"replay": "r", "replay-of": "a"}, time=NOW + 2),  # the one that failed was sent again
        *(row(f"x{id}", labels={"replay": "r", "replay-of": id}) for id in "bcd"),
        row("3", labels={"replay": "r", "replay-of": "gone"}),
        row("4", labels={"replay": "r", "replay-of": "e"}, outcome="refused"),
        row("5", labels={"replay": "another", "replay-of": "e"}),
        row("6", **common, cache="hit"),
    )
    query = CompareQuery("first", "second", START, END, pairs=("replay", "r"))
    [whole, *_] = ledger.compare(query)["classes"]
    measures = {one["name"]: one["pairs"] for one in whole["measures"]}
    assert measures["failed"] == {"only_a": 0, "only_b": 0, "alike": 4}
    assert set(measures) == {"failed", "cut off", "slow", "dear"}  # no answer has traits
