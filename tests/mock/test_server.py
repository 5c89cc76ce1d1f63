from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import shutil
import signal
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from operator import sub
from pathlib import Path

import httpx
import openai
import pytest

import tests.doubles as mock_module
from extproc.mock.provider import LOGGED_BODY
from tests.doubles import Options, faults, serve
from tests.doubles.server import Server

ROOT = Path(__file__).parents[2]
MESSAGES = [{"role": "user", "content": "hello there"}]
CHAT = "/v1/chat/completions"


def body(model="stub", **more):
    return {"model": model, "messages": MESSAGES, **more}


def request_bytes(document, path=CHAT, *headers):
    data = json.dumps(document).encode()
    lines = [f"POST {path} HTTP/1.1", "host: mock", f"content-length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


@asynccontextmanager
async def serving(**options):
    server = await serve(Options(**options))
    try:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=5, verify=False) as client:
            yield server, client
    finally:
        await server.close()


@pytest.fixture
async def served():
    async with serving() as both:
        yield both


@pytest.fixture
def server(served) -> Server:
    return served[0]


@pytest.fixture
def client(served) -> httpx.AsyncClient:
    return served[1]


@pytest.fixture
async def sdk(server):
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="sk-test", max_retries=0) as sdk:
        yield sdk


async def conversation(server, data):
    """The server's answers to these bytes until it closes, and whether it closed with a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    received, was_reset = b"", False
    try:
        async with asyncio.timeout(5):
            while piece := await reader.read(65536):
                received += piece
    except ConnectionResetError:
        was_reset = True
    writer.close()
    return received, was_reset


async def events(client, model, **more):
    """The data of each event of a stream."""
    async with client.stream("POST", CHAT, json=body(model, stream=True, **more)) as answer:
        assert answer.status_code == 200
        return [line.removeprefix("data: ") async for line in answer.aiter_lines() if line]


async def last_seen(client):
    return (await client.get("/requests")).json()[-1]


# --- the API, through the official SDK


async def test_the_sdk_reads_a_chat(sdk):
    completion = await sdk.chat.completions.create(**body("gpt-4o"))
    assert completion.choices[0].message.content == "You said: hello there"
    assert completion.usage.total_tokens == 6
    assert completion.system_fingerprint == "fp_mock"
    assert completion.model == "gpt-4o"


async def test_the_sdk_reads_a_stream(sdk):
    options = {"include_usage": True}
    stream = await sdk.chat.completions.create(**body("gpt-4o", stream=True, stream_options=options))
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "You said: hello there"
    assert chunks[-1].usage.completion_tokens == 4
    assert len(chunks) == 7


async def test_the_sdk_reads_a_streamed_tool_call(sdk):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    async with sdk.chat.completions.stream(**body("gpt-4o", tools=tools)) as stream:
        completion = await stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "stub"})
    assert completion.choices[0].finish_reason == "tool_calls"


async def test_the_sdk_reads_the_same_embeddings_in_both_encodings(sdk):
    by_default = await sdk.embeddings.create(model="e", input=["a", "b"], dimensions=16)
    as_floats = await sdk.embeddings.create(model="e", input=["a", "b"], dimensions=16, encoding_format="float")
    assert len(by_default.data[0].embedding) == 16
    assert by_default.data[1].embedding == pytest.approx(as_floats.data[1].embedding)


async def test_the_sdk_lists_models(sdk):
    assert "gpt-4o" in [model.id async for model in sdk.models.list()]
    assert (await sdk.models.retrieve("any/name")).id == "any/name"


async def test_the_sdk_reads_the_errors(sdk):
    with pytest.raises(openai.RateLimitError) as limited:
        await sdk.chat.completions.create(**body("gpt-4o+status=429+retry_after=7"))
    assert limited.value.response.headers["retry-after"] == "7"
    assert limited.value.code == "mock_fault"
    with pytest.raises(openai.BadRequestError, match="unknown fault 'odd'"):
        await sdk.chat.completions.create(**body("gpt-4o+odd"))
    with pytest.raises(openai.APIError, match="errorevent"):
        async for _ in await sdk.chat.completions.create(**body("gpt-4o+errorevent=2", stream=True)):
            pass


# --- HTTP


async def test_the_same_request_gives_the_same_bytes(client):
    one, two = [await client.post(CHAT, json=body()) for _ in range(2)]
    assert one.content == two.content
    assert one.headers["x-mock-name"] == "mock"
    assert [each.headers["x-request-id"] for each in (one, two)] == ["mock-1", "mock-2"]
    other = await client.post(CHAT, json=body(user="else"))
    assert other.json()["id"] != one.json()["id"]


async def test_connections_are_kept_and_requests_may_be_pipelined(server):
    data = request_bytes(body("stub", stream=True)) + request_bytes(body()) + request_bytes(body("stub+words=3"))
    received, _ = await conversation(server, data + request_bytes(body(), CHAT, "connection: close"))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert received.count(b"connection: close\r\n") == 1


async def test_requests_may_arrive_byte_by_byte(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for byte in request_bytes(body(), CHAT, "connection: close"):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert b"You said: hello there" in await reader.read()
    writer.close()


async def test_http_1_0_clients_get_a_stream_without_chunks(server):
    data = request_bytes(body("stub", stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    received, _ = await conversation(server, data)
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert rest.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_expect_continue_is_answered(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head, _, data = request_bytes(body(), CHAT, "expect: 100-continue", "connection: close").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(data)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 404),
        ("POST", "/openai/v1/chat/completions", 404),
        ("POST", "/v1/completions", 404),
        ("GET", "/v1/models/", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models/gpt-4o", 405),
        ("POST", "/requests", 405),
        ("GET", "/v1/models", 200),
        ("GET", "/healthz", 200),
    ],
)
async def test_unknown_paths_and_methods_are_refused(client, method, path, status):
    answer = await client.request(method, path)
    assert answer.status_code == status
    if status >= 400:
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_head_has_no_body(server):
    received, _ = await conversation(server, b"HEAD /v1/models HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 405")
    assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b'{"model": 3}', b'{"messages": []}'])
async def test_a_wrong_body_is_a_400(client, content):
    answer = await client.post(CHAT, content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_bytes_that_are_not_http_are_a_400(server, monkeypatch):
    monkeypatch.setattr("extproc.mock.connection.LINGER", 0.01)
    received, _ = await conversation(server, b"NONSENSE\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 Bad Request")


async def test_too_large_a_head_is_refused(server, monkeypatch):
    monkeypatch.setattr("extproc.mock.connection.LINGER", 0.01)
    received, _ = await conversation(server, b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000)
    assert received.startswith(b"HTTP/1.1 431")


async def test_too_large_a_body_is_a_413_declared_or_not(monkeypatch):
    monkeypatch.setattr("extproc.mock.connection.LINGER", 0.05)

    async def chunks():
        for _ in range(3):
            yield b"x" * 500

    async with serving(body_limit=1000) as (_, client):
        for content in (b"x" * 1001, chunks()):
            answer = await client.post(CHAT, content=content)
            assert answer.status_code == 413
            assert answer.headers["connection"] == "close"
        assert (await client.post(CHAT, content=b"x" * 1000)).status_code == 400
    assert Options().body_limit == 64 * 2**20


async def test_a_wrong_key_is_refused():
    async with serving(api_key="sk-1") as (_, client):
        good = [{"authorization": "Bearer sk-1"}, {"x-api-key": "sk-1"}, {"api-key": "sk-1"}]
        for headers in good:
            assert (await client.post(CHAT, json=body(), headers=headers)).status_code == 200
        for headers in [{}, {"authorization": "sk-1"}, {"x-api-key": "sk-2"}]:
            answer = await client.post(CHAT, json=body(), headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/requests")).status_code == 200


# --- the log of requests


async def test_requests_are_kept(client):
    await client.post(CHAT + "?api-version=1", json=body(), headers=[("X-Tag", "a"), ("X-Tag", "b")])
    await client.post("/nowhere", content=b"not json")
    await client.get("/healthz")
    seen, lost = (await client.get("/requests")).json()
    assert (seen["method"], seen["path"], seen["status"]) == ("POST", CHAT + "?api-version=1", 200)
    assert [value for name, value in seen["headers"] if name == "x-tag"] == ["a", "b"]
    assert seen["body"] == body()
    assert seen["aborted"] is False
    assert (lost["path"], lost["status"], lost["body"], lost["body_length"]) == ("/nowhere", 404, None, 8)
    assert (await client.get("/requests?count")).json() == {"count": 2}


async def test_the_log_is_bounded():
    async with serving(log_size=2) as (_, client):
        await client.post(CHAT, json=body(user="x" * LOGGED_BODY))
        kept = await last_seen(client)
        assert kept["body"] is None
        assert kept["body_length"] > LOGGED_BODY
        for _ in range(3):
            await client.get("/v1/models")
        assert len((await client.get("/requests")).json()) == 2
        assert (await client.get("/requests?count")).json() == {"count": 4}


async def test_events_are_counted(client):
    assert len(await events(client, "stub")) == 7
    assert (await last_seen(client))["events"] == 7


async def test_a_control_request_sets_and_clears_the_fault():
    async with serving(fault="status=500") as (_, client):
        assert (await client.post(CHAT, json=body())).status_code == 500
        assert (await client.get("/v1/models")).status_code == 500
        answer = await client.put("/control", json={"fault": "status=503+every=3"})
        assert answer.json() == {"fault": "status=503+every=3"}
        statuses = [(await client.post(CHAT, json=body())).status_code for _ in range(6)]
        assert statuses == [200, 200, 503, 200, 200, 503]
        assert (await client.request("DELETE", "/control")).status_code == 200
        assert (await client.get("/requests?count")).json() == {"count": 0}
        assert [(await client.post(CHAT, json=body())).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("content", [b"", b'{"fault": 3}', b'{"fault": "odd"}'])
async def test_an_unknown_control_request_is_refused(client, content):
    assert (await client.put("/control", content=content)).status_code == 400


async def test_a_models_faults_are_added_to_the_servers():
    async with serving(fault="words=3+status=500") as (_, client):
        assert (await client.post(CHAT, json=body("stub+status=503"))).status_code == 503
    async with serving(fault="words=3") as (_, client):
        answer = await client.post(CHAT, json=body("stub+forge"))
        assert answer.headers["x-ai-provider"] == "forged"
        assert answer.json()["usage"]["completion_tokens"] == 3


# --- faults


@pytest.mark.parametrize("streamed", [False, True])
async def test_status_sets_the_status(client, streamed):
    answer = await client.post(CHAT, json=body("stub+status=503", stream=streamed))
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "server_error"


async def test_every_and_first_count_per_model(client):
    async def statuses(model, count):
        return [(await client.post(CHAT, json=body(model))).status_code for _ in range(count)]

    assert await statuses("stub+status=503+every=2", 3) == [200, 503, 200]
    assert await statuses("other+status=503+every=2", 2) == [200, 503]
    assert await statuses("stub+status=503+first=1", 3) == [503, 200, 200]
    await client.request("DELETE", "/control")
    assert await statuses("stub+status=503+first=1", 2) == [503, 200]


async def test_delay_comes_before_the_headers(client):
    started = time.monotonic()
    async with client.stream("POST", CHAT, json=body("stub+delay=100ms", stream=True)):
        assert time.monotonic() - started >= 0.1


async def test_pace_comes_between_events(client):
    started = time.monotonic()
    assert len(await events(client, "stub+pace=20ms")) == 7
    assert time.monotonic() - started >= 6 * 0.02


@pytest.mark.parametrize("streamed", [False, True])
async def test_pause_comes_in_the_middle(client, streamed):
    async with client.stream("POST", CHAT, json=body("stub+pause=150ms", stream=streamed)) as answer:
        arrivals = [time.monotonic() async for _ in answer.aiter_bytes()]
    assert len([gap for gap in map(sub, arrivals[1:], arrivals) if gap > 0.1]) == 1


async def test_words_sets_the_number_of_words(client):
    assert len(await events(client, "stub+words=40")) == 40 + 3


async def test_cut_leaves_a_stream_without_its_end(client, server):
    with pytest.raises(httpx.RemoteProtocolError):
        await events(client, "stub+cut=3")
    seen = await last_seen(client)
    assert (seen["events"], seen["aborted"]) == (3, False)
    received, was_reset = await conversation(server, request_bytes(body("stub+cut=3", stream=True)))
    assert received.count(b"data: ") == 3
    assert not received.endswith(b"0\r\n\r\n")
    assert not was_reset
    received, _ = await conversation(server, request_bytes(body("stub+cut=1000", stream=True)))
    assert b"[DONE]" in received
    assert not received.endswith(b"0\r\n\r\n")


async def test_cut_leaves_a_plain_answer_half_sent(client):
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(CHAT, json=body("stub+cut=0"))


async def test_reset_resets_the_connection(server):
    assert await conversation(server, request_bytes(body("stub+reset"))) == (b"", True)
    received, was_reset = await conversation(server, request_bytes(body("stub+reset=3", stream=True)))
    assert (received.count(b"data: "), was_reset) == (3, True)
    received, was_reset = await conversation(server, request_bytes(body("stub+reset=1")))
    assert (received.startswith(b"HTTP/1.1 200 OK"), received.endswith(b"}"), was_reset) == (True, False, True)


async def test_hang_never_answers_and_sees_the_client_leave(client):
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CHAT, json=body("stub+hang"), timeout=0.1)
    await until_aborted(client)


async def until_aborted(client):
    async with asyncio.timeout(2):
        while not (await last_seen(client))["aborted"]:
            await asyncio.sleep(0.01)


async def test_garbage_and_badjson_are_no_json(client):
    garbage = await client.post(CHAT, json=body("stub+garbage", stream=True))
    assert (garbage.status_code, garbage.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert garbage.text.startswith("<!doctype html>")
    bad = await client.post(CHAT, json=body("stub+badjson"))
    assert (bad.status_code, bad.headers["content-type"]) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        bad.json()
    page = await client.post(CHAT, json=body("stub+status=502+garbage"))
    assert (page.status_code, page.text) == (502, garbage.text)


async def test_size_sets_the_size(client):
    answer = await client.post(CHAT, json=body("stub+size=3MB"))
    assert len(answer.content) == 3_000_000
    assert answer.json()["choices"][0]["message"]["content"] == "You said: hello there"


async def test_headers_and_forge_add_headers(client):
    answer = await client.post(CHAT, json=body("stub+headers=200+forge", stream=True))
    assert answer.headers["x-mock-extra-199"] == "199"
    assert answer.headers["x-extproc-origin"] == "hop"
    assert answer.headers["x-ai-provider"] == "forged"
    assert answer.headers["x-envoy-overloaded"] == "true"


async def test_gzip_compresses_the_answer(client, server):
    identity = {"accept-encoding": "identity"}
    answer = await client.post(CHAT, json=body("stub+gzip"), headers=identity)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["object"] == "chat.completion"
    assert (await events(client, "stub+gzip"))[-1] == "[DONE]"
    assert (await last_seen(client))["events"] == 7
    data = request_bytes(body("stub+gzip", stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    raw = (await conversation(server, data))[0].partition(b"\r\n\r\n")[2]
    assert gzip.decompress(raw).endswith(b"data: [DONE]\n\n")


async def test_false_usage_reaches_the_wire(client):
    answer = await client.post(CHAT, json=body("stub+usage=negative"))
    assert answer.json()["usage"]["prompt_tokens"] == -2
    sent = await events(client, "stub+usage=early", stream_options={"include_usage": True})
    assert json.loads(sent[-4])["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("crlf", b"data: [DONE]\r\n\r\n"),
        ("cr", b"data: [DONE]\r\r"),
        ("nospace", b"data:[DONE]\n\n"),
        ("comments", b": keep-alive\n\ndata: [DONE]\n\n"),
        ("multiline", b'data:  "usage": null\ndata: }\n\ndata: [DONE]\n\n'),
        ("nodone", b'"usage":null}\n\n'),
        ("twodone", b"data: [DONE]\n\ndata: [DONE]\n\n"),
        ("nofinal", b'"usage":null}\n\ndata: [DONE]'),
    ],
)
async def test_sse_styles_reach_the_wire(client, style, expected):
    asked = body(f"stub+usage=early+sse={style}", stream=True, stream_options={"include_usage": True})
    answer = await client.post(CHAT, json=asked)
    assert answer.content.endswith(expected)


async def test_split_sends_every_byte_alone(server):
    received, _ = await conversation(
        server, request_bytes(body("stub+sse=split", stream=True), CHAT, "connection: close")
    )
    chunks = received.partition(b"\r\n\r\n")[2]
    assert chunks.startswith(b"1\r\nd\r\n1\r\na\r\n1\r\nt\r\n1\r\na\r\n1\r\n:\r\n")


async def test_errorevent_ends_the_stream_cleanly(client, server):
    sent = await events(client, "stub+errorevent=3")
    assert len(sent) == 4
    assert json.loads(sent[-1])["error"]["type"] == "server_error"
    data = request_bytes(body("stub+errorevent=3", stream=True)) + request_bytes(body(), CHAT, "connection: close")
    received, _ = await conversation(server, data)
    _, received, following = received.split(b"HTTP/1.1 200")
    assert following  # the connection stays open
    assert received.endswith(b"}\n\n\r\n0\r\n\r\n")


async def test_cached_tokens_are_reported(client):
    usage = (await client.post(CHAT, json=body("stub+cached=1"))).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 1}
    usage = (await client.post(CHAT, json=body("stub+cached=99"))).json()["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]) == (2, {"cached_tokens": 2})


async def test_corrupt_damages_one_event(client):
    sent = await events(client, "stub+corrupt=1+sse=multiline")
    assert sent[-1] == "[DONE]"
    with pytest.raises(json.JSONDecodeError):
        json.loads(sent[1])
    assert json.loads(sent[2])["choices"][0]["delta"] == {"content": " said:"}


def test_every_fault_has_a_test_here():
    source = Path(__file__).read_text()
    assert [name for name in faults.READERS if f"+{name}" not in source] == []


# --- clients that disconnect


@pytest.mark.parametrize("model", ["stub+pace=30s", "stub+pause=30s", "stub+words=100000"])
async def test_a_client_that_disconnects_ends_the_stream(client, server, model):
    async with client.stream("POST", CHAT, json=body(model, stream=True)) as answer:
        async for _ in answer.aiter_bytes():
            break
    await until_aborted(client)
    assert (await last_seen(client))["events"] < 100_000
    assert len(server.connections) <= 1  # the connection of this request


async def test_a_client_that_does_not_read_holds_up_its_stream(server, client):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(request_bytes(body("stub+words=100000", stream=True)))
    await reader.readline()
    previous, count = -1, 0
    async with asyncio.timeout(5):
        while count == 0 or count != previous:
            await asyncio.sleep(0.1)
            previous, count = count, (await last_seen(client))["events"]
    assert count < 100_000
    writer.close()
    await until_aborted(client)


async def test_a_client_that_sends_without_end_during_an_answer_is_dropped(server):
    received, _ = await conversation(server, request_bytes(body("stub+hang")) + b"x" * 1_000_000)
    assert received == b""


async def test_closing_the_server_ends_open_answers():
    async with serving() as (server, client):
        asking = asyncio.create_task(client.post(CHAT, json=body("stub+hang")))
        while (await client.get("/requests?count")).json()["count"] == 0:
            await asyncio.sleep(0.01)
        await server.close()
        with pytest.raises(httpx.TransportError):
            await asking


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("delay", [0.0, 0.2])
async def test_tls_starts_at_once_or_late(certificate, delay):
    cert, key = certificate
    async with serving(tls_cert=cert, tls_key=key, tls_delay=delay) as (server, _):
        context = ssl.create_default_context(cafile=cert)
        started = time.monotonic()
        async with httpx.AsyncClient(base_url=server.url, verify=context, trust_env=False) as client:
            assert (await client.post(CHAT, json=body())).status_code == 200
            assert time.monotonic() - started >= delay
            assert (await events(client, "stub"))[-1] == "[DONE]"
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(base_url=server.url, verify=context, trust_env=False) as client:
                await client.post(CHAT, json=body("stub+reset"))


async def test_a_client_may_disconnect_before_the_handshake(certificate):
    cert, key = certificate
    async with serving(tls_cert=cert, tls_key=key, tls_delay=0.05) as (server, _):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        await asyncio.sleep(0.1)
        assert not server.connections
        async with httpx.AsyncClient(base_url=server.url, verify=False, trust_env=False) as client:
            assert (await client.get("/healthz")).status_code == 200


# --- the command


@asynccontextmanager
async def command(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.doubles", *arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_serves_until_it_is_stopped(certificate, number):
    cert, key = certificate
    arguments = ["--port", "0", "--name", "one", "--tls-cert", str(cert), "--tls-key", str(key), "--tls-delay", "10ms"]
    async with command(*arguments) as process:
        line = (await process.stdout.readline()).decode()
        assert line.startswith("mock provider one listening on https://127.0.0.1:")
        context = ssl.create_default_context(cafile=cert)
        async with httpx.AsyncClient(base_url=line.split()[-1], verify=context, trust_env=False) as client:
            answer = await client.post(CHAT, json=body())
            assert (answer.headers["x-mock-name"], answer.json()["system_fingerprint"]) == ("one", "fp_one")
            assert (await events(client, "stub+sse=comments,split"))[-1] == "[DONE]"
            with pytest.raises(httpx.TransportError):
                await client.post(CHAT, json=body("stub+reset"))
            hanging = asyncio.create_task(client.post(CHAT, json=body("stub+hang")))
            await asyncio.sleep(0.05)
            process.send_signal(number)
            with pytest.raises(httpx.TransportError):
                await hanging
        _, stderr = await process.communicate()
        assert (process.returncode, stderr) == (0, b"")


async def test_the_command_resets_and_cuts_like_the_server_in_tests():
    async with command("--port", "0", "--fault", "words=3") as process:
        url = httpx.URL((await process.stdout.readline()).decode().split()[-1])
        assert await conversation(url, request_bytes(body("stub+reset"))) == (b"", True)
        received, was_reset = await conversation(url, request_bytes(body("stub+reset=2", stream=True)))
        assert (received.count(b"data: "), was_reset) == (2, True)
        received, was_reset = await conversation(url, request_bytes(body("stub+cut=2", stream=True)))
        assert (received.count(b"data: "), received.endswith(b"\n\n\r\n"), was_reset) == (2, True, False)


async def test_a_port_in_use_is_reported(server):
    async with command("--port", str(server.port)) as process:
        _, stderr = await process.communicate()
        assert process.returncode == 1
        assert b"mock provider mock cannot serve: " in stderr


def test_help_prints_the_table_and_wrong_faults_are_refused(capsys):
    parser = argparse.ArgumentParser(prog="mock")
    mock_module.add_arguments(parser)
    assert faults.__doc__.strip() in parser.format_help()
    assert parser.parse_args(["--tls-delay", "300ms"]).tls_delay == 0.3
    for arguments in (["--fault", "odd"], ["--tls-delay", "soon"]):
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
    assert "unknown fault 'odd'" in capsys.readouterr().err
