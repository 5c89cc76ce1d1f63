"""Kept connections to one service: reuse, limits, and services that do not keep to HTTP."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time

import pytest

from extproc.wire.outbound import pool as pools
from extproc.wire.outbound.pool import AnswerError, ConnectionPool, is_metadata
from tests.outbound.endpoint import drip, endless, endpoint, keeping, raw, reply, silence

HEADERS = {"content-type": "application/json"}


@pytest.fixture
async def made():
    """Makes pools, whose connections are closed at the end."""
    found = []

    def make(url, **settings):
        found.append(ConnectionPool(url, **settings))
        return found[-1]

    yield make
    for pool in found:
        pool.close()
    for _ in range(5):
        await asyncio.sleep(0.005)  # transports close in the turns that follow


async def test_a_connection_is_used_again(made):
    with keeping(reply(b'{"a": 1}')) as (address, connections):
        pool = made(f"http://{address}")
        for _ in range(3):
            assert await pool.post("/x?y=1", b"{}", HEADERS) == (200, b'{"a": 1}')
        assert len(connections) == 1
        await asyncio.gather(*(pool.post("/", b"{}", HEADERS) for _ in range(3)))
        assert 1 < len(connections) <= 3


async def test_a_request_has_a_length_and_its_headers(made):
    with endpoint(reply(b"{}", 418)) as (address, asked):
        assert await made(f"http://{address}").post("/a?b=c", b"body", {"x-mine": "1"}) == (418, b"{}")
    [(method, target, headers, body)] = asked
    assert (method, target, body) == ("POST", "/a?b=c", "body")
    assert {"host": address, "x-mine": "1", "content-length": "4"} == headers


async def test_a_connection_that_the_service_closed_meanwhile_is_replaced(made):
    def answer(handler):
        reply(b"{}")(handler)
        handler.close_connection = True  # without saying so

    with keeping(answer) as (address, connections):
        pool = made(f"http://{address}")
        for _ in range(3):
            assert await pool.post("/", b"{}", HEADERS) == (200, b"{}")
        assert len(connections) == 3


@pytest.mark.parametrize("wait", [0.0, 0.03])
async def test_an_answer_to_nothing_is_never_the_answer_to_the_next_request(made, wait):
    """A service that answers twice could let one request be judged by the verdict on another."""
    count = 0

    def answer(handler):
        nonlocal count
        count += 1
        first = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % count
        second = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale"
        handler.wfile.write(first + second if not wait else first)
        time.sleep(wait)
        handler.wfile.write(b"" if not wait else second)

    with keeping(answer) as (address, _):
        pool = made(f"http://{address}")
        for number in range(1, 4):
            assert await pool.post("/", b"{}", HEADERS) == (200, b"%d" % number)
            await asyncio.sleep(2 * wait)


async def test_a_connection_is_not_used_after_it_was_idle_for_long(made, monkeypatch):
    with keeping(reply(b"{}")) as (address, connections):
        monkeypatch.setattr(pools, "IDLE", 0.01)
        pool = made(f"http://{address}")
        await pool.post("/", b"{}", HEADERS)
        while pool._idle:
            await asyncio.sleep(0.005)  # closed without another request
        await pool.post("/", b"{}", HEADERS)
        assert len(connections) == 2


async def test_no_redirect_is_followed_and_no_proxy_is_used(made, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with endpoint(reply(b"", 307, location="http://127.0.0.1:1/")) as (address, asked):
        assert await made(f"http://{address}").post("/", b"{}", HEADERS) == (307, b"")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        endless,
        reply(b"x" * 1001),
        raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200),
        raw(b"HTTP/1.1 200 OK\r\na: " + b"x" * 70_000),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{"),
        raw(b""),
    ],
)
async def test_an_answer_that_is_too_large_or_no_http_is_an_error(made, answer):
    with endpoint(answer) as (address, asked), pytest.raises(AnswerError):
        await made(f"http://{address}", most=1000).post("/", b"{}", HEADERS)
    assert len(asked) == 1


@pytest.mark.parametrize("answer", [silence, drip])
async def test_a_slow_answer_can_be_cancelled(made, answer):
    began = time.monotonic()
    with endpoint(answer) as (address, _):
        pool = made(f"http://{address}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.post("/", b"{}", HEADERS)
        assert pool._idle == []
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("target", "headers"), [("/a b", {}), ("/", {"x": "1\r\ny: 2"})])
async def test_a_request_that_cannot_be_sent_is_an_error(made, target, headers):
    with endpoint(reply(b"{}")) as (address, asked), pytest.raises(ValueError, match="Illegal"):
        await made(f"http://{address}").post(target, b"{}", headers)
    assert asked == []


async def test_a_host_that_cannot_be_reached_is_an_error(made):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            await made(f"http://127.0.0.1:{probe.getsockname()[1]}").post("/", b"{}", HEADERS)


async def test_a_name_that_leads_to_a_metadata_service_is_refused(made, monkeypatch):
    """The address is looked at after the name was resolved."""
    monkeypatch.setattr(pools, "is_metadata", lambda host: host == "127.0.0.1")
    with endpoint(reply(b"{}")) as (address, asked), pytest.raises(ConnectionRefusedError):
        await made(f"http://{address}").post("/", b"{}", HEADERS)
    assert asked == []


def test_metadata_services():
    for host in ("169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "fd00:ec2::254", "224.0.0.1"):
        assert is_metadata(host), host
    for host in ("127.0.0.1", "10.0.0.1", "::1", "example.com", "93.184.216.34"):
        assert not is_metadata(host), host


async def test_tls_is_verified(made, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    options = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, *options], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with keeping(reply(b"{}"), tls=tls) as (address, _):
        assert await made(f"https://{address}", ca=str(certificate)).post("/", b"{}", HEADERS) == (200, b"{}")
        assert await made(f"https://{address}", verify=False).post("/", b"{}", HEADERS) == (200, b"{}")
        with pytest.raises(OSError):
            await made(f"https://{address}").post("/", b"{}", HEADERS)
        with pytest.raises(OSError):
            port = address.rpartition(":")[2]
            await made(f"https://localhost:{port}", ca=str(certificate)).post("/", b"{}", HEADERS)
