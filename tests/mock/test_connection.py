"""The HTTP of the built-in mock: what clients may send, the log of requests, disconnects and its command."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from extproc.upstream.mock import Options, serve
from extproc.upstream.mock.connection import MockServer
from extproc.upstream.mock.provider import LOGGED_BODY

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
def server(served) -> MockServer:
    return served[0]


@pytest.fixture
def client(served) -> httpx.AsyncClient:
    return served[1]


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
    monkeypatch.setattr("extproc.upstream.mock.connection.LINGER", 0.01)
    received, _ = await conversation(server, b"NONSENSE\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 Bad Request")


async def test_too_large_a_head_is_refused(server, monkeypatch):
    monkeypatch.setattr("extproc.upstream.mock.connection.LINGER", 0.01)
    received, _ = await conversation(server, b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000)
    assert received.startswith(b"HTTP/1.1 431")


async def test_too_large_a_body_is_a_413_declared_or_not(monkeypatch):
    monkeypatch.setattr("extproc.upstream.mock.connection.LINGER", 0.05)

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


async def until_aborted(client):
    async with asyncio.timeout(2):
        while not (await last_seen(client))["aborted"]:
            await asyncio.sleep(0.01)


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


# --- the command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_serves_until_it_is_stopped(number):
    command = [sys.executable, "-m", "extproc", "mock", "--port", "0", "--name", "one"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        line = (await process.stdout.readline()).decode()
        assert line.startswith("mock provider one listening on http://127.0.0.1:")
        async with httpx.AsyncClient(base_url=line.split()[-1], trust_env=False) as client:
            assert (await client.post(CHAT, json=body())).headers["x-mock-name"] == "one"
            hanging = asyncio.create_task(client.post(CHAT, json=body("stub+hang")))
            await asyncio.sleep(0.05)
            process.send_signal(number)
            with pytest.raises(httpx.TransportError):
                await hanging
        _, stderr = await process.communicate()
        assert (process.returncode, stderr) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
