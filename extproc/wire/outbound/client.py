"""One HTTP request over its own connection, bounded in time and answer size. See `pool`.

`ask` blocks, for the command line and threads. `send` leaves the event loop free, for the processor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from extproc.wire.outbound.pool import AnswerError, ConnectionPool

__all__ = ("AnswerError", "ask", "ask_whole", "send")


def ask(
    url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, timeout: float, most: int
) -> tuple[int, bytes]:
    """GET, or POST of `body`. Returns the status and up to `most` + 1 bytes of the answer. Raises as `ask_whole`."""
    return asyncio.run(send(url, body, headers, timeout=timeout, most=most))


def ask_whole(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float,
    most: int,
    verify: bool = True,
    method: str = "",
    sink: Callable[[bytes], None] | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """`ask` with any `method`. Returns the answer's headers too, by lower-case name. `verify=False` accepts any
    certificate: for this machine alone, whose name differs from the certificate's. `sink`: see `ConnectionPool.ask`.

    Raises TimeoutError after `timeout` seconds, OSError when the host cannot be reached, ValueError for a malformed
    URL, AnswerError for an answer that is not HTTP or ends early.
    """
    return asyncio.run(_exchange(url, body, headers, timeout, most, verify=verify, method=method, sink=sink))


async def send(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float,  # noqa: ASYNC109 - a limit for the whole request
    most: int = 64 << 10,
    guarded: bool = False,
) -> tuple[int, bytes]:
    """`ask` on the event loop. `guarded` refuses metadata services, for addresses that are not the operator's."""
    status, _, data = await _exchange(url, body, headers, timeout, most, guarded=guarded)
    return status, data


async def _exchange(
    url: str,
    body: bytes | None,
    headers: Mapping[str, str] | None,
    seconds: float,
    most: int,
    *,
    verify: bool = True,
    method: str = "",
    sink: Callable[[bytes], None] | None = None,
    guarded: bool = False,
) -> tuple[int, Mapping[str, str], bytes]:
    parts = urlsplit(url)
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    sent = {"accept": "application/json", "connection": "close", **(headers or {})}
    # Metadata services are allowed to hosts that the operator names: Google's issues tokens.
    pool = ConnectionPool(url, most=most, cut=True, verify=verify, guarded=guarded)
    async with asyncio.timeout(seconds):
        return await pool.ask(target, body, sent, method or ("GET" if body is None else "POST"), sink=sink)
