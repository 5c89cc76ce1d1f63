"""One connection to a Redis, shared by many calls at once, and a breaker that stops calls when Redis does not answer.

A pool would need a connection for each call in flight; here the calls share one, and calls of the same moment leave
together. While calls are frequent, one for which no client waits, such as a settle, leaves with the next one: a request
then takes one round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import MovedError, NoScriptError, ReadOnlyError, RedisError, ResponseError

from extproc.stores import NotSentError, StoreError
from extproc.stores.redis import RedisURL
from extproc.stores.redis.silence import CrowdedError, Silence, SilentError
from extproc.wire.outbound.breaker import Breaker
from extproc.words.values import Secret

log = logging.getLogger(__name__)

_WAIT = 0.01  # most seconds that a call waits for another one to leave with
_FREQUENT = 3  # calls of clients in _WAIT seconds from which on others wait for the next
_SENTINEL_TIMEOUT = 0.5  # seconds for the answer of one Sentinel; the next is asked after it
CONNECT_TIMEOUT = 2.0  # seconds to connect; calls that wait for the connection keep their own limits

_MOST_TOLD = 8  # most reasons in the log for one outage
_LONGEST_REASON = 200  # most characters of a reason in the log
_CALM = 5.0  # seconds without a failure before an outage is over: a full server still answers reads


class FileCredentials(CredentialProvider):
    """Credentials that are read anew for each connection, so that a password in a file can be rotated."""

    def __init__(self, user: str | None, secret: Secret) -> None:
        self._user = user
        self._secret = secret

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._secret.read()
        if password is None:
            raise ConnectionError(f"{self._secret} is not set")
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def connection_options(url: RedisURL) -> dict[str, Any]:
    """Options of the client's connections to a Redis. RESP2 saves a round trip of the handshake."""
    options: dict[str, Any] = {"host": url.host, "port": url.port, "db": url.db, "protocol": 2}
    if url.password is not None:
        options["credential_provider"] = FileCredentials(url.user, url.password)
    if url.tls:
        options |= {"ssl_check_hostname": True, "ssl_ca_certs": url.ca}
    return options


async def _primary(url: RedisURL) -> tuple[str, int]:
    """The address of the primary that the Sentinels name. Raises RedisError when none does in time."""
    options = connection_options(url)
    for name in ("host", "port", "db", "credential_provider"):
        options.pop(name, None)
    if url.sentinel_password is not None:
        options["credential_provider"] = FileCredentials(None, url.sentinel_password)
    options |= {"ssl": url.tls, "socket_timeout": _SENTINEL_TIMEOUT, "socket_connect_timeout": _SENTINEL_TIMEOUT}
    options["retry"] = Retry(NoBackoff(), 0)  # the next Sentinel is asked instead
    watch: Any = Sentinel(list(url.places), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            host, port = await watch.discover_master(url.sentinel)
    finally:
        for client in watch.sentinels:
            await client.aclose()
    return str(host), int(port)


def packed(command: Sequence[str | bytes]) -> bytes:
    """A command in RESP, as the client packs it, at a third of the cost."""
    parts = [b"*%d" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else word.encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b" % (len(data), data))
    parts.append(b"")
    return b"\r\n".join(parts)


class _Line:
    """A connection and the calls that wait for its answers, in the order of the calls."""

    def __init__(self, connection: Any, silence: Silence) -> None:
        self._connection = connection
        self._silence = silence
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []  # calls that leave in one piece
        self._hurries = False  # True: they leave at the end of this turn of the event loop
        self._hurried = deque([-1.0] * _FREQUENT, _FREQUENT)  # times of the latest calls of clients
        self._reader = asyncio.create_task(self._read())
        self.broken = False

    async def ask(self, *command: str | bytes, waits: bool = False) -> Any:
        """The answer to a call; `waits`: it may wait for the next one, to leave with it. Raises the server's error as a
        ResponseError.
        """
        writer = self._connection._writer  # noqa: SLF001
        if self.broken or writer.is_closing():  # a connection closes one turn before its reader notices
            raise ConnectionError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(future)
        if not waits:
            self._hurried.append(loop.time())
        if waits and loop.time() - self._hurried[0] < _WAIT:
            if not self._unsent:
                loop.call_later(_WAIT, self._flush)
        elif not self._hurries:
            self._hurries = True
            loop.call_soon(self._flush)
        self._unsent.append(packed(command))
        answer = await self._silence.wait(future)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _flush(self) -> None:
        """Write directly: the client's own method waits for a full socket to empty, which a hanging server never does.
        The number of calls bounds the bytes written.
        """
        unsent, self._unsent, self._hurries = self._unsent, [], False
        if unsent and not self.broken:  # otherwise `_read` has told the calls
            self._connection._writer.write(b"".join(unsent))  # noqa: SLF001

    async def _read(self) -> None:
        failure: Exception = ConnectionError()
        try:
            while True:
                try:
                    answer = await self._connection.read_response(disconnect_on_error=False)
                except ResponseError as error:
                    answer = error
                self._silence.end()
                future = self._waiting.popleft()
                if not future.done():  # otherwise the caller has gone
                    future.set_result(answer)
        except (RedisError, OSError) as error:
            failure = error
        finally:
            self.broken = True
            for future in self._waiting:
                if not future.done():
                    future.set_result(failure)
            self._waiting.clear()
            with contextlib.suppress(RedisError, OSError):
                await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        self.broken = True
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


class RedisLink:
    """Calls one script at `url`, through a connection that is made on demand."""

    def __init__(self, url: RedisURL, key: str, script: str, sha: str, silence: Silence) -> None:
        self._url = url
        self._key = key
        self._script = script
        self._sha = sha
        self._silence = silence
        self._places = cycle(url.places)
        self._address = next(self._places)
        self._line: asyncio.Task[_Line] | None = None
        self._closed = False
        self._told: set[str] = set()  # logged reasons of the outage; empty while the server answers
        self._failed_at = 0.0
        self._cause = ""  # reason of the latest failure
        self.breaker = Breaker(refusal=NotSentError)

    async def call(self, *arguments: str | bytes, waits: bool = False) -> Any:
        """The script's answer; `waits`: no client waits for the call. Raises StoreError when there is none in time,
        NotSentError if the script cannot have run.
        """
        if self._closed:
            raise NotSentError("the store is closed")
        try:
            probe = self.breaker.enter()
        except NotSentError as error:
            raise NotSentError(f"{error} ({self._cause})") from None
        try:
            answer = await self._call(arguments, waits)
        except SilentError:
            cause = f"no answer within {self._silence.timeout * 1000:g} ms"
            await self._failed(probe, cause)
            raise StoreError(cause) from None
        except CrowdedError:  # the server answers, so the breaker stays closed
            self.breaker.abandoned(probe)
            raise StoreError("the store is busy with other calls") from None
        except NotSentError as error:
            await self._failed(probe, str(error))
            raise
        except (RedisError, OSError) as error:
            cause = _reason(error)
            await self._failed(probe, cause)
            raise StoreError(cause) from None
        except BaseException:
            self.breaker.abandoned(probe)
            raise
        self.breaker.succeeded()
        if self._told and time.monotonic() - self._failed_at > _CALM:
            self._told.clear()
            log.warning("the Redis of stores.counters answers again")
        return answer

    async def _call(self, arguments: Sequence[str | bytes], waits: bool) -> Any:
        line = await self._connected()
        try:
            return await line.ask("EVALSHA", self._sha, "1", self._key, *arguments, waits=waits)
        except NoScriptError:  # the server is new, was flushed or has failed over
            return await line.ask("EVAL", self._script, "1", self._key, *arguments)
        except MovedError as error:  # all keys are on one node of the cluster, which gets all calls from now on
            self._address = (error.host or self._address[0], error.port)
            await self._hang_up(line)
            return await (await self._connected()).ask("EVAL", self._script, "1", self._key, *arguments)
        except ReadOnlyError:  # no longer the primary: look up its address again
            await self._hang_up(line)
            raise

    async def _connected(self) -> _Line:
        task = self._line
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result().broken)):
            self._line = task = asyncio.create_task(self._connect())
        if not task.done():
            made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            task.add_done_callback(partial(_wake, made))
            await self._silence.wait(made)
        if task.cancelled():
            raise NotSentError("another call gave the connection up")
        try:
            return task.result()
        except (RedisError, OSError) as error:
            self._address = next(self._places)  # another node of a cluster knows the way, too
            raise NotSentError(f"cannot connect: {_reason(error)}") from None

    async def _connect(self) -> _Line:
        url = self._url
        host, port = await _primary(url) if url.sentinel else self._address
        options = connection_options(url) | {"host": host, "port": port, "encoding_errors": "surrogatepass"}
        # The read has no timeout, because each call has one.
        options |= {"socket_timeout": None, "socket_connect_timeout": CONNECT_TIMEOUT, "socket_keepalive": True}
        connection: Any = (SSLConnection if url.tls else Connection)(**options)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()
            self._silence.end()
        except BaseException:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            raise
        line = _Line(connection, self._silence)
        try:
            if doubt := await self._doubt(line):
                log.error("%s", doubt)
        except BaseException:
            await line.close()
            raise
        return line

    async def examine(self) -> str:
        """A fault in the server's settings, or nothing. Raises StoreError."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._doubt(await self._connected())
        except (SilentError, CrowdedError, RedisError, OSError) as error:
            raise StoreError(_reason(error)) from None

    async def _doubt(self, line: _Line) -> str:
        """The fault of the server's settings, or nothing."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                text = (await line.ask("INFO", "memory")).decode()
        except ResponseError:  # the user may not read the configuration
            return ""
        facts = dict(entry.split(":", 1) for entry in text.split("\r\n") if ":" in entry)
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
            return f"the Redis of stores.counters may evict budgets (maxmemory-policy {policy}): set noeviction"
        return ""

    async def _failed(self, probe: bool, why: str) -> None:
        """Note a failure. The log has each reason `why` once until the server answers again."""
        self.breaker.failed(probe)
        self._failed_at, self._cause = time.monotonic(), why
        if self.breaker.open and why not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(why)
            log.error("the Redis of stores.counters fails (%s); budgets follow their store_failure", why)
        if self.breaker.open:  # give up hanging calls, so that the next probe gets a new connection
            await self._drop()

    async def _drop(self) -> None:
        task, self._line = self._line, None
        if task is None:
            return
        if not task.done():
            task.cancel()
        [line] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(line, _Line):
            await line.close()

    async def _hang_up(self, line: _Line) -> None:
        """Drop the connection, unless another call has done so."""
        task = self._line
        if task is not None and task.done() and not task.cancelled() and not task.exception() and task.result() is line:
            await self._drop()

    async def close(self) -> None:
        self._closed = True
        await self._drop()


def _reason(error: Exception) -> str:
    """The kind of an error, with the message of the server (full memory, a replica, a wrong password) or of the system.
    Messages about scripts are left out, because they may contain arguments.
    """
    kind, text = type(error).__name__, " ".join(str(error).split())
    if not text or text.startswith("ERR "):
        return kind
    return f"{kind}: {text.partition(' script: ')[0]}"[:_LONGEST_REASON]


def _wake(waiter: asyncio.Future[None], task: asyncio.Task[_Line]) -> None:
    if not task.cancelled():
        task.exception()  # marks the exception as read, even if no call waits for it
    if not waiter.done():
        waiter.set_result(None)
