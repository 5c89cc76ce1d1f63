"""Prompts as OpenTelemetry events: masked, cut, sampled, and never in the way of a request."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from extproc.operate.telemetry import outbox
from extproc.operate.telemetry import prompts as module
from tests.talk import ANSWER, answers, asks, sends, streams, talk

MASK = "guardrails: [{name: g, kind: regex, patterns: {word: CANARY}, action: %s}]"


class Collector(ThreadingHTTPServer):
    """`records` are the log records that came, `tokens` the credentials of their requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.records, self.tokens, self.status = [], [], 200

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/logs"
        said = json_format.Parse(self.rfile.read(int(self.headers["content-length"])), ExportLogsServiceRequest())
        self.server.tokens.append(self.headers["authorization"])
        for resource in said.resource_logs:
            for scope in resource.scope_logs:
                self.server.records += scope.log_records
        self.send_response(self.server.status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def plain(value):
    """An AnyValue of OTLP."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind)


def read(record):
    return {pair.key: plain(pair.value) for pair in record.attributes}


async def said(gateway, content="Hello", **more):
    body = {"model": "m", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": content}]}
    stream = gateway.stream()
    replies = await talk(stream, asks(**more), sends(body), answers(), streams(ANSWER, end=True))
    for each in gateway.telemetry.outboxes.values():
        await each.stop(5)
    return replies


async def test_an_event_has_the_prompt_as_it_leaves(world, collector, monkeypatch):
    monkeypatch.setenv("COLLECTOR", "t0ken")
    for action, content, masked in (("mask", "It is ***", True), ("audit", "It is CANARY", False)):
        gateway = world(f"telemetry: {{prompts: {{otlp: '{collector.url}', token: env:COLLECTOR}}}}\n{MASK % action}")
        await said(gateway, "It is CANARY")
        record = collector.records.pop()
        assert (record.event_name, record.severity_number) == (module.EVENT, 9)
        assert record.time_unix_nano > 1.7e18
        found = read(record)
        assert found.pop("extproc.id") == gateway.log[0]["id"]
        messages = found.pop("gen_ai.input.messages")
        assert [(each["role"], [part["type"] for part in each["parts"]]) for each in messages] == [
            ("system", ["text"]),
            ("user", ["text"]),
        ]
        text = messages[1]["parts"][0]["content"]
        assert ("CANARY" not in text) is masked
        assert text.startswith(content[:6])
        assert found == {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "extproc.consumer": gateway.log[0]["consumer"],
            "extproc.team": gateway.log[0]["team"],
            "extproc.masked": masked,
            "extproc.cut": False,
        }
    assert collector.tokens == ["Bearer t0ken"] * 2


async def test_prompts_are_cut_sampled_left_out_and_off_by_default(world, collector):
    for settings, number in (
        ("longest: 20", 1),
        ("sample: 0", 0),
        ("without: ['*']", 0),
        ("without: ['other-*']", 1),
    ):
        gateway = world(f"telemetry: {{prompts: {{otlp: '{collector.url}', {settings}}}}}")
        await said(gateway, "x" * 5000)
        assert len(collector.records) == number, settings
        if settings.startswith("longest"):
            found = read(collector.records[0])
            texts = [part["content"] for each in found["gen_ai.input.messages"] for part in each["parts"]]
            assert (texts, found["extproc.cut"]) == (["Be kind.", "x" * 12], True)
        collector.records.clear()
    gateway = world()
    await said(gateway)
    assert gateway.telemetry.outboxes == {}


async def test_refused_prompts_are_not_sent(world, collector):
    gateway = world(f"telemetry: {{prompts: {{otlp: '{collector.url}'}}}}\n{MASK % 'block'}")
    stream = gateway.stream()
    await talk(stream, asks(), sends({"model": "m", "messages": [{"role": "user", "content": "CANARY"}]}))
    await gateway.telemetry.outboxes["telemetry.prompts"].stop(5)
    assert collector.records == []


async def test_a_collector_that_fails_is_counted_and_what_waits_is_bounded(world, collector, monkeypatch, caplog):
    gateway = world(f"telemetry: {{prompts: {{otlp: '{collector.url}'}}}}")
    collector.status = 503
    await said(gateway)
    assert gateway.metric("extproc_prompt_events_total", outcome="failed") == 1
    assert "status 503" in caplog.text
    monkeypatch.setattr(outbox, "MOST_WAITING", 2000)
    counted = []
    log = outbox.Outbox("x", module.PromptSender(), lambda outcome, number: counted.append((outcome, number)), pause=0)
    settings = gateway.pipeline.settings.telemetry.prompts.model_copy(update={"otlp": "http://127.0.0.1:1"})
    for _ in range(30):
        log.add(settings, json.dumps({"body": {"stringValue": "x" * 80}}).encode())
    dropped = counted.count(("dropped", 1))
    assert 0 < dropped < 30
    await log.stop(5)
    assert counted[-1] == ("failed", 30 - dropped)
    log.add(settings, b"{}")
    await asyncio.sleep(0)
    await log.stop(5)
    assert counted[-1] == ("failed", 1)


async def test_of_a_body_that_is_no_json_or_is_large_no_text_is_sent(exchange):
    found = exchange({"model": "m", "messages": [{"role": "user", "content": "x" * (300 << 10)}]})
    found.request.operation = "chat"
    for body in (found.request.body, b"--form\r\n", b"[]"):
        found.request.body = body
        attributes = {pair["key"]: pair["value"] for pair in module._record(found, 100)["attributes"]}
        assert attributes["gen_ai.input.messages"] == {"arrayValue": {"values": []}}
        assert attributes["extproc.cut"] == {"boolValue": True}
