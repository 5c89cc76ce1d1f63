"""Spans of requests and tries reach an OpenTelemetry collector, with what the gateway knows."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp

from tests.e2e.conftest import Gateway, eventually, run_gateway

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PARENT = "0af7651916cd43dd8448eb211c80319c"
YAML = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
  backup: {kind: mock, base_url: "{mock_backup}"}
models: {stub: {provider: sandbox, price: {input: 1000, output: 1000}}, second: {provider: backup}}
virtual_models: {both: {targets: [{model: stub}, {model: second}]}}
consumers: [{name: demo, team: platform, keys: [{env: EXTPROC_TEST_KEY}]}]
teams: {platform: {models: ["*"]}}
guardrails: [{name: no-keys, kind: regex, patterns: {aws: 'AKIA[0-9A-Z]{16}'}}]
telemetry: {traces: {otlp: "http://127.0.0.1:%d"}}
"""


def plain(value: Any) -> Any:
    """An AnyValue of OTLP."""
    kind = value.WhichOneof("value")
    return [plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class Collector:
    """An OTLP receiver for gRPC."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._export, otlp.ExportTraceServiceRequest.FromString, otlp.ExportTraceServiceResponse.SerializeToString
        )
        method = EXPORT.rpartition("/")[2]
        service = EXPORT.rpartition("/")[0].removeprefix("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _export(self, request: otlp.ExportTraceServiceRequest, _context: object) -> otlp.ExportTraceServiceResponse:
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        values = {each.key: plain(each.value) for each in span.attributes}
                        ids = {
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "name": span.name,
                            "kind": span.kind,
                            "start": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                        }
                        self.spans.append(values | ids)
        return otlp.ExportTraceServiceResponse()

    def found(self, **wanted: object) -> list[dict[str, Any]]:
        """Spans with these attributes, `.` written as `__`."""
        names = {name.replace("__", "."): value for name, value in wanted.items()}
        with self._lock:
            return [span for span in self.spans if names.items() <= span.items()]

    def stop(self) -> None:
        self._server.stop(0)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.stop()


@pytest.fixture
def unsampled(tmp_path: Path, collector: Collector) -> Iterator[Gateway]:
    """A gateway that records no trace that begins there."""
    yaml = YAML.replace('%d"', f'{collector.port}", sample: 0')
    yield from run_gateway(tmp_path, yaml, ("sandbox", "backup"), {"EXTPROC_TEST_KEY": "sk-gw-tests"})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Gateway]:
    yaml = YAML.replace("%d", str(collector.port))
    yield from run_gateway(
        tmp_path_factory.mktemp("traces"), yaml, ("sandbox", "backup"), {"EXTPROC_TEST_KEY": "sk-gw-tests"}
    )


def one(find: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    [span] = eventually(find)
    return span


@pytest.mark.parametrize("stream", [False, True])
def test_a_span_tells_model_usage_cost_and_consumer(gateway: Gateway, collector: Collector, stream: bool) -> None:
    run = f"traced-{stream}"
    answer = gateway.chat(stream=stream, headers={"x-ai-run": run})
    assert answer.status_code == 200
    span = one(lambda: collector.found(extproc__labels=f'{{"run":"{run}"}}'))
    assert (span["name"], span["gen_ai.operation.name"]) == ("chat stub", "chat")
    assert span["gen_ai.provider.name"] == "mock"
    assert span["gen_ai.request.model"] == "stub"
    assert span["gen_ai.response.model"] == "stub"
    assert span["gen_ai.response.finish_reasons"] == ["stop"]
    assert span["gen_ai.response.id"] in answer.text
    assert 0 < span["gen_ai.response.time_to_first_chunk"] < 60
    assert (span["extproc.consumer"], span["extproc.team"], span["extproc.outcome"]) == ("demo", "platform", "ok")
    used = span["gen_ai.usage.input_tokens"] + span["gen_ai.usage.output_tokens"]
    assert span["extproc.cost_usd"] == pytest.approx(used / 1000)
    entry = gateway.last(lambda entry: entry["id"] == span["extproc.id"])
    assert entry["input_tokens"] == span["gen_ai.usage.input_tokens"]


def test_an_answer_that_ends_early_has_a_span_with_its_usage(gateway: Gateway, collector: Collector) -> None:
    """Both a provider that breaks off and a client that leaves."""
    gateway.fault("sandbox", "cut=3")
    try:
        with pytest.raises(httpx.HTTPError):
            gateway.chat(text="one two three four five six", stream=True, headers={"x-ai-run": "cut"})
    finally:
        gateway.reset()
    gateway.fault("sandbox", "words=500+pace=50ms")
    try:
        request = {"model": "stub", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": "Bearer sk-gw-tests", "x-ai-run": "left"}
        with gateway.http.stream("POST", gateway.url + "/v1/chat/completions", json=request, headers=headers) as answer:
            next(answer.iter_bytes())
    finally:
        gateway.reset()
    for run in ("cut", "left"):
        span = one(lambda run=run: collector.found(extproc__labels=f'{{"run":"{run}"}}'))
        assert (span["error.type"], span["extproc.outcome"]) == ("incomplete", "ok")
        assert span["gen_ai.response.finish_reasons"] == ["error"]
        assert span["gen_ai.usage.input_tokens"] > 0
        assert span["gen_ai.usage.output_tokens"] > 0
        assert span["extproc.cost_usd"] > 0


def test_the_context_of_the_client_goes_through_to_the_provider(gateway: Gateway, collector: Collector) -> None:
    """Client, request, try, provider: each the parent of the next. The processor's span is below its call."""
    gateway.fault("sandbox", "status=503")
    try:
        answer = gateway.chat("both", headers={"traceparent": f"00-{PARENT}-b7ad6b7169203331-01"})
        [seen] = gateway.seen("backup")
    finally:
        gateway.reset()
    assert answer.headers["x-ai-attempts"] == "2"
    request = one(lambda: collector.found(trace=PARENT, parent="b7ad6b7169203331"))
    chat = one(lambda: collector.found(trace=PARENT, name="chat both"))
    assert (chat["extproc.attempts"], chat["extproc.provider"]) == (2, "backup")
    failed = one(lambda: collector.found(trace=PARENT, parent=chat["id"]))
    assert (failed["name"], failed["kind"], failed["gen_ai.provider.name"]) == ("chat stub", 3, "mock")
    assert (failed["error.type"], failed["http.response.status_code"]) == ("503", 503)
    assert (failed["extproc.provider"], chat["kind"]) == ("sandbox", 3)
    assert request["start"] <= failed["start"] <= failed["end"] <= request["end"]
    call = one(lambda: collector.found(trace=PARENT, id=chat["parent"]))
    assert (call["upstream_cluster"], call["parent"]) == ("extproc", request["id"])
    tries = eventually(
        lambda: (
            (found := [one for one in collector.found(trace=PARENT, parent=request["id"]) if "extproc.provider" in one])
            and found[1:]
            and found
        ),
        15,
    )
    answered = {span["extproc.provider"]: span["http.status_code"] for span in tries}
    assert answered == {"sandbox": "503", "backup": "200"}
    assert dict(seen["headers"])["traceparent"].split("-")[1] == PARENT


def test_the_caller_decides_about_a_trace_that_began_there(unsampled: Gateway, collector: Collector) -> None:
    """`sample` is for the others. Providers are told the same decision."""
    traces = [f"{number:032x}" for number in range(1, 9)]
    for trace in traces:
        unsampled.chat(headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    unsampled.chat(headers={"traceparent": f"00-{'c' * 32}-b7ad6b7169203331-00"})
    unsampled.chat()
    flags = [dict(seen["headers"])["traceparent"].rpartition("-")[2] for seen in unsampled.seen("sandbox")]
    assert flags == ["01"] * len(traces) + ["00", "00"]
    for trace in traces:
        assert eventually(lambda trace=trace: collector.found(trace=trace, extproc__outcome="ok"))
    assert not collector.found(trace="c" * 32)


def test_refusals_have_a_span_too(gateway: Gateway, collector: Collector) -> None:
    assert gateway.chat("gone").status_code == 404
    assert gateway.chat(text="AKIAABCDEFGHIJKLMNOP").status_code == 400
    assert gateway.chat(key="sk-gw-wrong").status_code == 401
    span = one(lambda: collector.found(error__type="model_not_found"))
    assert (span["extproc.consumer"], span["extproc.outcome"]) == ("demo", "refused")
    span = one(lambda: collector.found(error__type="guardrail_blocked"))
    assert span["extproc.guardrails"] == "no-keys:block"
    assert "AKIA" not in str(collector.spans)
    assert "extproc.consumer" not in one(lambda: collector.found(error__type="invalid_key"))
    gateway.post("/v1/chat/completions?key=sk-gw-in-the-path", {}, key=None)
    refused = one(lambda: collector.found(error__type="missing_key"))
    call = one(lambda: collector.found(id=refused["parent"]))
    assert one(lambda: collector.found(id=call["parent"]))["http.url"] == "/v1/chat/completions"
    assert "sk-gw-" not in str(collector.spans)


@pytest.mark.otlp
def test_a_real_collector_passes_on_all_that_a_span_says(tmp_path: Path, collector: Collector) -> None:
    """Rotel reads the spans of requests and tries, batches them, and writes them again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [os.environ["ROTEL_AGENT"], "start", "--otlp-grpc-endpoint", f"127.0.0.1:{port}"]
    command += ["--otlp-http-endpoint", "127.0.0.1:0", "--pid-file", str(tmp_path / "pid"), "--exporter", "otlp"]
    command += ["--otlp-exporter-endpoint", f"http://127.0.0.1:{collector.port}"]
    with (tmp_path / "log").open("wb") as log:
        rotel = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for gateway in run_gateway(
            tmp_path, YAML.replace("%d", str(port)), ("sandbox", "backup"), {"EXTPROC_TEST_KEY": "sk-gw-tests"}
        ):
            gateway.fault("sandbox", "status=503")
            assert gateway.chat("both", headers={"x-ai-run": "through-rotel"}).status_code == 200
            gateway.reset()
            assert gateway.chat(stream=True, headers={"x-ai-run": "streamed-by-rotel"}).status_code == 200
            for run in ("through-rotel", "streamed-by-rotel"):
                span = one(lambda run=run: collector.found(extproc__labels=f'{{"run":"{run}"}}'))  # type: ignore[misc]
                assert span["gen_ai.usage.output_tokens"] > 0
                assert span["gen_ai.response.finish_reasons"] == ["stop"]
                entry = gateway.last(lambda entry, span=span: entry["id"] == span["extproc.id"])  # type: ignore[misc]
                assert span.get("extproc.cost_usd") == entry["cost_usd"]
    finally:
        rotel.terminate()
        rotel.wait(10)
    assert b"ERROR" not in (tmp_path / "log").read_bytes()
