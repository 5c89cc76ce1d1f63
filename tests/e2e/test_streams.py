"""Answers of every kind reach the client as the provider sent them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually

STYLES = ["crlf", "cr", "nospace", "comments", "multiline", "split", "nodone", "twodone", "nofinal"]


def same(demo: Gateway, fault: str, **fields: Any) -> httpx.Response:
    """The gateway's answer, after a comparison of its bytes with those of the provider."""
    demo.fault("sandbox", fault)
    if fields.get("stream"):
        fields["stream_options"] = {"include_usage": True}  # so that the gateway has no reason to add it
    body = chat_body("stub", "naïve – 日本語, a few words", **fields)
    through = demo.post("/v1/chat/completions", body)
    direct = demo.direct("sandbox", body)
    assert (through.status_code, through.content) == (direct.status_code, direct.content)
    assert through.headers["content-type"] == direct.headers["content-type"]
    return through


@pytest.mark.parametrize("style", [*STYLES, "crlf,comments,multiline", "cr,nospace,nofinal", "nodone,nofinal,crlf"])
def test_every_framing_passes_byte_for_byte_and_is_counted(demo: Gateway, style: str):
    answer = same(demo, f"sse={style}", stream=True)
    entry = demo.exchange_of(answer)
    assert (entry["usage_source"], entry["complete"], entry["finish_reasons"]) == ("provider", True, ["stop"])


@pytest.mark.parametrize("style", STYLES)
def test_the_usage_event_is_hidden_in_every_framing(demo: Gateway, style: str):
    demo.fault("sandbox", f"sse={style}")
    answer = demo.chat(stream=True)
    assert b"total_tokens" not in answer.content
    assert answer.content.count(b'"delta"') == 5
    assert demo.exchange_of(answer)["usage_source"] == "provider"


@pytest.mark.parametrize("fault", ["usage=early", "errorevent=3", "words=3000", "headers=80", "words=0"])
def test_unusual_streams_pass_byte_for_byte(demo: Gateway, fault: str):
    same(demo, fault, stream=True)


def test_several_choices_and_tools_stream_byte_for_byte(demo: Gateway):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    same(demo, "", stream=True, n=3)
    same(demo, "", stream=True, tools=tools)


def test_an_error_mid_stream_is_recorded(demo: Gateway):
    answer = same(demo, "errorevent=3", stream=True)
    assert answer.status_code == 200
    assert b"mock_fault" in answer.content
    entry = demo.exchange_of(answer)
    assert (entry["complete"], entry["usage_source"]) == (True, "estimated")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["badjson", "garbage+status=502", "badjson+status=500"])
def test_an_answer_of_another_shape_passes_unchanged(demo: Gateway, fault: str, stream: bool):
    answer = same(demo, fault, stream=stream)
    entry = demo.exchange_of(answer)
    assert entry["usage_source"] == ("estimated" if answer.status_code == 200 else "none")


@pytest.mark.parametrize("stream", [False, True])
def test_a_web_page_with_status_200_is_a_bad_answer(demo: Gateway, stream: bool):
    demo.fault("sandbox", "garbage")
    answer = demo.chat(stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_bad_answer")
    assert answer.headers["x-ai-error-origin"] == "provider"
    assert demo.exchange_of(answer)["usage_source"] == "none"


@pytest.mark.parametrize("stream", [False, True])
def test_a_compressed_answer_is_counted_and_passes_unchanged(demo: Gateway, stream: bool):
    demo.fault("sandbox", "gzip")
    with demo.http.stream(
        "POST",
        demo.base_url + "/chat/completions",
        json=chat_body("stub", stream=stream),
        headers={"authorization": f"Bearer {KEY}"},
    ) as answer:
        raw = b"".join(answer.iter_raw())
    assert "content-encoding" not in answer.headers
    assert b"said:" in raw
    assert (b"[DONE]" in raw) is stream
    assert demo.exchange_of(answer)["usage_source"] == "provider"


def test_three_megabytes_pass_and_are_counted(demo: Gateway):
    answer = same(demo, "size=3MB")
    assert len(answer.content) == 3_000_000
    assert demo.exchange_of(answer)["usage_source"] == "provider"


def test_an_answer_beyond_the_buffer_passes_and_its_usage_is_read(demo: Gateway):
    answer = same(demo, "size=12MB")
    assert len(answer.content) == 12_000_000
    assert demo.exchange_of(answer)["usage_source"] == "provider"


@pytest.mark.parametrize("stream", [False, True])
def test_900_kilobytes_of_request_pass(demo: Gateway, stream: bool):
    text = "word " * 180_000
    answer = demo.chat("stub", text, stream=stream)
    assert answer.status_code == 200
    assert demo.seen("sandbox")[0]["body_length"] > 900_000
    assert demo.exchange_of(answer)["input_tokens"] == 180_000


@pytest.mark.parametrize("stream", [False, True])
def test_an_impossible_count_is_counted_and_replaced_by_an_estimate(demo: Gateway, stream: bool):
    """`test_abuse_charges` has all such counts."""
    before = demo.metric("extproc_provider_usage_refused_total", provider="sandbox")
    entry = demo.exchange_of(same(demo, "usage=negative", stream=stream))
    assert entry["usage_source"] == "estimated"
    assert 8 <= entry["input_tokens"] < 200
    assert 8 <= entry["output_tokens"] < 200
    assert demo.metric("extproc_provider_usage_refused_total", provider="sandbox") == before + 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["delay=1s", "pause=1s"])
def test_a_slow_answer_arrives(demo: Gateway, fault: str, stream: bool):
    demo.fault("sandbox", fault)
    answer = demo.chat(stream=stream)
    assert answer.status_code == 200
    assert demo.exchange_of(answer)["usage_source"] == "provider"


def test_events_leave_as_they_arrive(demo: Gateway):
    demo.fault("sandbox", "pause=60s")
    with demo.stream() as answer:
        assert any(b"You" in piece for piece in answer.iter_raw())  # though the rest is a minute away


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_by_the_provider_is_cut_for_the_client(demo: Gateway, stream: bool):
    demo.fault("sandbox", "words=50+cut=3")
    model = f"any/cut-{stream}"  # finds its exchange
    with pytest.raises(httpx.RemoteProtocolError):
        demo.chat(model, stream=stream)
    entry = demo.last(lambda entry: entry.get("model") == model)
    assert (entry["status"], entry["complete"], entry["usage_source"]) == (200, False, "estimated")


@pytest.mark.parametrize("stream", [False, True])
def test_gateway_headers_of_a_provider_are_removed(demo: Gateway, stream: bool):
    answer = same(demo, "forge", stream=stream)
    assert answer.headers["x-ai-provider"] == "sandbox"
    assert "x-ai-error-origin" not in answer.headers
    assert not [name for name in answer.headers if name.startswith(("x-extproc-", "x-envoy-"))]
    entry = demo.exchange_of(answer)
    assert (entry["provider"], entry["usage_source"], entry["error"]) == ("sandbox", "provider", "")


def test_forged_headers_of_a_provider_do_not_stop_the_failover(demo: Gateway):
    demo.fault("sandbox", "forge+status=503")
    answer = demo.chat("assistant")
    assert (answer.headers["x-ai-provider"], answer.headers["x-ai-attempts"]) == ("backup", "2")
    answer = demo.chat("stub")
    assert (answer.status_code, answer.headers["x-ai-error-origin"]) == (503, "provider")


async def test_a_hundred_concurrent_streams_complete(demo: Gateway):
    demo.fault("sandbox", "words=100+pace=10ms")
    headers = {"authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=100)

    async with httpx.AsyncClient(timeout=120, headers=headers, limits=limits) as http:

        async def one(number: int) -> bytes:
            body = chat_body("stub", f"stream-{number}", stream=True)
            answer = await http.post(demo.base_url + "/chat/completions", json=body)
            return answer.content

        bodies = await asyncio.gather(*(one(number) for number in range(100)))
    for number, body in enumerate(bodies):
        assert body.count(b'"content":" ') == 99, body
        assert body.count(f"stream-{number}".encode()) == 33
        assert body.endswith(b"data: [DONE]\n\n")
    eventually(lambda: demo.metric("extproc_exchanges_in_flight") == 0)


def test_requests_that_envoy_ends_alone_are_counted(demo: Gateway):
    """Envoy does not send entries of other requests: see `envoy_config.processor.end_logs`."""
    ends = "extproc_downstream_ends_total"
    left, broken = demo.metric(ends, reason="client_left"), demo.metric(ends, reason="4xx")
    demo.fault("sandbox", "pace=100ms+words=100")
    with demo.stream() as answer:
        next(answer.iter_raw())
    eventually(lambda: demo.metric(ends, reason="client_left") == left + 1)
    assert demo.chat(stream=True).status_code == 200
    assert demo.post("/v1/chat/completions", {}).status_code == 400
    assert demo.post("/v1/nowhere", {}).status_code == 404
    assert httpx.post(demo.base_url + "/models", headers={"a_b": "1"}).status_code == 400
    eventually(lambda: demo.metric(ends, reason="4xx") == broken + 1)
