"""One request at a time, blocking and not: bounded in time and size. See test_pool for the answers that are errors."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from extproc.wire.outbound.client import ask, send
from tests.outbound.endpoint import drip, drip_the_body, drip_without_length, endless, endpoint, reply, silence

MOST = 1000


async def blocking(url, body=None, headers=None, *, timeout=5.0, most=MOST):
    return await asyncio.to_thread(ask, url, body, headers, timeout=timeout, most=most)


async def waiting(url, body=None, headers=None, *, timeout=5.0, most=MOST):
    return await send(url, body, headers, timeout=timeout, most=most)


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


@pytest.mark.parametrize("status", [201, 302, 307, 401, 404, 500])
async def test_every_status_is_returned_and_no_redirect_is_followed(status):
    with endpoint(reply(b"", status, location="http://127.0.0.1:1/")) as (address, asked):
        assert await waiting(f"http://{address}/") == (status, b"")
    assert len(asked) == 1


@pytest.mark.parametrize("length", [MOST - 1, MOST, MOST + 1, 100_000])
async def test_one_byte_more_than_the_limit_is_read(length):
    with endpoint(reply(b"x" * length)) as (address, _):
        assert await waiting(f"http://{address}/") == (200, b"x" * min(length, MOST + 1))


async def test_an_endless_answer_is_cut():
    with endpoint(endless) as (address, _):
        status, body = await waiting(f"http://{address}/")
    assert (status, len(body)) == (200, MOST + 1)


@both
@pytest.mark.parametrize("answer", [silence, drip, drip_the_body, drip_without_length])
async def test_a_slow_answer_ends_at_the_time_limit(call, answer):
    began = time.monotonic()
    with endpoint(answer) as (address, _):
        with pytest.raises(TimeoutError):
            await call(f"http://{address}/", timeout=0.3)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999/", "http://127.0.0.1:port/", "http://a/\r\nb:c"]
)
async def test_a_malformed_url_is_an_error(url):
    with pytest.raises((ValueError, OSError)):
        await waiting(url)


async def test_an_untrusted_certificate_is_an_error():
    with endpoint(reply(b"")) as (address, _), pytest.raises(OSError):
        await waiting(f"https://{address}/")


async def test_a_request_can_be_cancelled():
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
