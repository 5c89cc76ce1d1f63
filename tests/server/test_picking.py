"""Conformance cases of the endpoint-picker protocol, message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from extproc.envoy.server import picking, wire
from extproc.routing.pools.endpoint import Report
from extproc.routing.pools.pool import Pool
from extproc.settings.limits import LimitsSettings
from extproc.upstream.providers import ProviderSettings
from extproc.wire.pb import extproc_pb2 as pb
from tests import certificates
from tests.e2e.conftest import free_ports

KEY = "x-gateway-destination-endpoint"
PATH = "/v1/chat/completions"
PROCESS = f"/{wire.SERVICE}/{wire.METHOD}"
ADDRESSES = [f"10.0.0.{number}:8000" for number in range(4)]


def pool(addresses: Sequence[str] = ADDRESSES, **more: Any) -> Pool:
    settings = {"kind": "vllm", "base_url": "http://pods/v1", "pool": {"serve": "127.0.0.1:9002", **more}}
    found = Pool("llama", ProviderSettings.model_validate(settings))
    found.update(dict.fromkeys(addresses, ""))
    return found


def body(text: str = "Hello") -> bytes:
    return json.dumps({"model": "llama", "messages": [{"role": "user", "content": text}]}).encode()


def message(metadata: dict[str, Any] | None = None, **fields: Any) -> bytes:
    found = pb.ProcessingRequest(**fields)
    for namespace, values in (metadata or {}).items():
        found.metadata_context.filter_metadata[namespace].update(values)
    return found.SerializeToString()


def head(metadata: dict[str, Any] | None = None, *, end: bool = False, **more: str) -> bytes:
    headers = {":path": PATH, ":method": "POST", **more}
    listed = [{"key": key.replace("_", "-"), "raw_value": value.encode()} for key, value in headers.items()]
    return message(metadata, request_headers={"headers": {"headers": listed}, "end_of_stream": end})


def piece(data: bytes, *, end: bool = True) -> bytes:
    return message(request_body={"body": data, "end_of_stream": end})


def call(pool: Pool, limits: LimitsSettings | None = None) -> Any:
    return picking.calls(pool, lambda: limits or LimitsSettings())[PROCESS]({})


async def talk(one: Any, *messages: bytes) -> list[Any]:
    return [pb.ProcessingResponse.FromString(answer) for each in messages for answer in await one.on_message(each)]


def ask(pool: Pool, *messages: bytes) -> list[Any]:
    async def run() -> list[Any]:
        one = call(pool)
        found = await talk(one, *messages)
        await one.on_end()
        return found

    return asyncio.run(run())


def chosen(answer: Any) -> list[str]:
    [header] = answer.request_headers.response.header_mutation.set_headers
    told = answer.dynamic_metadata["envoy.lb"][KEY]
    assert (header.header.key, header.header.raw_value.decode()) == (KEY, told), "header and metadata are equal"
    return told.split(",")


def status(answers: list[Any]) -> int:
    [answer] = answers
    return answer.immediate_response.status.code


def test_the_answer_comes_after_the_body_and_gives_it_back_in_pieces():
    whole = body("x" * 200_000)
    found = ask(pool(), head(), piece(whole[:100_000], end=False), piece(whole[100_000:]))
    assert found[0].WhichOneof("response") == "request_headers"
    pieces = [each.request_body.response.body_mutation.streamed_response for each in found[1:]]
    assert b"".join(each.body for each in pieces) == whole
    assert [each.end_of_stream for each in pieces] == [False] * (len(pieces) - 1) + [True]
    assert max(len(each.body) for each in pieces) < 64 << 10


def test_further_endpoints_are_for_retries_and_differ():
    assert len(chosen(ask(pool(), head(), piece(body()))[0])) == 1, "not every proxy reads a list"
    found = chosen(ask(pool(serve_fallbacks=2), head(), piece(body()))[0])
    assert len({*found}) == len(found) == 3
    assert {*found} < {*ADDRESSES}


def test_a_request_without_a_body_and_one_with_trailers_get_an_endpoint():
    [answer] = ask(pool(), head(end=True))
    assert chosen(answer)
    trailers = message(request_trailers={})
    first, *rest = ask(pool(), head(), piece(body(), end=False), trailers)
    assert chosen(first)
    assert [each.WhichOneof("response") for each in rest] == ["request_body", "request_trailers"]
    assert not rest[0].request_body.response.body_mutation.streamed_response.end_of_stream


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (ADDRESSES[2:3], {ADDRESSES[2]}),
        ([*ADDRESSES[1:3], "10.9.9.9:8000"], {*ADDRESSES[1:3]}),
        (",".join(ADDRESSES[:1]), {ADDRESSES[0]}),
        (["10.9.9.9:8000"], None),
        ([], None),
        ("", None),
    ],
)
def test_a_subset_limits_the_choice_and_without_an_endpoint_of_it_the_answer_is_503(subset, expected):
    found = ask(pool(serve_fallbacks=2), head({"envoy.lb.subset_hint": {f"{KEY}-subset": subset}}), piece(body()))
    assert status(found) == 503 if expected is None else {*chosen(found[0])} == expected


def test_503_without_endpoints_413_for_a_long_body_and_429_when_all_are_full():
    assert status(ask(pool([]), head(), piece(body()))) == 503

    async def long() -> list[Any]:
        one = call(pool(), LimitsSettings(request_body=1024))
        found = await talk(one, head(), piece(b"x" * 1025, end=False))
        assert one.done
        return found

    assert status(asyncio.run(long())) == 413
    full = _full(wait="20s", priority={"batch": -1})
    assert status(ask(full, head(x_gateway_inference_objective="batch"), piece(body()))) == 429, "sheddable: at once"
    assert status(ask(_full(wait="0s"), head(), piece(body()))) == 429


def _full(**more: Any) -> Pool:
    found = pool(**more)
    for each in found.endpoints.values():
        found.report(each, Report(waiting=50.0))
    return found


def test_a_critical_request_waits_for_room_and_a_proxy_that_leaves_frees_its_place():
    async def run() -> None:
        full = _full(wait="20s")
        one, other = call(full), call(full)
        await talk(one, head())
        await talk(other, head())
        waits = [asyncio.ensure_future(each.on_message(piece(body()))) for each in (one, other)]
        while len(full.queue) < 2:
            await asyncio.sleep(0)
        waits[0].cancel()
        await asyncio.wait(waits[:1])
        full.report(full.endpoints[ADDRESSES[1]], Report(waiting=0.0))
        assert chosen(pb.ProcessingResponse.FromString((await waits[1])[0]))[0] == ADDRESSES[1]
        for each in (one, other):
            await each.on_end()
        assert [each.in_flight for each in full.endpoints.values()] == [0] * 4

    asyncio.run(run())


def test_the_endpoint_that_served_counts_the_request_and_gets_the_prompts_that_follow():
    async def run() -> None:
        found, text = pool(serve_fallbacks=1), body("You answer politely. " * 500)
        one = call(found)
        first = chosen((await talk(one, head(), piece(text)))[0])
        assert found.endpoints[first[0]].in_flight == 1
        told = {"envoy.lb": {f"{KEY}-served": first[1]}}
        status = [{"key": ":status", "raw_value": b"200"}]
        answers = await talk(
            one,
            message(told, response_headers={"headers": {"headers": status}}),
            message(response_body={"body": b"data", "end_of_stream": True}),
            message(response_trailers={}),
        )
        kinds = [each.WhichOneof("response") for each in answers]
        assert kinds == ["response_headers", "response_body", "response_trailers"]
        assert answers[1].response_body.response.body_mutation.streamed_response.body == b"data"
        assert [found.endpoints[each].in_flight for each in first[:2]] == [0, 1]
        await one.on_end()
        again = call(found)
        assert chosen((await talk(again, head(), piece(text)))[0])[0] in first[:2]
        await again.on_end()
        assert sum(each.in_flight for each in found.endpoints.values()) == 0

    asyncio.run(run())


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"model": 3, "messages": "x"}', b"\xff" * 99, b"x" * (2 << 20)])
def test_a_body_that_cannot_be_read_is_placed_by_load_alone(data):
    assert chosen(ask(pool(), head(), piece(data))[0])


@pytest.mark.parametrize(
    ("service", "ready", "unready"),
    [("liveness", 1, 1), ("readiness", 1, 2), (wire.SERVICE, 1, 2), ("", 1, 2), ("other", 3, 3)],
)
def test_health_of_each_service(service, ready, unready):
    async def check(found: Pool) -> int:
        asked = pb.HealthCheckRequest(service=service).SerializeToString()
        one = picking.calls(found, LimitsSettings)["/grpc.health.v1.Health/Check"]({})
        [answer] = await one.on_message(asked)
        return pb.HealthCheckResponse.FromString(answer).status

    assert asyncio.run(check(pool())) == ready
    assert asyncio.run(check(pool([]))) == unready


def test_the_picker_listens_with_tls_and_answers_health_checks(tmp_path):
    certificate, key = certificates.make(tmp_path, "picker", hosts=["localhost"])
    files = {"certificate": f"file:{certificate}", "key": f"file:{key}"}
    [port] = free_ports(1)
    found = pool(serve=f"127.0.0.1:{port}", serve_tls=files)

    async def run() -> int:
        serving = asyncio.ensure_future(picking.serve(found, LimitsSettings))
        trusted = grpc.ssl_channel_credentials(Path(certificate).read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{port}", trusted) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer = await check(b"", wait_for_ready=True, timeout=20)
        serving.cancel()
        await asyncio.wait([serving])
        return pb.HealthCheckResponse.FromString(answer).status

    assert asyncio.run(run()) == pb.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("shown", "code"),
    [("edge.example.com", grpc.StatusCode.OK), ("other.example.com", grpc.StatusCode.PERMISSION_DENIED), (None, None)],
)
def test_only_proxies_with_a_named_certificate_may_ask(tmp_path, caplog, shown, code):
    certificate, key = certificates.make(tmp_path, "picker", hosts=["localhost"])
    own, own_key = certificates.make(tmp_path, "proxy", hosts=[shown or "nobody"])
    files = {"certificate": f"file:{certificate}", "key": f"file:{key}"}
    [port] = free_ports(1)
    more = {"client_ca": f"file:{own}", "gateways": ["edge.example.com"]}
    found = pool(serve=f"127.0.0.1:{port}", serve_tls={**files, **more})
    pair = (Path(own_key).read_bytes(), Path(own).read_bytes()) if shown else ()

    async def run() -> grpc.StatusCode:
        serving = asyncio.ensure_future(picking.serve(found, LimitsSettings))
        trusted = grpc.ssl_channel_credentials(Path(certificate).read_bytes(), *pair)
        async with grpc.aio.secure_channel(f"localhost:{port}", trusted) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                await check(b"", wait_for_ready=shown is not None, timeout=20)
                status = grpc.StatusCode.OK
            except grpc.aio.AioRpcError as error:
                status = error.code()
        serving.cancel()
        await asyncio.wait([serving])
        return status

    assert asyncio.run(run()) == (code or grpc.StatusCode.UNAVAILABLE)
    assert "a bug" not in caplog.text


def test_authorities_and_names_of_proxies_go_together():
    tls = {"certificate": "file:/c", "key": "file:/k"}
    for more in ({"client_ca": "file:/ca"}, {"gateways": ["edge"]}):
        with pytest.raises(ValueError, match="go together"):
            pool(serve="127.0.0.1:1", serve_tls=tls | more)


def test_a_key_that_does_not_fit_is_said_and_nothing_listens(tmp_path, caplog):
    certificate, _ = certificates.make(tmp_path, "picker", hosts=["localhost"])
    _, other = certificates.make(tmp_path, "other", hosts=["localhost"])
    [port] = free_ports(1)
    files = {"certificate": f"file:{certificate}", "key": f"file:{other}"}
    found = pool(serve=f"127.0.0.1:{port}", serve_tls=files)

    async def run() -> None:
        serving = asyncio.ensure_future(picking.serve(found, LimitsSettings))
        while "no endpoint picker" not in caplog.text:
            await asyncio.sleep(0.01)
        serving.cancel()
        await asyncio.wait([serving])

    asyncio.run(asyncio.wait_for(run(), 20))
    assert "does not fit its private key" in caplog.text
    assert "listens on" not in caplog.text
