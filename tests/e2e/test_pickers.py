"""Both ends of the endpoint-picker protocol of the Gateway API Inference Extension, through a real Envoy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doubles.picker import ExternalPicker
from tests.doubles.pod import Pod
from tests.e2e.conftest import Gateway, eventually
from tests.e2e.test_pools import YAML, pods, pool_of, served

__all__ = ("pods",)


@pytest.fixture
def picker() -> Iterator[ExternalPicker]:
    found = ExternalPicker()
    yield found
    found.stop()


def gateway_with(start, pods: list[Pod], picker: ExternalPicker, more: str = "") -> Gateway:
    address = f", picker: grpc://127.0.0.1:{picker.port}, picker_timeout: 2s{more}"
    gateway = start(YAML.replace("{POOL}", pool_of(pods, address)), mocks=("cloud",))
    picker.chosen = pods[0].address
    eventually(lambda: gateway.chat("llama-3").status_code == 200)
    return gateway


def test_an_external_picker_chooses_the_endpoint_of_each_try_and_hears_who_answered(start, pods, picker):
    gateway = gateway_with(start, pods, picker)
    for pod in pods:
        picker.chosen = pod.address
        answer = gateway.chat("llama-3", f"to {pod.name}")
        assert served(answer) == pod.name
        assert answer.headers["x-ai-endpoint"] == pod.address
        assert gateway.exchange_of(answer)["endpoint"] == pod.address
        assert picker.asked[-1]["messages"][0]["content"] == f"to {pod.name}"
        assert picker.served[-1] == pod.address
        assert not [name for name in pod.bodies[-1]["headers"] if name.lower().startswith("x-gateway")]
    with gateway.stream("llama-3", "a story") as answer:
        assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"
    large = "x" * 300_000
    assert served(gateway.chat("llama-3", large)) == "pod3"
    assert picker.asked[-1]["messages"][0]["content"] == large


@pytest.mark.parametrize("status", [503, 429])
def test_a_request_that_the_picker_refuses_fails_over_to_the_next_target(start, pods, picker, status):
    gateway = gateway_with(start, pods, picker)
    picker.status = status
    before = [len(pod.bodies) for pod in pods]
    assert gateway.chat("assistant").status_code == 200
    assert gateway.chat("llama-3").status_code == status
    assert [len(pod.bodies) for pod in pods] == before


def test_without_the_picker_a_closed_pool_fails_over_and_an_open_one_serves(start, pods, picker):
    closed, opened = gateway_with(start, pods, picker), gateway_with(start, pods, picker, ", picker_failure: open")
    picker.stop()
    answer = closed.chat("assistant")
    assert answer.status_code == 200, answer.text
    assert "x-ai-endpoint" not in answer.headers
    assert closed.chat("llama-3").status_code >= 500
    assert served(opened.chat("llama-3")).startswith("pod")
    picker.start()
