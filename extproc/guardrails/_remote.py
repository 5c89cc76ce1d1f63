"""Guardrails that ask a service over HTTP: their settings, their calls, and the answers that cannot be a verdict.

    passages ─► ask() ─► Service.post(): calls at a time · breaker · deadline · bounded answer ─► findings by passage

Only the operator's settings say where text goes. An answer is a verdict when its status is 200 and it has the shape
that the service documents. Everything else is a `Failure`, which `failure: closed | open` decides about. Neither text
nor credentials are written to a log, and a Failure holds a word of its own, never the service's.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, Field, model_validator

from extproc.guardrails._base import Failure, Finding, Guardrail, GuardrailSettings
from extproc.guardrails._results import Read, Results
from extproc.upstream.providers import ProviderSettings
from extproc.wire.framing import shapes
from extproc.wire.outbound.breaker import Breaker
from extproc.wire.outbound.pool import AnswerError, Pool, is_metadata
from extproc.words.dialect import Result as ToolResult
from extproc.words.values import PositiveDuration, Secret, Size

_MOST_STEPS = 10_000  # comparisons of words in the search for changes; beyond it the rest is one change
_NEAR = 300  # characters in which two texts have to agree again
_MOST_FINDINGS = 10_000  # in one passage
_AT_ONCE = 16  # calls about one request
_MOST_MESSAGE = 300  # characters of a service's words for the client
_token = re.compile(r"\w+|\s+|[^\w\s]").findall
_unkind = re.compile(r"[^A-Za-z0-9_.:/-]+")
_encode = msgspec.json.Encoder().encode

Result = TypeVar("Result")


@dataclass(slots=True, frozen=True)
class Ruling(Finding):
    """A finding of a service that also decides. `replacement` takes the place of the span where it is masked. `blocks`:
    it is refused even where the action is `mask`. `message` is for the client.
    """

    replacement: str | None = None
    blocks: bool = False
    message: str = ""


class Passage(NamedTuple):
    """Text to judge. `where` is its place in the body, a path."""

    text: str
    role: str
    where: str


@dataclass(slots=True, frozen=True)
class Context:
    """The exchange that text belongs to, for services that are told. `on`: input or output."""

    on: str
    exchange: str = ""
    consumer: str = ""
    model: str = ""


@dataclass(slots=True, frozen=True)
class Around:
    """The settings beside those of a guardrail: providers, the gateway's own address, the keys of
    consumers, and the names of models.
    """

    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    door: str = "http://127.0.0.1:10000"
    keys: Mapping[str, Secret] = field(default_factory=dict)
    models: Collection[str] = ()
    private: str = ""  # Envoy's unix socket for questions that Envoy signs


class Remote(Protocol):
    """A detector that asks a service."""

    @property
    def services(self) -> Sequence[Service]: ...

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:
        """The findings in each passage. `deadline` is in seconds, monotonic. Raises Failure."""
        ...


@runtime_checkable
class Replacer(Protocol):
    """Replaces results of tools, before a model reads them, by what a service says about them."""

    @property
    def services(self) -> Sequence[Service]: ...

    def meant(self, tool: str) -> bool:
        """True where results of the tool are replaced."""
        ...

    def read(self, found: Sequence[ToolResult], consumer: str) -> Sequence[Read]:
        """The texts of results, and their references. May run on any thread."""
        ...

    async def shown(self, found: Sequence[Read], consumer: str, results: Results, deadline: float) -> Sequence[str]:
        """The text in the place of each result. `results` are those that are known. Raises Failure."""
        ...


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


class RemoteSettings(GuardrailSettings):
    """A guardrail that asks a service."""

    tls_ca: str | None = Field(
        None,
        description="PEM file of certificate authorities that verify the service. Default: the system's. Set it for a "
        "private certificate.",
    )
    max_calls: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most calls to the service at a time, in one process. A further one counts as a failure of the "
        "guardrail.",
    )
    max_text: int = Field(
        262_144,
        ge=1_000,
        le=20_000_000,
        description="Most characters of one request, or of one part of an answer, that are sent to the service. Longer "
        "text counts as a failure of the guardrail.",
    )
    max_answer: Size = Field(
        4 << 20,
        ge=1 << 10,
        le=64 << 20,
        description="Largest answer of the service, `1KiB` to `64MiB`. A larger one counts as a failure.",
    )
    window: int = Field(
        1000,
        ge=100,
        le=16384,
        description="Characters of a streamed answer that are judged together, 100 to 16384. The text waits for its "
        "window. A larger window costs fewer calls and makes answers less smooth.",
    )
    overlap: int = Field(
        200,
        ge=0,
        le=4096,
        description="Characters that a window of a streamed answer shares with the one before it, at most a third of "
        "`window`. Longer findings may be missed where two windows meet.",
    )
    longest_wait: PositiveDuration = Field(
        1.0,
        le=60,
        description="Longest time that the text of a streamed answer waits for a full window. Then the next event has "
        "it judged as it is.",
    )

    @model_validator(mode="after")
    def _overlaps(self) -> RemoteSettings:
        if 3 * self.overlap > self.window:
            raise ValueError("overlap is at most a third of window")
        return self

    @property
    def asks_as(self) -> str:
        """The consumer as which the guardrail asks the gateway itself; empty where it asks another service."""
        return ""

    def asks(self, around: Around) -> str:
        """The service that gets the text, for people: its host, or a model."""
        raise NotImplementedError

    def through_envoy(self, providers: Mapping[str, ProviderSettings]) -> str:  # noqa: ARG002
        """The provider as which Envoy signs the questions; empty where this process asks itself."""
        return ""

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Contradictions with other settings: (key, message)."""
        yield from ()

    def doubts(self) -> Iterator[tuple[str, str]]:
        """Lints: (key, message)."""
        yield from ()

    def connect(self, around: Around) -> Remote | Replacer:
        """The detector. Opens no connection yet."""
        raise NotImplementedError

    def build(self) -> Guardrail:
        raise NotImplementedError("a service is asked with connect")


class Limits(Protocol):
    """Limits of the calls to a service, as `RemoteSettings` has them."""

    @property
    def tls_ca(self) -> str | None: ...

    @property
    def max_answer(self) -> int: ...

    @property
    def max_calls(self) -> int: ...


class Service:
    """The service that a guardrail asks: calls at a time, the breaker, and what each call came to. With `socket` it is
    asked at that unix socket.

    Outcomes: ok, timeout, unreachable, unavailable (the breaker is open), overload, status, bad_answer, cancelled (the
    client left).
    """

    def __init__(self, url: str, settings: Limits, *, ca: str | None = None, socket: str | None = None) -> None:
        self._url = urlsplit(url)
        origin = f"{self._url.scheme}://{self._url.netloc}"
        self._pool = Pool(origin, ca=settings.tls_ca or ca, most=settings.max_answer, socket=socket)
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
        """The answer to `body` as `kind`. Raises Failure, also for an answer of another shape."""
        answer = await self.post(path, _encode(body), headers or {}, deadline)
        return decoded(answer, kind)


def decoded(answer: bytes, kind: type[Result]) -> Result:
    """JSON as `kind`. Raises Failure."""
    try:
        return shapes.decode(answer, kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Failure("bad_answer") from None


def key_of(secret: Secret | None) -> str:
    """The key behind a reference, for a header. Raises Failure where it cannot be read."""
    key = secret.read() if secret is not None else None
    if not key or not key.isascii() or not key.isprintable():
        raise Failure("no_key")
    return key


async def asked(
    settings: RemoteSettings, remote: Remote, passages: Sequence[Passage], context: Context, deadline: float
) -> Sequence[Sequence[Finding]]:
    """The findings of a service, checked. Raises Failure, whatever goes wrong."""
    if sum(len(passage.text) for passage in passages) > settings.max_text:
        raise Failure("too_long")
    found = await bounded(remote.ask(passages, context, deadline), deadline)
    if len(found) != len(passages):
        raise Failure("bad_answer")
    for passage, findings in zip(passages, found, strict=True):
        if any(not 0 <= one.span[0] <= one.span[1] <= len(passage.text) for one in findings):
            raise Failure("bad_answer")
    return found


async def bounded(work: Coroutine[Any, Any, Result], deadline: float) -> Result:
    """The result of `work` up to `deadline` (seconds, monotonic). Raises Failure, whatever goes wrong."""
    # A task of its own: the first step of a call runs outside of one, see `transport.Call`.
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
        task.exception()  # else asyncio logs the exception of work that nothing waits for


_GRACE = 0.05  # seconds in which a call that has reached its deadline says so itself


async def together(works: Sequence[Callable[[], Awaitable[Result]]]) -> Sequence[Result]:
    """The results, in order, of work that is done at the same time. Where one fails, the others are cancelled."""
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


class Part(NamedTuple):
    """A piece of a passage: the number of the passage, its place there, and its text."""

    number: int
    start: int
    text: str


def parts(passages: Sequence[Passage], size: int, overlap: int = 200) -> Iterator[Part]:
    """The passages in pieces of at most `size` characters. The pieces of one passage overlap."""
    for index, passage in enumerate(passages):
        text = passage.text
        for start in range(0, max(1, len(text) - overlap), size - overlap):
            yield Part(index, start, text[start : start + size])


def batches(passages: Sequence[Passage], size: int, most: int = 1000) -> Iterator[Sequence[Part]]:
    """Parts that are sent together: `size` characters and `most` parts at most."""
    batch: list[Part] = []
    room = size
    for part in parts(passages, size):
        if batch and (len(part.text) + 1 > room or len(batch) >= most):
            yield batch
            batch, room = [], size
        batch.append(part)
        room -= len(part.text) + 1
    if batch:
        yield batch


def gathered(passages: Sequence[Passage], found: Iterable[tuple[int, Finding]]) -> Sequence[Sequence[Finding]]:
    """Findings by passage. Parts overlap, so one may come twice. Raises Failure for too many: none may be left out."""
    sets: list[dict[Finding, None]] = [{} for _ in passages]
    for index, finding in found:
        sets[index][finding] = None
        if len(sets[index]) > _MOST_FINDINGS:
            raise Failure("bad_answer")
    return [[*each] for each in sets]


def bearer(secret: Secret | None) -> Mapping[str, str]:
    """The header for a key; none without a reference. Raises Failure where the key cannot be read."""
    return {} if secret is None else {"authorization": f"Bearer {key_of(secret)}"}


def all_of(passage: Passage, kind: str, **more: Any) -> Ruling:
    """A ruling on a whole passage."""
    return Ruling(kind_name(kind), (0, len(passage.text)), **more)


def kind_name(said: str) -> str:
    """A service's word for a finding, for logs and labels."""
    return _unkind.sub("_", said[:64]).strip("_") or "finding"


def message(said: str | None) -> str:
    """A service's words for the client, on one line."""
    return "" if said is None else " ".join(said.split())[:_MOST_MESSAGE]


def changes(old: str, new: str, kind: str) -> Sequence[Ruling]:
    """The replacements that make `new` of `old`: small ones, where the two soon agree again."""
    if old == new or not old:
        return ()
    found: list[Ruling] = []
    steps = _MOST_STEPS
    last = _same(old[::-1], 0, new[::-1], 0)
    at = to = 0
    while True:
        same = _same(old, at, new, to)
        at, to = at + same, to + same
        left, right = len(old) - last - at, len(new) - last - to
        if left <= 0 or right <= 0:  # the rest was taken out, or put in
            overlap = min(left, right, 0)  # what is the same at both ends may be counted twice
            left, right = left - overlap, right - overlap
            if left or right:
                found.append(_replacement(old, at, left, new[to : to + right], kind))
            return found
        gone, come, steps = _meet(_tokens(old, at, left), _tokens(new, to, right), steps)
        gone, come = (left, right) if gone < 0 else (gone, come)
        found.append(_replacement(old, at, gone, new[to : to + come], kind))
        at, to = at + gone, to + come


def _same(old: str, at: int, new: str, to: int) -> int:
    """Characters that two texts have in common from there on."""
    done, size = 0, 64
    most = min(len(old) - at, len(new) - to)
    while size and done < most:
        if old.startswith(new[to + done : to + done + size], at + done) and done + size <= most:
            done, size = done + size, 2 * size
        else:
            size //= 2
    return done


def _tokens(text: str, at: int, size: int) -> Sequence[str]:
    """Words near a place. The last may be cut, so it is left out where more text follows."""
    found: list[str] = _token(text[at : at + min(size, _NEAR)])
    return found if size <= _NEAR else found[:-1]


def _meet(old: Sequence[str], new: Sequence[str], steps: int) -> tuple[int, int, int]:
    """Characters to leave out on both sides until two words in a row are the same, and the steps that are left; -1
    where there is no such place near.
    """
    for distance in range(1, len(old) + len(new)):
        for gone in range(max(0, distance - len(new)), min(distance, len(old)) + 1):
            come = distance - gone
            steps -= 1
            if steps < 0:
                return -1, -1, 0
            if (pair := old[gone : gone + 2]) and pair == new[come : come + 2]:
                return sum(map(len, old[:gone])), sum(map(len, new[:come])), steps
    return -1, -1, steps


def _replacement(old: str, at: int, size: int, said: str, kind: str) -> Ruling:
    """A replacement of at least one character: an edit needs one."""
    if size:
        return Ruling(kind, (at, at + size), replacement=said)
    if at:
        return Ruling(kind, (at - 1, at), replacement=old[at - 1] + said)
    return Ruling(kind, (0, 1), replacement=said + old[0])
