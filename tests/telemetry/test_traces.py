"""The processor's own spans: typed, never long, never a credential, under the caller's span, in OTLP's bytes."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from extproc.operate.telemetry import otlp
from extproc.operate.telemetry.spans import SERVICE, TellSpan
from extproc.operate.telemetry.traces import TRACE, attributes
from extproc.tools.mcp.call import CALL
from extproc.words.dialect import Report
from extproc.words.exchange import Kinds, Usage, Verdict
from extproc.words.tries import FailedTry
from tests.telemetry.test_metrics import called

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def ended(exchange):
    body = {"model": "m" * 1000, "stream": True, "messages": [{"role": "user", "content": "CANARY"}]}
    found = exchange(body, labels={"run": "7", "session": "s-1"})
    found.route.forwarded, found.answer.attempts, found.answer.target = True, 2, found.route.targets[0]
    found.answer.report = Report(id="chatcmpl-1", model="m-1", finish_reasons={1: "length", 0: "stop"})
    found.answer.first_token = 0.25
    found.findings.verdicts.append(Verdict("no-keys", "input", "mask", {"aws": 1}))
    found.findings.guardrails.append("no-keys:mask")
    found.money.usage, found.money.cost = Usage(70, 30, 20, 10, 5, source="provider"), 12_500
    found.end(whole=True)
    return found


def sent(exchange, traceparent=PARENT, semconv="latest"):
    """The only span that leaves; None without one."""
    spans = all_sent(exchange, traceparent, semconv)
    assert len(spans) <= 1
    return spans[0] if spans else None


def all_sent(exchange, traceparent=PARENT, semconv="latest"):
    """The spans that leave, as the official messages read them."""

    class Waiting(list):
        def add(self, address, record):
            self.append((address, record))

    exchange.features[TRACE] = otlp.context(traceparent)
    waiting = Waiting()
    TellSpan("http://c:4317", waiting, {"a": "acme"}.get, semconv)(exchange)
    assert {address for address, _ in waiting} <= {"http://c:4317"}
    records = [record for _, record in waiting]
    [resource] = ExportTraceServiceRequest.FromString(otlp.request(SERVICE, records)).resource_spans
    assert [(one.key, one.value.string_value) for one in resource.resource.attributes] == [("service.name", SERVICE)]
    return resource.scope_spans[0].spans


def read(value):
    kind = value.WhichOneof("value")
    return [read(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def test_a_span_has_typed_attributes_and_the_time_of_the_exchange(ended):
    span = sent(ended)
    assert (span.name, span.kind, span.status.code) == (f"chat {'m' * 256}", otlp.CLIENT, 0)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 == pytest.approx(ended.seconds)
    assert {one.key: read(one.value) for one in span.attributes} == {
        "extproc.attempts": 2,
        "extproc.consumer": "alice",
        "extproc.cost_usd": 0.0000125,
        "extproc.guardrails": "no-keys:mask",
        "extproc.id": ended.id,
        "extproc.labels": '{"run":"7","session":"s-1"}',
        "extproc.outcome": "ok",
        "extproc.provider": "a",
        "extproc.team": "red",
        "extproc.usage_source": "provider",
        "gen_ai.conversation.id": "s-1",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "acme",
        "gen_ai.request.model": "m" * 256,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "m-1",
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 20,
        "gen_ai.usage.cache_write.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 10,
    }
    assert "CANARY" not in str(span)


@pytest.mark.parametrize(
    ("status", "outcome", "error", "answered"),
    [(503, "5xx", "503", [503]), (429, "429", "429", [429]), (503, "connect", "connect", []), (200, "cut", "cut", [])],
)
def test_each_failed_try_has_a_span_below_that_of_its_exchange(ended, status, outcome, error, answered):
    start = 1_700_000_000_123_456_789
    ended.answer.tries = [FailedTry(ended.route.targets[0].name, "a", status, 40, outcome, start)] * 2
    whole, first, second = all_sent(ended)
    assert (first.name, first.kind) == (f"chat {ended.route.targets[0].model}", otlp.CLIENT)
    assert (first.trace_id, first.parent_span_id) == (whole.trace_id, whole.span_id)
    assert len({whole.span_id, first.span_id, second.span_id}) == 3
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (start, start + 40_000_000)
    assert (first.status.code, first.status.message) == (2, error)
    found = {one.key: read(one.value) for one in first.attributes}
    assert (found["error.type"], found["gen_ai.provider.name"], found["extproc.id"]) == (error, "acme", ended.id)
    assert [found[name] for name in found if name == "http.response.status_code"] == answered
    assert not any("usage" in name or "cost" in name for name in found), "sums count nothing twice"


def test_earlier_names_and_modalities(ended):
    ended.money.usage.kinds = Kinds(audio_input=3, image_output=4)
    found = attributes(ended, str, "v1.41")
    assert found["gen_ai.usage.cache_creation.input_tokens"] == 5
    assert (found["gen_ai.usage.audio.input_tokens"], found["gen_ai.usage.image.output_tokens"]) == (3, 4)
    assert not any("cache_write" in name for name in found)


def test_an_answer_that_broke_off_has_its_usage_too(exchange, ended):
    cut = exchange({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]})
    cut.route.forwarded, cut.answer.target, cut.answer.status = True, cut.route.targets[0], 200
    cut.answer.report, cut.money.usage, cut.money.cost = Report(), Usage(7, 3, source="estimated"), 5
    cut.end()
    span = sent(cut)
    found = {one.key: read(one.value) for one in span.attributes}
    assert (span.status.code, span.status.message) == (2, "incomplete")
    assert (found["error.type"], found["gen_ai.response.finish_reasons"]) == ("incomplete", ["error"])
    assert (found["gen_ai.usage.output_tokens"], found["extproc.cost_usd"]) == (3, 5e-9)
    ended.answer.status = 429
    assert attributes(ended, str)["error.type"] == "429"


def test_a_stranger_has_no_consumer(exchange):
    stranger = exchange()
    del stranger.consumer, stranger.money.labels
    stranger.end(refused="invalid_key")
    found = attributes(stranger, str)
    assert found["error.type"] == "invalid_key"
    assert "extproc.consumer" not in found
    assert sent(stranger).kind == otlp.INTERNAL


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        PARENT[:-1],
        PARENT.replace("b7", "zz"),
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7{'0' * 14}-01",
        PARENT[:-2] + "00",  # its caller does not record it
    ],
)
def test_without_a_trace_that_is_recorded_no_span_is_sent(ended, traceparent):
    assert sent(ended, traceparent) is None


def test_a_call_of_a_tool_has_the_conventions_of_tools_and_the_span_that_it_names(exchange):
    call = called(exchange, failed=True)
    call.money.usage, call.money.cost = Usage(), 5_000_000
    span = sent(call)
    found = {one.key: read(one.value) for one in span.attributes}
    assert (span.name, span.kind, len(span.links)) == ("tools/call add", otlp.SERVER, 0)
    assert {name: value for name, value in found.items() if name.startswith(("gen_ai", "mcp", "error", "jsonrpc"))} == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2025-06-18",
        "jsonrpc.request.id": "7",
        "error.type": "tool_error",
    }
    assert (found["extproc.mcp_server"], found["extproc.profile"], found["extproc.cost_usd"]) == (
        "github",
        "dev",
        0.005,
    )
    assert "CANARY" not in str(span)
    caller = f"00-{'c' * 32}-{'d' * 16}-01"
    call.features[CALL].message.params["_meta"] = {"traceparent": caller}
    span = sent(call, PARENT[:-2] + "00")  # the caller's decision counts
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("c" * 32, "d" * 16)
    assert [link.trace_id.hex() for link in span.links] == [PARENT.split("-")[1]]


def test_a_message_without_a_tool_names_its_method(exchange):
    listing = called(exchange)
    listing.request.operation = "tools/list"
    found = attributes(listing, str)
    assert found["mcp.method.name"] == "tools/list"
    assert not any(name.startswith("gen_ai") for name in found)
