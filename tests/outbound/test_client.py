"""The HTTP client, blocking and not: bounded in time and size, no redirects, no proxies."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time

import pytest

from extproc.wire.outbound.client import AnswerError, ask, send
from tests.outbound.endpoint import (
    drip,
    drip_the_body,
    drip_without_length,
    endless,
    endpoint,
    raw,
    reply,
    silence,
)

MOST = 1000


async def blocking(url, body=None, headers=None, *, timeout=5.0, most=MOST):
    return await asyncio.to_thread(ask, url, body, headers, timeout=timeout, most=most)


async def waiting(url, body=None, headers=None, *, timeout=5.0, most=MOST):
    return await send(url, body, headers, timeout=timeout, most=most)


@pytest.fixture(autouse=True)
async def no_thread_is_left():
    """No thread is left running at the end: it would delay the end of the process."""
    yield
    await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 5)


both = pytest.mark.parametrize("call", [blocking, waiting], ids=["ask", "send"])


@both
async def test_get_and_post_are_sent(call):
    with endpoint(reply(b'{"a": 1}')) as (address, asked):
        assert await call(f"http://{address}/path?query=1#fragment") == (200, b'{"a": 1}')
        assert await call(f"http://{address}", b"body", {"x-mine": "1"}) == (200, b'{"a": 1}')
    (get, path, _, nothing), (post, root, headers, body) = asked
    assert (get, path, nothing) == ("GET", "/path?query=1", "")
    assert (post, root, headers["x-mine"], body) == ("POST", "/", "1", "body")
    assert headers["connection"] == "close"


@both
@pytest.mark.parametrize("status", [201, 302, 307, 401, 404, 500])
async def test_every_status_is_returned_and_no_redirect_is_followed(call, status):
    with endpoint(reply(b"", status, location="http://127.0.0.1:1/")) as (address, asked):
        assert await call(f"http://{address}/") == (status, b"")
    assert len(asked) == 1


@both
async def test_proxies_of_the_environment_are_not_used(call, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with endpoint(reply(b"here")) as (address, _):
        assert await call(f"http://{address}/") == (200, b"here")


@both
@pytest.mark.parametrize("length", [MOST - 1, MOST, MOST + 1, 100_000])
async def test_one_byte_more_than_the_limit_is_read(call, length):
    with endpoint(reply(b"x" * length)) as (address, _):
        assert await call(f"http://{address}/") == (200, b"x" * min(length, MOST + 1))


@both
async def test_an_endless_answer_is_cut(call):
    with endpoint(endless) as (address, _):
        status, body = await call(f"http://{address}/")
    assert (status, len(body)) == (200, MOST + 1)


@both
@pytest.mark.parametrize("answer", [silence, drip, drip_the_body, drip_without_length])
async def test_a_slow_answer_ends_at_the_time_limit(call, answer):
    began = time.monotonic()
    with endpoint(answer) as (address, _):
        with pytest.raises(TimeoutError):
            await call(f"http://{address}/", timeout=0.3)
        assert time.monotonic() - began < 2


@both
@pytest.mark.parametrize(
    "answer",
    [
        raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200),
        raw(b"HTTP/1.1 200 OK\r\na: " + b"x" * 70_000),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{"),
    ],
)
async def test_an_incomplete_http_answer_is_an_error(call, answer):
    with endpoint(answer) as (address, _), pytest.raises(AnswerError):
        await call(f"http://{address}/")


@both
async def test_an_unknown_host_is_an_error(call):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            await call(f"http://127.0.0.1:{probe.getsockname()[1]}/")


@both
@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999/", "http://127.0.0.1:port/", "http://a/\r\nb:c"]
)
async def test_a_malformed_url_is_an_error(call, url):
    with pytest.raises((ValueError, http.client.InvalidURL, OSError)):
        await call(url)


@both
async def test_an_untrusted_certificate_is_an_error(call):
    with endpoint(reply(b"")) as (address, _), pytest.raises(OSError):
        await call(f"https://{address}/")


async def test_cancelling_ends_the_thread_and_the_loop_continues():
    begun = threading.Event()

    def answer(handler):
        begun.set()
        silence(handler)

    with endpoint(answer) as (address, _):
        task = asyncio.create_task(send(f"http://{address}/", timeout=30))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
