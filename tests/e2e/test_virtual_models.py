"""Virtual models through Envoy: the order of targets, the request each target gets, and the effect of earlier tries."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Gateway, eventually, run_gateway

# Every test has models of its own, `a/<test>` and `b/<test>`, so that notes on one do not affect another.
HEAD = """
providers:
  a: {kind: mock, base_url: "{mock_a}", outlier_detection: {consecutive_5xx: 10000}}
  b: {kind: mock, base_url: "{mock_b}", outlier_detection: {consecutive_5xx: 10000}}
  c: {kind: mock, base_url: "{mock_c}", outlier_detection: {consecutive_5xx: 10000}}
"""
SETTINGS = (
    HEAD
    + """
  plain: {kind: mock, base_url: "{mock_c}"}
models:
  "a/*": {provider: a}
  "b/*": {provider: b}
  "c/*": {provider: c}
  short-name: {provider: plain, model: made/by-c-2026}
  dear: {provider: a, price: {input: 10, output: 10}}
  long-prompts: {provider: b, price: {input: 1, output: 20}}
  long-answers: {provider: c, price: {input: 2, output: 4}}
  unpriced: {provider: a}
  text-only: {provider: a, supports: [], context: 100}
  able: {provider: b, supports: [tools, images, json_schema], context: 100000}
virtual_models:
  split: {strategy: weighted, targets: [{model: a/split, weight: 70}, {model: b/split, weight: 30},
                                        {model: c/split, weight: 0}]}
  sessions: {strategy: weighted, sticky: {by: label.session}, targets: [{model: a/sessions}, {model: b/sessions}]}
  keys: {strategy: weighted, sticky: {by: key}, targets: [{model: a/keys}, {model: b/keys}]}
  halves: {strategy: weighted, targets: [{model: a/halves}, {model: b/halves}]}
  halves-first: {targets: [{model: halves}, {model: c/halves}]}
  staged: {targets: [{model: a/staged, match: {label.environment: staging}}, {model: b/staged}]}
  tuned:
    targets:
      - model: a/tuned
        override: {temperature: 0.1, user: gateway}
        default: {top_p: 0.5, presence_penalty: 1}
        remove: [seed, metadata]
      - {model: b/tuned, default: {top_p: 0.9}, override: {max_tokens: 7}, remove: [user]}
      - {model: c/tuned}
  inner:
    targets:
      - {model: a/nested, default: {temperature: 0.3}, override: {top_p: 0.2}}
      - {model: b/nested, override: {user: inner}}
  outer:
    targets: [{model: inner, override: {user: outer, top_p: 0.6}, remove: [seed]}, {model: c/nested}]
  patient: {targets: [{model: a/patient, tries: 2}, {model: b/patient}], retry: {back_off: 1s}}
  cool: {targets: [{model: a/cool}, {model: b/cool}]}
  hot: {targets: [{model: a/hot}, {model: b/hot}]}
  priced: {strategy: cost, targets: [{model: unpriced}, {model: dear}, {model: long-prompts}, {model: long-answers}]}
  fastest: {strategy: latency, targets: [{model: a/fastest}, {model: b/fastest}]}
  sized: {strategy: complexity, targets: [{model: a/weak}, {model: b/strong}]}
  capable: {targets: [{model: text-only}, {model: able}]}
  incapable: {targets: [{model: text-only}, {model: able, match: {consumer: nobody}}]}
  referring: {targets: [{model: plain/made/by-c-2026}]}
  counted: {targets: [{model: a/counted}, {model: b/counted}]}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: many, keys: [{env: KEY_0}, {env: KEY_1}, {env: KEY_2}, {env: KEY_3}, {env: KEY_4}, {env: KEY_5}]}
stores: {counters: "memory:"}
"""
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = {f"KEY_{number}": f"sk-gw-many-{number}" for number in range(6)}
    yield from run_gateway(tmp_path_factory.mktemp("virtual"), SETTINGS, ("a", "b", "c"), keys)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def served(answer: httpx.Response) -> tuple[str, int]:
    """Provider and number of tries."""
    assert answer.status_code == 200, answer.text
    return answer.headers["x-ai-provider"], int(answer.headers["x-ai-attempts"])


def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def session(name: str) -> dict[str, str]:
    return {"x-ai-session": name}


def body(gateway: Gateway, provider: str) -> dict[str, Any]:
    """The only body that a provider saw, without the fields that every request has."""
    (seen,) = gateway.seen(provider)
    return {name: value for name, value in seen["body"].items() if name not in ("model", "messages")}


# --- weights and sessions


def test_requests_split_by_weight_and_weight_0_serves_only_failovers(gateway: Gateway):
    count = Counter(served(gateway.chat("split"))[0] for _ in range(400))
    assert set(count) == {"a", "b"}
    assert abs(count["a"] / 400 - 0.7) <= 0.03
    for name in "ab":
        gateway.fault(name, "status=500")
    assert served(gateway.chat("split")) == ("c", 3)


def test_a_split_may_be_the_first_part_of_a_chain(gateway: Gateway):
    assert Counter(served(gateway.chat("halves-first")) for _ in range(20)).keys() == {("a", 1), ("b", 1)}
    gateway.fault("a", "status=500")
    assert Counter(served(gateway.chat("halves-first")) for _ in range(20)).keys() == {("b", 1), ("b", 2)}
    gateway.fault("b", "status=500")
    assert served(gateway.chat("halves-first")) == ("c", 3)


def test_a_session_stays_at_its_target_and_returns_there(gateway: Gateway):
    names = [f"session-{number}" for number in range(30)]
    first = {name: served(gateway.chat("sessions", headers=session(name))) for name in names}
    assert set(first.values()) == {("a", 1), ("b", 1)}
    for _ in range(2):
        assert {name: served(gateway.chat("sessions", headers=session(name))) for name in names} == first
    gateway.fault("a", "status=500")
    during = {name: served(gateway.chat("sessions", headers=session(name))) for name in names}
    assert during == {name: ("b", 2 if first[name][0] == "a" else 1) for name in names}
    gateway.fault("a", "words=3")
    assert {name: served(gateway.chat("sessions", headers=session(name))) for name in names} == first
    without = Counter(served(gateway.chat("sessions"))[0] for _ in range(20))
    assert min(without["a"], without["b"]) >= 8


def test_a_key_stays_at_its_target(gateway: Gateway):
    keys = [f"sk-gw-many-{number}" for number in range(6)]
    rounds = [[served(gateway.chat("keys", key=key)) for key in keys] for _ in range(4)]
    assert rounds == [rounds[0]] * 4
    assert set(rounds[0]) == {("a", 1), ("b", 1)}


def test_a_target_with_a_match_serves_only_matching_requests(gateway: Gateway):
    for headers, wanted in (
        ({"x-ai-environment": "staging"}, "a"),
        ({"x-ai-environment": "production"}, "b"),
        ({}, "b"),
    ):
        answer = gateway.chat("staged", headers=headers)
        assert served(answer) == (wanted, 1)
        skipped = gateway.exchange_of(answer).get("skipped")
        assert skipped == (None if wanted == "a" else {"a/staged": "no_match"})
    gateway.fault("a", "status=503")
    assert served(gateway.chat("staged", headers={"x-ai-environment": "staging"})) == ("b", 2)


# --- the request each target gets

ASKED = {"temperature": 0.9, "seed": 5, "metadata": {"case": "1"}, "n": 1}
AT_A = {"temperature": 0.1, "user": "gateway", "top_p": 0.5, "presence_penalty": 1, "n": 1}
AT_B = {**ASKED, "top_p": 0.9, "max_completion_tokens": 7}  # the name in the client's API


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("padding", [0, 20_000])
def test_each_try_starts_from_the_clients_request_with_the_changes_of_its_target(
    gateway: Gateway, stream: bool, padding: int
):
    """With `padding`, the removed fields are too long for the header that tells how to restore them."""
    asked = {**ASKED, "metadata": {"case": "1" + "x" * padding}, "stream": stream}
    more = {"stream": stream} | ({"stream_options": {"include_usage": True}} if stream else {})
    assert served(gateway.chat("tuned", **asked)) == ("a", 1)
    assert body(gateway, "a") == AT_A | more
    gateway.reset()
    for name in "ab":
        gateway.fault(name, "status=503")
    assert served(gateway.chat("tuned", **asked)) == ("c", 3)
    assert body(gateway, "a") == AT_A | more
    assert body(gateway, "b") == {**AT_B, "metadata": asked["metadata"]} | more
    assert body(gateway, "c") == asked | more


def test_the_clients_values_win_over_defaults_and_lose_to_overrides(gateway: Gateway):
    gateway.fault("a", "status=503")
    answer = gateway.chat("tuned", top_p=0.4, max_tokens=3, user="client")
    assert served(answer) == ("b", 2)
    assert body(gateway, "a") == {"temperature": 0.1, "user": "gateway", "top_p": 0.4, "presence_penalty": 1,
                                  "max_tokens": 3}  # fmt: skip
    assert body(gateway, "b") == {"top_p": 0.4, "max_tokens": 7}


def test_nested_virtual_models_change_from_the_outside_in_and_fail_over_through_both_levels(gateway: Gateway):
    asked = {"seed": 1, "temperature": 0.8}
    assert served(gateway.chat("outer", seed=1)) == ("a", 1)
    assert body(gateway, "a") == {"user": "outer", "top_p": 0.2, "temperature": 0.3}
    gateway.reset()
    for name in "ab":
        gateway.fault(name, "status=503")
    answer = gateway.chat("outer", **asked)
    assert served(answer) == ("c", 3)
    assert body(gateway, "a") == {"user": "outer", "top_p": 0.2, "temperature": 0.8}
    assert body(gateway, "b") == {"user": "inner", "top_p": 0.6, "temperature": 0.8}
    assert body(gateway, "c") == asked
    assert [gateway.seen(name)[0]["body"]["model"] for name in "abc"] == ["nested"] * 3
    entry = gateway.exchange_of(answer)
    assert (entry["model"], entry["provider_model"]) == ("outer", "nested")


def test_a_model_may_be_named_by_provider_and_id(gateway: Gateway):
    for name in ("referring", "plain/made/by-c-2026", "short-name"):
        answer = gateway.chat(name)
        assert served(answer) == ("plain", 1)
        assert answer.headers["x-ai-model"] == "made/by-c-2026"


# --- tries in a row


def test_only_tries_in_a_row_wait_for_the_back_off(gateway: Gateway):
    def took(wanted: tuple[str, int]) -> float:
        start = time.monotonic()
        assert served(gateway.chat("patient")) == wanted
        return time.monotonic() - start

    assert min(took(("a", 1)) for _ in range(3)) < 0.5  # less than the shortest back-off
    gateway.fault("a", "status=503+first=1")
    assert took(("a", 2)) >= 0.5
    gateway.reset()
    gateway.fault("a", "status=503")
    assert took(("b", 3)) >= 0.5
    assert [len(gateway.seen(name)) for name in "ab"] == [2, 1]


# --- what tries teach


def test_a_target_that_asked_for_a_pause_gets_it(gateway: Gateway):
    gateway.fault("a", "status=429+retry_after=3")
    start = time.monotonic()
    assert served(gateway.chat("cool")) == ("b", 2)
    answer = eventually(lambda: (found := gateway.chat("cool")).headers["x-ai-attempts"] == "1" and found)
    assert served(answer) == ("b", 1)
    assert gateway.exchange_of(answer)["skipped"] == {"a/cool": "cooling_down"}
    asked = len(gateway.seen("a"))
    assert served(gateway.chat("cool", stream=True)) == ("b", 1)
    assert len(gateway.seen("a")) == asked
    gateway.fault("a", "words=3")
    eventually(lambda: served(gateway.chat("cool")) == ("a", 1))
    assert time.monotonic() - start >= 3


def test_another_model_of_the_same_provider_gets_no_pause(gateway: Gateway):
    gateway.fault("a", "status=503+retry_after=60+first=1")
    assert gateway.chat("a/limited").status_code == 503
    eventually(lambda: gateway.metric("extproc_tries_total", provider="a", model="a/limited") == 1)
    assert served(gateway.chat("a/limited")) == ("a", 1)  # the only target is asked all the same
    assert served(gateway.chat("split"))[1] == 1


def test_targets_that_all_cool_down_are_asked(gateway: Gateway):
    gateway.fault("a", "status=429+retry_after=60")
    eventually(lambda: served(gateway.chat("hot")) == ("b", 1))
    gateway.fault("b", "status=429+retry_after=60")
    eventually(lambda: gateway.chat("hot").headers["x-ai-attempts"] == "2")
    gateway.reset()
    answer = gateway.chat("hot")
    assert served(answer) == ("a", 1)
    assert "skipped" not in gateway.exchange_of(answer)


def test_the_faster_target_is_preferred_until_it_slows_down(gateway: Gateway):
    def last_of_fifty() -> Counter[str]:
        providers = []
        for _ in range(50):
            providers.append(served(gateway.chat("fastest"))[0])
            time.sleep(0.03)  # the fate of a try arrives a tenth of a second later
        return Counter(providers[-10:])

    gateway.fault("a", "delay=150ms")
    assert last_of_fifty()["b"] >= 7  # one request in 32 explores the other target
    gateway.fault("a", "words=3")
    gateway.fault("b", "delay=400ms")
    assert last_of_fifty()["a"] >= 7


# --- cost and difficulty of a request


def test_the_cheapest_target_for_the_request_comes_first(gateway: Gateway):
    assert served(gateway.chat("priced", "word " * 2000, max_tokens=1)) == ("b", 1)
    assert served(gateway.chat("priced", max_tokens=500)) == ("c", 1)
    gateway.fault("c", "status=500")
    answer = gateway.chat("priced", max_tokens=500)
    assert (served(answer), answer.headers["x-ai-model"]) == (("a", 2), "dear")
    for name in "abc":
        gateway.fault(name, "status=500")
    assert gateway.chat("priced").status_code == 500
    assert gateway.seen("a")[-1]["body"]["model"] != "unpriced"  # its place is the fourth, and there are three tries


def test_simple_requests_go_to_the_weak_target_and_hard_ones_to_the_strong_target(gateway: Gateway):
    simple = "Translate 'good morning' into French. Answer with one word."
    hard = """Our payment service deadlocks under load. Analyse the race below, prove which locks can be held at once,
design a migration to optimistic concurrency that must never lose a write, compare two alternatives with their
trade-offs, and explain why each step is safe when a replica fails.

Traceback (most recent call last):
  File "pay.py", line 210, in settle
DeadlockError: lock order inversion
"""
    assert served(gateway.chat("sized", simple, max_tokens=5)) == ("a", 1)
    assert served(gateway.chat("sized", hard, reasoning_effort="high")) == ("b", 1)
    gateway.fault("b", "status=500")
    assert served(gateway.chat("sized", hard, reasoning_effort="high")) == ("a", 2)


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"tools": [TOOL]}, "ability", "tools"),
        ({"response_format": SCHEMA}, "ability", "response_format"),
        ({"text": IMAGE}, "ability", "messages"),
        ({"text": "word " * 200}, "context", "model"),
    ],
    ids=["tools", "json_schema", "images", "context"],
)
def test_targets_that_cannot_serve_a_request_are_skipped(
    gateway: Gateway, fields: dict[str, Any], reason: str, param: str
):
    before = gateway.metric("extproc_targets_skipped_total", reason=reason)
    assert served(gateway.chat("capable")) == ("a", 1)
    answer = gateway.chat("capable", **fields)
    assert served(answer) == ("b", 1)
    assert gateway.exchange_of(answer)["skipped"] == {"text-only": reason}
    sent = gateway.calls()
    for name in ("text-only", "incapable"):
        assert refused(gateway.chat(name, **fields)) == (400, "unsupported_by_targets", param)
    assert gateway.calls() == sent
    assert gateway.metric("extproc_targets_skipped_total", reason=reason) == before + 3


# --- metrics


def test_tries_failovers_lost_time_and_skips_are_counted(gateway: Gateway):
    def counts() -> list[float]:
        return [
            gateway.metric("extproc_tries_total", provider="a", model="a/counted", outcome="429"),
            gateway.metric("extproc_tries_total", provider="b", model="b/counted", outcome="ok"),
            gateway.metric("extproc_failovers_total", provider="b"),
            gateway.metric("extproc_targets_skipped_total", reason="cooling_down"),
        ]

    before, lost = counts(), gateway.metric("extproc_failed_tries_seconds_total", provider="a", outcome="429")
    gateway.fault("a", "delay=200ms+status=429+retry_after=60")
    assert served(gateway.chat("counted")) == ("b", 2)
    eventually(lambda: counts()[0] == before[0] + 1)
    assert served(gateway.chat("counted")) == ("b", 1)
    eventually(lambda: [now - then for now, then in zip(counts(), before, strict=True)] == [1, 2, 1, 1])
    lost = gateway.metric("extproc_failed_tries_seconds_total", provider="a", outcome="429") - lost
    assert lost >= 0.2


# --- kill switches

SWITCHES = """
providers:
  a: {kind: mock, base_url: "{mock_a}", disabled: false}  # provider
  b: {kind: mock, base_url: "{mock_b}"}
models:
  model-a: {provider: a, disabled: false}  # model
  model-b: {provider: b}
virtual_models:
  either: {targets: [{model: model-a, disabled: false}, {model: model-b}]}  # target
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: other, keys: [{env: OTHER_KEY}], disabled: false}  # consumer
stores: {counters: "memory:"}
"""


def test_kill_switches_take_effect_while_the_gateway_runs(start: Callable[..., Gateway]):
    gateway = start(SWITCHES, mocks=("a", "b"), env={"OTHER_KEY": "sk-gw-other"})
    original = gateway.file.read_text()

    def switch(what: str) -> None:
        taken = gateway.metric("extproc_reloads_total", outcome="taken")
        lines = original.splitlines()
        text = "\n".join(line.replace("false", "true") if line.endswith(f"# {what}") else line for line in lines)
        assert (text + "\n" == original) == (not what)
        gateway.file.write_text(text + "\n")
        eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") == taken + 1)

    with contextlib.ExitStack() as running:
        gateway.fault("a", "words=200+pace=50ms")
        stream = running.enter_context(gateway.stream("either"))
        pieces = stream.iter_raw()
        next(pieces)
        gateway.fault("a", "words=3")
        for what in ("provider", "model", "target"):
            assert served(gateway.chat("either")) == ("a", 1)
            switch(what)
            answer = gateway.chat("either")
            assert served(answer) == ("b", 1)
            assert gateway.exchange_of(answer)["skipped"] == {"model-a": "disabled"}
            if what == "target":
                assert served(gateway.chat("model-a")) == ("a", 1)
            else:
                assert refused(gateway.chat("model-a"))[:2] == (503, "no_provider_available")
            switch("")
        next(pieces)  # requests under way continue
    assert gateway.chat("either", key="sk-gw-other").status_code == 200
    switch("consumer")
    assert refused(gateway.chat("either", key="sk-gw-other"))[:2] == (401, "invalid_key")
    assert served(gateway.chat("either")) == ("a", 1)
    switch("")
    assert gateway.chat("either", key="sk-gw-other").status_code == 200
    assert gateway.process.poll() is None


# --- several processors


def test_processors_that_share_a_store_share_notes_on_tries(start: Callable[..., Gateway], tmp_path):
    store = f"sqlite:{tmp_path}/counters.db"
    settings = """
providers:
  a: {kind: %s, base_url: "%s"}
  b: {kind: %s, base_url: "%s"}
models: {model-a: {provider: a}, model-b: {provider: b}}
virtual_models: {either: {targets: [{model: model-a}, {model: model-b}]}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
stores: {counters: "%s"}
"""
    one = start(settings % ("mock", "{mock_a}", "mock", "{mock_b}", store), mocks=("a", "b"))
    urls = [one.mocks[name] + "/v1" for name in "ab"]
    two = start(settings % ("openai", urls[0], "openai", urls[1], store), mocks=())
    assert served(two.chat("either")) == ("a", 1)
    one.fault("a", "status=429+retry_after=60+first=1")
    assert served(one.chat("either")) == ("b", 2)
    eventually(
        lambda: served(two.chat("either")) == ("b", 1)
    )  # a would answer, but this processor was not told to pause it
    answer = two.chat("either")
    assert served(answer) == ("b", 1)
    assert two.exchange_of(answer)["skipped"] == {"model-a": "cooling_down"}
