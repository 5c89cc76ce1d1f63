"""The notes that a configuration takes on its tries. test_gateway.py covers the stages together."""

import re
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from extproc.exchange.pipeline import InTurns, Pipeline
from extproc.words.tries import OUTCOMES, Try
from tests.turns import turns_during

TEXT = """
providers:
  a: {kind: mock, cool_down: {default: 2s, longest: 60s}}
  b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1', cool_down: {default: 0s}}
models:
  m: {provider: a}
  n: {provider: b, model: vendor/n}
  "a/*": {provider: a}
virtual_models:
  v: {targets: [{model: m}, {model: n}]}
"""

EVERYTHING = (
    TEXT
    + """
brake: {repeats: 3}
budgets: [{name: b, unit: usd, limit: 1, window: day, on_exceed: ask}]
guardrails: [{name: g, kind: secrets, on: [input, output]}]
cache: {rules: [{ttl: 1m}]}
"""
)
ARCHITECTURE = re.findall(r"\w+", (Path(__file__).parents[1] / "docs/architecture.md").read_text())


@pytest.fixture
def gateway(world):
    return world(TEXT)


def tried(model="m", provider="a", *, status=200, outcome=None, retry_after="", seconds=1.0, first_byte=0.5, **more):
    outcome = outcome or ("ok" if status < 400 else "429" if status == 429 else "5xx")
    return Try("id", provider, model, 1, status, outcome, seconds, first_byte, retry_after, **more)


def learn(gateway, *tries):
    for one in tries:
        gateway.pipeline.learn(one)


def cooling(gateway, place="a/m"):
    return gateway.pipeline.services.history.cooling(place)


# --- cool-downs


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        (429, "30", 30),
        (429, "1.5", 1.5),
        (429, "0", 0),
        (429, "3600", 60),  # no longer than the settings allow
        (429, "", 2),
        (429, "soon", 2),
        (503, "30", 30),
        (529, "30", 30),
        (503, "", 0),
        (529, "", 0),
        (503, "soon", 0),
        (200, "30", 0),
        (400, "30", 0),
        (500, "30", 0),
    ],
)
def test_a_deployment_that_asked_for_a_pause_cools_down(gateway, status, retry_after, seconds):
    learn(gateway, tried(status=status, retry_after=retry_after))
    assert cooling(gateway) == pytest.approx(seconds)


def test_a_pause_may_be_given_as_a_date(gateway):
    learn(gateway, tried(status=429, retry_after=formatdate(time.time() + 20, usegmt=True)))
    assert 15 < cooling(gateway) <= 20


@pytest.mark.parametrize(("retry_after", "seconds"), [("", 0), ("30", 30), ("3600", 300)])
def test_each_provider_has_its_own_limits_of_pauses(gateway, retry_after, seconds):
    learn(gateway, tried("n", "b", status=429, retry_after=retry_after))
    assert cooling(gateway, "b/vendor/n") == pytest.approx(seconds)
    assert cooling(gateway) == 0


def test_a_pause_of_one_model_does_not_affect_another(gateway):
    learn(gateway, tried("a/x", status=429, retry_after="30"))
    assert (cooling(gateway, "a/x"), cooling(gateway)) == (pytest.approx(30), 0)


@pytest.mark.parametrize(("model", "provider"), [("m", "b"), ("m", "gone"), ("gone", "a"), ("", "a"), ("v", "a")])
def test_a_try_under_earlier_settings_teaches_nothing(gateway, model, provider):
    learn(gateway, tried(model, provider, status=429, retry_after="30"))
    assert gateway.pipeline.services.history.deployments() == {}


# --- speeds


def test_tries_teach_the_latency_of_their_deployment(gateway):
    learn(gateway, tried("n", "b", first_byte=0.25, request_bytes=100))
    assert gateway.pipeline.services.history.expected("b/vendor/n", 100, streamed=False) == pytest.approx(0.25)
    assert gateway.pipeline.services.history.expected("b/vendor/n", 100, streamed=True) is None


def test_streams_teach_their_writing_speed(gateway):
    learn(gateway, tried(seconds=2.5, first_byte=0.5, answer_bytes=20_000, streamed=True))
    assert gateway.pipeline.services.history.expected("a/m", 0, streamed=True) == pytest.approx(2.5)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_is_counted_and_recorded(gateway, outcome):
    learn(gateway, tried(outcome=outcome, first_byte=None))
    assert gateway.metric("extproc_tries_total", provider="a", model="m", outcome=outcome) == 1


# --- effect on routing


def test_the_next_request_uses_the_notes_on_a_try(gateway, exchange):
    [select] = [stage for stage, *_ in gateway.pipeline.on_request._stages if type(stage).__name__ == "Select"]

    def targets():
        sent = exchange({"model": "v", "messages": [{"role": "user", "content": "Hello"}]})
        sent.route.chain = gateway.pipeline.catalog.resolve("v")
        sent.route.targets = sent.route.chain.targets
        select(sent)
        return [target.name for target in sent.route.targets]

    assert targets() == ["m", "n"]
    learn(gateway, tried(status=429, retry_after="30"))
    assert targets() == ["n"]
    assert gateway.metric("extproc_targets_skipped_total", reason="cooling_down") == 1
    gateway.clock.now += 30
    assert targets() == ["m", "n"]


async def test_others_have_their_turn_after_each_stage_of_a_large_request(world, exchange):
    stages = world().pipeline.on_large_request
    assert isinstance(stages, InTurns)
    some = InTurns([lambda _exchange: None] * 7, lambda _name: lambda _seconds: None)
    assert await turns_during(some(exchange())) >= 7


# --- the list of stages in docs/architecture.md


def test_the_architecture_lists_every_stage(world):
    pipeline = world(EVERYTHING).pipeline
    lists = [value for value in vars(Pipeline)["__dataclass_fields__"] if value.startswith("on_")]
    built = {
        type(stage).__name__
        for name in lists
        for stages in [getattr(pipeline, name)]
        for stage, *_ in [entry for each in getattr(stages, "_each", [stages]) for entry in each._stages]
    }
    assert len(built) > 25
    assert {name for name in built if name not in ARCHITECTURE} == set()
