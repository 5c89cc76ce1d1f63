"""Failing models and dead providers: who is affected, what clients are told, and how traffic comes back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Gateway, eventually, free_ports, run_gateway
from tests.e2e.scripted import Scripted, plain

[DEAD] = free_ports(1)
SETTINGS = f"""
providers:
  main: {{kind: vllm, base_url: "URL/v1", outlier_detection: {{base_ejection_time: 60s}}}}
  spare: {{kind: mock, base_url: "{{mock_spare}}"}}
  dead:
    kind: vllm
    base_url: "http://127.0.0.1:{DEAD}/v1"
    outlier_detection: {{interval: 200ms, base_ejection_time: 4s}}
    cool_down: {{longest: 4s}}
models:
  good: {{provider: main}}
  bad: {{provider: main}}
  other: {{provider: main}}
  stub: {{provider: spare}}
  gone: {{provider: dead}}
  gone-too: {{provider: dead}}
virtual_models:
  chain: {{targets: [{{model: good}}, {{model: stub}}]}}
  others: {{targets: [{{model: other}}, {{model: stub}}]}}
  dead-first: {{targets: [{{model: gone}}, {{model: stub}}]}}
consumers:
  - {{name: attacker, keys: [{{env: ATTACKER}}]}}
  - {{name: victim, keys: [{{env: VICTIM}}]}}
  - {{name: third, keys: [{{env: THIRD}}]}}
stores: {{counters: "memory:"}}
"""
KEYS = {name: f"sk-gw-{name}" for name in ("attacker", "victim", "third")}
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
OWN_ERROR = {"error": {"message": "CUDA out of memory", "type": "server_error", "param": None, "code": "cuda"}}


def behave(provider: Scripted) -> None:
    """The model `bad` fails, and so does a request whose text is `poison`. A `reset` breaks the connection."""
    provider.seen.clear()

    def script() -> list[bytes]:
        asked = provider.seen[-1]
        text = asked["messages"][-1]["content"]
        if text == "reset":
            return []
        return [plain(OWN_ERROR, status=500) if asked["model"] == "bad" or text == "poison" else plain(ANSWER)]

    provider.script = script


@pytest.fixture
def gateway(provider: Scripted, tmp_path: Any) -> Iterator[Gateway]:
    behave(provider)
    env = {name.upper(): key for name, key in KEYS.items()}
    yield from run_gateway(tmp_path, SETTINGS.replace("URL", provider.url), ("spare",), env)


def ask(gateway: Gateway, model: str, consumer: str = "victim", text: str = "Hello") -> httpx.Response:
    return gateway.chat(model, text, key=KEYS[consumer])


def served(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.headers.get("x-ai-provider", ""), answer.headers.get("x-ai-attempts", "")


def attack(gateway: Gateway, model: str, text: str, *consumers: str) -> None:
    """Failing requests of these consumers, taken in by the gateway."""
    before = gateway.metric("extproc_tries_total", provider="main")
    for consumer in consumers:
        assert ask(gateway, model, consumer, text).status_code >= 500
    eventually(lambda: gateway.metric("extproc_tries_total", provider="main") == before + len(consumers))


@pytest.mark.parametrize("text", ["Hello", "reset"])
def test_a_model_that_fails_takes_no_other_model_of_its_provider_away(gateway: Gateway, text: str):
    attack(gateway, "bad", text, *["attacker"] * 8)
    for consumer in KEYS:
        assert served(ask(gateway, "good", consumer)) == (200, "main", "1")
        assert served(ask(gateway, "chain", consumer)) == (200, "main", "1")


def test_the_error_of_a_provider_is_shown_however_often_it_came(gateway: Gateway):
    attack(gateway, "bad", "Hello", *["attacker", "victim"] * 4)
    answer = ask(gateway, "bad")
    assert (answer.status_code, answer.json()) == (500, OWN_ERROR)
    assert answer.headers["x-ai-error-origin"] == "provider"


def test_requests_that_make_a_model_fail_cool_it_down_for_their_consumer_alone(gateway: Gateway):
    attack(gateway, "good", "poison", *["attacker"] * 8)
    for consumer in ("victim", "third"):
        assert served(ask(gateway, "chain", consumer)) == (200, "main", "1")
    answer = ask(gateway, "chain", "attacker")
    assert served(answer) == (200, "spare", "1")
    assert gateway.exchange_of(answer)["skipped"] == {"good": "cooling_down"}
    places = gateway.http.get(gateway.admin + "/providers").json()["data"]
    assert places["main/good"]["cooling_consumers"] == 1
    assert "cooling_down_s" not in places["main/good"]
    # One success of the consumer ends its cool-down.
    assert served(ask(gateway, "good", "attacker")) == (200, "main", "1")
    eventually(lambda: served(ask(gateway, "chain", "attacker"))[1] == "main")


def test_a_model_that_fails_several_consumers_is_passed_over_for_all_and_never_as_the_last(gateway: Gateway):
    attack(gateway, "other", "poison", "attacker", "attacker", "attacker", "attacker", "victim", "victim")
    answer = ask(gateway, "others", "third")
    assert served(answer) == (200, "spare", "1")
    assert gateway.exchange_of(answer)["skipped"] == {"other": "cooling_down"}
    assert served(ask(gateway, "chain", "third")) == (200, "main", "1")
    assert served(ask(gateway, "other", "third")) == (200, "main", "1")
    eventually(lambda: served(ask(gateway, "others", "third"))[1] == "main")


def test_a_dead_provider_costs_a_chain_few_tries_and_comes_back(gateway: Gateway):
    def dead_tries() -> float:
        return gateway.metric("extproc_tries_total", provider="dead", outcome="connect")

    for number in range(5):
        assert served(ask(gateway, "dead-first")) == (200, "spare", "2")
        eventually(lambda number=number: dead_tries() == number + 1)
    # One consumer's failures to connect are the provider's: all its models cool down, for everybody.
    answer = ask(gateway, "dead-first", "third")
    assert served(answer) == (200, "spare", "1")
    assert gateway.exchange_of(answer)["skipped"] == {"gone": "cooling_down"}
    places = gateway.http.get(gateway.admin + "/providers").json()["data"]
    assert 0 < places["dead/"]["cooling_down_s"] <= 4
    # Where the others fail, the error names the target that was not asked.
    gateway.fault("spare", "status=500")
    failed = ask(gateway, "dead-first", "third")
    assert (failed.status_code, failed.headers["x-ai-error-origin"]) == (500, "provider")
    assert re.fullmatch(
        r"gone: it cools down for another [0-4] s: its provider cannot be reached", failed.headers["x-ai-skipped"]
    )
    gateway.fault("spare", "")
    # Alone it is asked each time, and the refusal says why.
    for _ in range(6):
        alone = ask(gateway, "gone-too")
        assert alone.status_code == 503
        assert "cannot be reached" in alone.json()["error"]["message"]
    alive = Scripted(DEAD)
    alive.answer(plain(ANSWER))
    with alive.running():
        assert served(ask(gateway, "gone-too")) == (200, "dead", "1")
        eventually(lambda: served(ask(gateway, "dead-first", "third")) == (200, "dead", "1"))


def test_one_request_tests_a_provider_after_its_cool_down(gateway: Gateway):
    for _ in range(5):
        ask(gateway, "dead-first")
    eventually(lambda: served(ask(gateway, "dead-first"))[2] == "1")
    before = gateway.metric("extproc_tries_total", provider="dead")
    begun = time.monotonic()
    while time.monotonic() < begun + 7:
        assert ask(gateway, "dead-first").status_code == 200
        time.sleep(0.05)
    tries = gateway.metric("extproc_tries_total", provider="dead") - before
    assert 1 <= tries <= 4
