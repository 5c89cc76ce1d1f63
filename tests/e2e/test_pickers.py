"""Both ends of the endpoint-picker protocol of the Gateway API Inference Extension, through a real Envoy."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.doubles.picker import ExternalPicker
from tests.doubles.pod import Pod
from tests.e2e.conftest import Gateway, eventually, free_ports
from tests.e2e.test_attach import ENVOY, running
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


# --- the processor as a picker for other proxies

OTHER = """
static_resources:
  listeners:
  - name: public
    address: {socket_address: {address: 127.0.0.1, port_value: LISTENER}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: public
          http_filters:
          - name: envoy.filters.http.ext_proc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: {envoy_grpc: {cluster_name: picker, authority: picker}}
              failure_mode_allow: false
              message_timeout: 1000s
              processing_mode:
                request_header_mode: SEND
                response_header_mode: SEND
                request_body_mode: FULL_DUPLEX_STREAMED
                response_body_mode: FULL_DUPLEX_STREAMED
                request_trailer_mode: SEND
                response_trailer_mode: SEND
              metadata_options:
                forwarding_namespaces: {untyped: [envoy.lb, envoy.lb.subset_hint]}
                receiving_namespaces: {untyped: [envoy.lb]}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /, headers: [{name: x-like, string_match: {exact: istio}}]}
                route: {cluster: override, timeout: 0s}
              - match: {prefix: /}
                route: {cluster: original, timeout: 0s}
  clusters:
  - name: picker
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: picker, endpoints: [{lb_endpoints: [{endpoint: {address: PICKER}}]}]}
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    original_dst_lb_config: {use_http_header: true, http_header_name: x-gateway-destination-endpoint}
  - name: override
    type: STATIC
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: envoy.load_balancing_policies.override_host
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost
            override_host_sources:
            - metadata: {key: envoy.lb, path: [{key: x-gateway-destination-endpoint}]}
            fallback_policy:
              policies:
              - typed_extension_config:
                  name: envoy.load_balancing_policies.round_robin
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin
    load_assignment: {cluster_name: override, endpoints: [{lb_endpoints: [PODS]}]}
"""


def _address(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{{socket_address: {{address: {host}, port_value: {port}}}}}"


@pytest.fixture
def other(start, pods, tmp_path) -> Iterator[str]:
    """URL of another team's Envoy, which asks the processor for endpoints."""
    picker, door = free_ports(2)
    more = f', serve: "127.0.0.1:{picker}", saturated: {{waiting: 4}}, wait: 0s'
    start(YAML.replace("{POOL}", pool_of(pods, more)), mocks=("cloud",))
    hosts = ", ".join(f"{{endpoint: {{address: {_address(pod.address)}}}}}" for pod in pods)
    text = OTHER.replace("LISTENER", str(door)).replace("PICKER", _address(f"127.0.0.1:{picker}"))
    file = tmp_path / "other.yaml"
    file.write_text(text.replace("PODS", hosts))
    url = f"http://127.0.0.1:{door}"
    with running(
        ENVOY, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", ready=url, log=tmp_path / "other.txt"
    ):
        yield url


@pytest.mark.parametrize("like", ["istio", "envoy-gateway"])
def test_another_envoy_asks_the_processor_for_the_endpoint_of_each_request(other, pods, like):
    with httpx.Client(base_url=other, headers={"x-like": like}, timeout=20, trust_env=False) as http:

        def chat(*texts: str, **fields: object) -> httpx.Response:
            messages = [{"role": "user", "content": text} for text in texts]
            return http.post("/v1/chat/completions", json={"model": "llama-3", "messages": messages, **fields})

        long = "You answer politely. " * 5000
        eventually(lambda: chat("warm up").status_code == 200)
        first = served(chat(long))
        assert {served(chat(long, f"question {number}")) for number in range(6)} == {first}
        pod = next(each for each in pods if each.name == first)
        assert pod.bodies[-1]["messages"][0]["content"] == long
        answer = chat("a story", stream=True)
        assert answer.text.rstrip().endswith("data: [DONE]")
        pod.waiting = 50
        eventually(lambda: (found := chat(long)).status_code == 200 and served(found) != first)
        for each in pods:
            each.waiting = 50
        answer = eventually(lambda: (found := chat("busy")).status_code == 429 and found)
        assert answer.headers["retry-after"]
