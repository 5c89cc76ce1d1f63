"""Several keys of one provider through Envoy: shares by weight, failover between them, and what stays with one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from openai import OpenAI

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway

SETTINGS = """
providers:
  p:
    kind: openai
    base_url: "{mock_p}"
    outlier_detection: {consecutive_5xx: 10000}
    keys: [{api_key: env:KEY_ONE, weight: 3}, {api_key: env:KEY_TWO}, {api_key: env:KEY_SPARE, weight: 0}]
  q: {kind: openai, base_url: "{mock_q}", keys: [{api_key: env:KEY_ONE}, {api_key: env:KEY_TWO, disabled: true}]}
models:
  m: {provider: p, model: gpt-5.4}
  "p/*": {provider: p}
  n: {provider: q, model: gpt-5.4}
virtual_models:
  v: {targets: [{model: n}, {model: m}], retry: {attempts: 5}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
auth: {key_secret: env:KEY_SECRET}
stores: {counters: "memory:"}
"""
KEYS = {"KEY_ONE": "sk-one", "KEY_TWO": "sk-two", "KEY_SPARE": "sk-spare", "KEY_SECRET": "s" * 64}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("keys"), SETTINGS, ("p", "q"), KEYS)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def used(gateway: Gateway, name: str = "p") -> list[str]:
    """The keys of the requests that the provider got."""
    return [dict(each["headers"])["authorization"].removeprefix("Bearer sk-") for each in gateway.seen(name)]


def test_requests_go_by_the_weights_of_the_keys(gateway: Gateway):
    answers = [gateway.chat("m" if number % 2 else "p/gpt-5.4", f"{number}") for number in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    counts = Counter(used(gateway))
    assert (counts.keys(), counts["two"]) == ({"one", "two"}, pytest.approx(10, abs=1))
    assert Counter(answer.headers["x-ai-provider"] for answer in answers)["p~2"] == counts["two"]
    listed = [model.id for model in OpenAI(base_url=gateway.base_url, api_key=KEY).models.list()]
    assert (listed[:3], len(set(listed))) == (["m", "n", "v"], len(listed))
    assert "~" not in "".join(listed)


def test_a_request_that_fails_with_one_key_is_sent_with_the_next(gateway: Gateway):
    gateway.fault("p", "status=401")
    assert gateway.chat("m").status_code == 502
    assert len(set(used(gateway))) == 3
    gateway.reset()
    gateway.fault("q", "status=500")
    assert gateway.chat("v").headers["x-ai-provider"].startswith("p")
    assert used(gateway, "q") == ["one"]


def test_a_key_that_asks_for_a_pause_cools_down_alone(start: Callable[..., Gateway]):
    gateway = start(SETTINGS, ("p", "q"), KEYS)
    gateway.fault("p", "status=429+retry_after=60+first=1")
    assert gateway.chat("m").status_code == 200
    paused, served = used(gateway)
    gateway.reset()
    eventually(lambda: "cooling_down_s" in str(gateway.http.get(gateway.admin + "/providers").json()))
    assert {gateway.chat("m", f"{number}").status_code for number in range(8)} == {200}
    assert paused not in used(gateway)
    assert served in used(gateway)


def test_what_a_provider_keeps_stays_with_its_key(gateway: Gateway):
    sdk = OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    ids = [sdk.responses.create(model="m", input=f"Hello {number}").id for number in range(8)]
    made = used(gateway)
    assert {"one", "two"} == set(made)
    gateway.reset()
    for id in ids:
        assert sdk.responses.retrieve(id).id == id
    assert used(gateway) == made
