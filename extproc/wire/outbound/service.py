"""HTTP services, asked with a limit of concurrent calls, a breaker, a deadline and a bounded answer.

Only the operator's settings say where text goes. An answer counts when its status is 200 and it has the shape that the
service documents; everything else is a `Failure`. No log has texts or credentials. A Failure's reason is one of our
words, never the service's text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator

from extproc.wire.framing import shapes
from extproc.wire.outbound.breaker import Breaker
from extproc.wire.outbound.pool import AnswerError, ConnectionPool, is_metadata
from extproc.words.values import Secret

_AT_ONCE = 16  # concurrent works of `together`
_GRACE = 0.05  # extra seconds in which a call at its deadline can report the timeout itself
_encode = msgspec.json.Encoder().encode

Result = TypeVar("Result")


class Failure(Exception):  # noqa: N818
    """A question without an answer. `reason` for a service: timeout, error, overload, unreachable, unavailable (the
    breaker is open), status, bad_answer, too_long, no_key. Guardrails in this process add: unreadable, too_many.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def service_url(value: str) -> str:
    """Check the address of a service. Raises ValueError."""
    try:
        url = urlsplit(value)
        wrong = url.scheme not in ("http", "https") or not url.hostname or url.port == 0 or not value.isascii()
    except ValueError:
        wrong = True
    if wrong or not value.isprintable() or " " in value or url.query or url.fragment or "@" in url.netloc:
        raise ValueError("the address must be http(s)://host[:port][/path], without user, query or fragment")
    if is_metadata(url.hostname or "") or url.hostname in ("metadata.google.internal", "metadata"):
        raise ValueError("the address is that of a cloud's metadata service")
    return value.rstrip("/")


Url = Annotated[str, AfterValidator(service_url)]


class Limits(Protocol):
    """Limits of calls to a service; `RemoteSettings` has them."""

    @property
    def tls_ca(self) -> str | None: ...

    @property
    def max_answer(self) -> int: ...

    @property
    def max_calls(self) -> int: ...


class Service:
    """A service that a guardrail asks, with a limit of concurrent calls and a breaker. `observe` gets each call's
    outcome. `socket` is a unix socket to connect to in place of the URL's host.

    Outcomes: ok, timeout, unreachable, unavailable (the breaker is open), overload, status, bad_answer, cancelled (the
    client left).
    """

    def __init__(self, url: str, settings: Limits, *, ca: str | None = None, socket: str | None = None) -> None:
        self._url = urlsplit(url)
        origin = f"{self._url.scheme}://{self._url.netloc}"
        self._pool = ConnectionPool(origin, ca=settings.tls_ca or ca, most=settings.max_answer, socket=socket)
        self._path = self._url.path.rstrip("/")
        self._most = settings.max_calls
        self._under_way = 0
        self._breaker = Breaker()
        self.observe: Callable[[str, float], None] = lambda _outcome, _seconds: None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> bytes:
        """The body of an answer with status 200. Raises Failure."""
        began = time.monotonic()
        outcome = "cancelled"
        try:
            outcome, answer = await self._post(self._path + path, body, headers, deadline)
        finally:
            self.observe(outcome, time.monotonic() - began)
        if outcome != "ok":
            raise Failure(outcome)
        return answer

    async def _post(self, target: str, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[str, bytes]:
        if self._under_way >= self._most:
            return "overload", b""
        try:
            probe = self._breaker.enter()
        except ConnectionError:
            return "unavailable", b""
        self._under_way += 1
        headers = {"content-type": "application/json", "accept": "application/json", **headers}
        status, answer, well = 0, b"", False
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                status, answer = await self._pool.post(target, body, headers)
            well = status < 500 and status != 429
            outcome = "ok" if status == 200 else "status"
        except TimeoutError:
            outcome = "timeout"
        except AnswerError:
            outcome = "bad_answer"
        except OSError:
            outcome = "unreachable"
        except BaseException:
            self._breaker.abandoned(probe)
            raise
        finally:
            self._under_way -= 1
        if well:
            self._breaker.succeeded()
        else:
            self._breaker.failed(probe)
        return outcome, answer

    async def json(
        self, path: str, body: Any, kind: type[Result], deadline: float, headers: Mapping[str, str] | None = None
    ) -> Result:
        """The answer to `body`, decoded to `kind`. Raises Failure, also for an answer of another shape."""
        answer = await self.post(path, _encode(body), headers or {}, deadline)
        return decoded(answer, kind)


def decoded(answer: bytes, kind: type[Result]) -> Result:
    """JSON decoded to `kind`. Raises Failure."""
    try:
        return shapes.decode(answer, kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Failure("bad_answer") from None


def key_of(secret: Secret | None) -> str:
    """The key behind a secret's reference, fit for a header. Raises Failure for an unreadable key."""
    key = secret.read() if secret is not None else None
    if not key or not key.isascii() or not key.isprintable():
        raise Failure("no_key")
    return key


def bearer(secret: Secret | None) -> Mapping[str, str]:
    """The authorization header for a key; empty without a reference. Raises Failure for an unreadable key."""
    return {} if secret is None else {"authorization": f"Bearer {key_of(secret)}"}


async def bounded(work: Coroutine[Any, Any, Result], deadline: float) -> Result:
    """The result of `work` until `deadline` (seconds, monotonic). Raises Failure for every error."""
    # A new task, because the first step of a call runs outside of a task, see `GrpcCall`.
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline + _GRACE - time.monotonic()))
        if not done:
            raise Failure("timeout")
        try:
            return task.result()
        except Failure:
            raise
        except Exception as error:
            raise Failure("error") from error
    finally:
        task.add_done_callback(_retrieve)
        task.cancel()


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # otherwise asyncio logs the exception as never retrieved


async def together(works: Sequence[Callable[[], Awaitable[Result]]]) -> Sequence[Result]:
    """Results, in order, of concurrent `works`. A failure cancels the other works."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def done(work: Callable[[], Awaitable[Result]]) -> Result:
        async with room:
            return await work()

    tasks = [asyncio.ensure_future(done(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
